"""A backend without a model, for unit tests: answers come from a function."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaljob_runner.backends.base import (
    Answer,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Reply,
    TokenIds,
    TokenPrompt,
    Weight,
    cut,
)


class Characters:
    """A tokenizer whose tokens are characters; its chat template is `<role>content` per turn and `<assistant>`."""

    bos_id: int | None = None
    prefix_id: int | None = 0

    def encode(self, text: str, *, special: bool) -> TokenIds:  # noqa: ARG002 - there are no special tokens
        """One token per character."""
        return tuple(map(ord, text))

    def decode(self, ids: TokenIds) -> str:
        """The characters."""
        return "".join(map(chr, ids))

    def render(
        self,
        messages: tuple[Mapping[str, Any], ...],
        date: dt.date,  # noqa: ARG002 - no clock
        **template_args: Any,  # noqa: ANN401 - as in the protocol
    ) -> str:
        """The turns, one after another, behind the template's variables."""
        head = "".join(f"<{name}={value}>" for name, value in template_args.items())
        return head + "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


@dataclass
class ScriptedBackend:
    """Answers a prompt's text by `answer`, weighs a continuation by `weight`; keeps what it was asked."""

    answer: Callable[[str], str | Reply] = lambda _: ""
    weight: Callable[[str, str], float] = lambda _context, _continuation: 0.0
    tokenizer: Characters | None = field(default_factory=Characters)
    window: int | None = None
    rolling_window: int = 8
    device: str = "script"
    asked: list[GenerateRequest | LogLikelihoodRequest] = field(default_factory=list)

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers in order; an answer of `maxTokens` characters or more is cut there."""
        for request in requests:
            self.asked.append(request)
            said = self.answer(self._text(request))
            yield self._cut(request, said) if isinstance(said, str) else said

    def _text(self, request: GenerateRequest) -> str:
        prompt = request.prompt
        if isinstance(prompt, TokenPrompt):
            return Characters().decode(prompt.ids)
        return str(prompt)

    def _cut(self, request: GenerateRequest, said: str) -> Answer:
        text, stopped = cut(said[: request.sampling.max_tokens], request.sampling.stop)
        full = len(said) >= request.sampling.max_tokens and not stopped
        finish = Finish.LENGTH if full else Finish.STOP
        return Answer(request.key, text, finish, prompt_tokens=1, output_tokens=len(text))

    def weigh(self, requests: Iterable[LogLikelihoodRequest]) -> Iterator[LogLikelihoods]:
        """Weights in order."""
        for request in requests:
            self.asked.append(request)
            texts = [(Characters().decode(c), Characters().decode(t)) for c, t in request.token_pairs]
            weights = tuple(Weight(self.weight(c, t), len(t), greedy=False) for c, t in texts)
            yield LogLikelihoods(request.key, weights)
