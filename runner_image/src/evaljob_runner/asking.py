"""Samples -> requests -> inference lines. The only place where prompts meet a backend."""

import dataclasses
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from evaljob.task import RequestType
from evaljob_runner import generation, tokens
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import (
    Answer,
    Backend,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Overflow,
    Reply,
    Sampling,
)
from evaljob_runner.data import Sample
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.samples import (
    ERROR_MESSAGE_MAX,
    Choice,
    Error,
    InferenceLine,
    Outcome,
    Request,
)
from evaljob_runner.tokens import Encoded, Sent

_FINISHED = {
    Finish.STOP: Outcome.ANSWERED,
    Finish.LENGTH: Outcome.TRUNCATED,
    Finish.REFUSED: Outcome.REFUSED,
}


@dataclasses.dataclass(frozen=True)
class Asker:
    """Asks a backend about samples."""

    work: Assignment
    prompter: Prompter
    sampling: Sampling
    digest: str
    """The inference digest, written to every line."""
    backend: Backend

    def form(self, prompt: Prompt) -> Encoded | Sent:
        """A prompt in the form that the backend takes."""
        if self.backend.tokenizer is None:
            return tokens.send(prompt)
        return tokens.encode(prompt, self.backend.tokenizer, self.work.run.date)

    def lines(self, samples: Iterable[Sample]) -> Generator[InferenceLine]:
        """The inference lines of all samples, as they finish. Prompts are made when the backend has room."""
        waiting: dict[str, tuple[Prompt, Encoded | Sent]] = {}
        too_long: deque[InferenceLine] = deque()

        def fitting() -> Iterator[tuple[Prompt, Encoded | Sent]]:
            for sample in samples:
                prompt = self.prompter.prompt(sample)
                asked = self.form(prompt)
                if message := self._overflow(asked):
                    too_long.append(self._line(prompt, asked, Overflow(sample.id, message)))
                else:
                    waiting[sample.id] = prompt, asked
                    yield prompt, asked

        for reply in self._replies(fitting()):
            while too_long:
                yield too_long.popleft()
            yield self._line(*waiting.pop(reply.key), reply)
        yield from too_long

    def _replies(self, asked: Iterator[tuple[Prompt, Encoded | Sent]]) -> Iterator[Reply | LogLikelihoods]:
        if self.work.task.request_type is RequestType.LOG_LIKELIHOOD:
            return self.backend.weigh(
                LogLikelihoodRequest(p.sample.id, a.pairs) for p, a in asked if isinstance(a, Encoded)
            )
        return self.backend.generate(
            GenerateRequest(p.sample.id, a.prompt, self.sampling, self._seed(p.sample)) for p, a in asked
        )

    def _seed(self, sample: Sample) -> int:
        return generation.seed_of(
            run=self.work.run.seed, task=self.work.planned.task_name, subset=sample.subset, sample=sample.id
        )

    def _overflow(self, asked: Encoded | Sent) -> str | None:
        window = self.backend.window
        if window is None or isinstance(asked, Sent):
            return None
        needs = asked.needs(self.sampling.max_tokens)
        return f"prompt and answer take {needs} tokens, the window has {window}" if needs > window else None

    def _line(self, prompt: Prompt, asked: Encoded | Sent, reply: Reply | LogLikelihoods) -> InferenceLine:
        outcome, error, answer = self._answer(prompt, reply)
        sample = prompt.sample
        return InferenceLine(
            id=sample.id,
            subset=sample.subset,
            doc_digest=sample.digest,
            inference_digest=self.digest,
            attempt=self.work.attempt,
            outcome=outcome,
            error=error,
            requests=[self._request(prompt, asked).model_copy(update=answer)],
            target=prompt.target,
        )

    def _request(self, prompt: Prompt, asked: Encoded | Sent) -> Request:
        fields: dict[str, Any] = {"few_shot_ids": [s.id for s in prompt.few_shot] or None}
        if not prompt.choices:
            fields["params"] = dataclasses.asdict(self.sampling)
            fields["seed"] = self._seed(prompt.sample) if self.sampling.temperature else None
        if isinstance(asked, Encoded):
            fields |= {"rendered_by": "Runner", "prompt": asked.text, "prompt_tokens": len(asked.ids)}
        else:
            messages = [dict(m) for m in prompt.messages] or None
            fields |= {"rendered_by": "Server", "prompt": prompt.text or None, "messages": messages}
        return Request(prompt_digest=asked.digest, **fields)

    def _answer(
        self, prompt: Prompt, reply: Reply | LogLikelihoods
    ) -> tuple[Outcome, Error | None, dict[str, Any]]:
        """Outcome, error and the fields of the request that the answer fills."""
        if isinstance(reply, LogLikelihoods):
            return Outcome.ANSWERED, None, {"logprobs": _choices(prompt, reply)}
        if isinstance(reply, Answer):
            fields = {
                "output": reply.text,
                "finish_reason": reply.finish.value,
                "prompt_tokens": reply.prompt_tokens,
                "output_tokens": reply.output_tokens,
                "seconds": reply.seconds,
            }
            return _FINISHED[reply.finish], None, fields
        outcome = Outcome.CONTEXT_OVERFLOW if isinstance(reply, Overflow) else Outcome.INFRA_ERROR
        return outcome, Error(kind=outcome, message=reply.message[:ERROR_MESSAGE_MAX]), {}


def _choices(prompt: Prompt, reply: LogLikelihoods) -> list[Choice]:
    """Characters and bytes are the choice's own: the delimiter does not count."""
    return [
        Choice(
            text=text,
            sum=weight.total,
            tokens=weight.tokens,
            characters=len(text),
            bytes=len(text.encode()),
            greedy=weight.greedy,
        )
        for text, weight in zip(prompt.choices, reply.weights, strict=True)
    ]
