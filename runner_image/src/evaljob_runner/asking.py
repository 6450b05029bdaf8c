"""Samples -> requests -> inference lines. The only place where prompts meet a backend."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import cached_property
from itertools import groupby, islice
from typing import Any, NamedTuple

from evaljob.requests import RequestType
from evaljob.task import Turns
from evaljob_runner import generation, reasoning, tokens
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
    Unsupported,
)
from evaljob_runner.data import Sample
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.samples import (
    ERROR_MESSAGE_MAX,
    Accepted,
    AnswerKey,
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
_ENDING = (Outcome.CONTEXT_OVERFLOW, Outcome.REFUSED, Outcome.INFRA_ERROR)
"""After these a conversation has no answer to go on from."""
_BY_GRAVITY = (Outcome.ANSWERED, Outcome.NO_ANSWER, Outcome.TRUNCATED, *_ENDING)
SIDE_BY_SIDE = 256
"""Conversations that are led at once: enough to fill an engine's batch. Each is logged when it ends."""


class Ask(NamedTuple):
    """One question to the model: a sample, asked for the n-th time."""

    sample: Sample
    repeat: int

    @property
    def key(self) -> AnswerKey:
        """Names it in the sample log."""
        return self.sample.id, self.repeat

    @property
    def request_key(self) -> str:
        """Names it at the backend."""
        return f"{self.sample.id}#{self.repeat}"


class _Asked(NamedTuple):
    """A question in the form that the backend takes."""

    ask: Ask
    prompt: Prompt
    form: Encoded | Sent
    before: "tuple[_Exchange, ...]" = ()
    """What was said in its conversation."""

    @property
    def key(self) -> str:
        """Names it at the backend."""
        return self.ask.request_key + (f"#{len(self.before)}" if self.before else "")


class _Exchange(NamedTuple):
    """A question and what came of it."""

    asked: _Asked
    request: Request
    outcome: Outcome
    error: Error | None

    @property
    def conversation(self) -> "tuple[_Exchange, ...]":
        """Everything said so far."""
        return (*self.asked.before, self)

    @property
    def ends(self) -> bool:
        """Whether nothing follows in its conversation."""
        return self.outcome in _ENDING or len(self.conversation) >= len(self.asked.prompt.turns)


@dataclasses.dataclass(frozen=True)
class Asker:
    """Asks a backend about samples."""

    work: Assignment
    prompter: Prompter
    sampling: Sampling
    digest: str
    """The inference digest, written to every line."""
    backend: Backend
    document: Callable[[Sample], dict[str, Any] | None]
    """What scoring needs of a sample's document, written to every line."""

    @cached_property
    def engine(self) -> Sampling:
        """What the engine is told."""
        return reasoning.engine(self.sampling, self.work.model.reasoning)

    @cached_property
    def _params(self) -> dict[str, Any]:
        return dataclasses.asdict(self.engine)

    @property
    def _rolling(self) -> bool:
        return self.work.task.request_type is RequestType.LOG_LIKELIHOOD_ROLLING

    def form(self, prompt: Prompt) -> Encoded | Sent:
        """A prompt in the form that the backend takes."""
        if self.backend.tokenizer is None:
            return tokens.send(prompt, self.work.template_args)
        tokenizer, window = self.backend.tokenizer, self.backend.window
        encoded = tokens.encode(prompt, tokenizer, self.work.run.date, self.work.template_args)
        if self._rolling:
            return tokens.windowed(
                encoded, tokenizer.prefix_id, self.backend.rolling_window, prompt.sample.where
            )
        how, room = self.work.task.truncate, (window or 0) - self.engine.max_tokens
        # Where the answer alone fills the window, nothing helps: the sample overflows.
        if how is None or window is None or room <= 0:
            return encoded
        return tokens.shortened(encoded, room, how, tokenizer.bos_id)

    def lines(self, asks: Iterable[Ask]) -> Generator[InferenceLine]:
        """The inference lines of all questions, as they finish. Prompts are made when the backend has room."""
        if self.work.task.turns is Turns.LAST:
            yield from map(self._line, self._exchanges(self._asked(asks)))
            return
        remaining = iter(asks)
        while some := list(islice(remaining, SIDE_BY_SIDE)):
            yield from self._conversations(some)

    def _conversations(self, asks: Iterable[Ask]) -> Iterator[InferenceLine]:
        """Turn by turn: the first answers of all conversations, then the second ones."""
        following: list[_Exchange] = []
        asked = self._asked(asks)
        while True:
            for exchange in self._exchanges(asked):
                if exchange.ends:
                    yield self._line(exchange)
                else:
                    following.append(exchange)
            if not following:
                return
            asked, following = map(self._next, following), []

    def _next(self, exchange: _Exchange) -> _Asked:
        """The question that follows an answer."""
        conversation = exchange.conversation
        said = [e.request.output or "" for e in conversation]
        gold = self.work.task.turns is Turns.EVERY_WITH_GOLD
        prompt = conversation[0].asked.prompt.after(said, gold=gold)
        return _Asked(exchange.asked.ask, prompt, self.form(prompt), conversation)

    def _exchanges(self, questions: Iterable[_Asked]) -> Iterator[_Exchange]:
        """What comes of questions, in any order. One that does not fit the window never reaches the backend."""
        waiting: dict[str, _Asked] = {}
        too_long: deque[_Exchange] = deque()

        def fitting() -> Iterator[_Asked]:
            for asked in questions:
                if message := self._overflow(asked.form):
                    too_long.append(self._exchange(asked, Overflow(asked.key, message)))
                else:
                    waiting[asked.key] = asked
                    yield asked

        for reply in self._replies(fitting()):
            while too_long:
                yield too_long.popleft()
            yield self._exchange(waiting.pop(reply.key), reply)
        yield from too_long

    def _asked(self, asks: Iterable[Ask]) -> Iterator[_Asked]:
        """Questions with their prompts; the repeats of a sample share one."""
        for sample, repeats in groupby(asks, key=lambda ask: ask.sample):
            prompt = self.prompter.prompt(sample)
            form = self.form(prompt)
            for ask in repeats:
                yield _Asked(ask, prompt, form)

    def _replies(self, asked: Iterator[_Asked]) -> Iterator[Reply | LogLikelihoods]:
        if self.work.task.request_type.weighs:
            return self._weighed(LogLikelihoodRequest(a.key, a.form.pairs) for a in asked)
        engine = self.engine
        return self.backend.generate(
            GenerateRequest(a.key, a.form.prompt, engine, self._seed(a)) for a in asked
        )

    def _weighed(self, requests: Iterator[LogLikelihoodRequest]) -> Iterator[Reply | LogLikelihoods]:
        try:
            yield from self.backend.weigh(requests)
        except Unsupported as error:
            raise self.work.unsupported(str(error)) from error

    def _seed(self, asked: _Asked) -> int:
        sample = asked.ask.sample
        return generation.seed_of(
            run=self.work.run.seed,
            task=self.work.planned.task_name,
            subset=sample.subset,
            sample=sample.id,
            repeat=asked.ask.repeat,
            turn=len(asked.before),
        )

    def _overflow(self, asked: Encoded | Sent) -> str | None:
        window = self.backend.window
        if window is None or isinstance(asked, Sent) or self._rolling:
            return None
        needs = asked.needs(self.engine.max_tokens)
        return f"prompt and answer take {needs} tokens, the window has {window}" if needs > window else None

    def _exchange(self, asked: _Asked, reply: Reply | LogLikelihoods) -> _Exchange:
        outcome, error, answer = self._answer(asked.prompt, reply)
        return _Exchange(asked, self._request(asked, answer), outcome, error)

    def _line(self, last: _Exchange) -> InferenceLine:
        """The line of a sample, all of whose answers are there."""
        asked, conversation = last.asked, last.conversation
        sample, prompt = asked.ask.sample, asked.prompt
        return InferenceLine(
            id=sample.id,
            subset=sample.subset,
            repeat=asked.ask.repeat,
            doc_digest=sample.digest,
            inference_digest=self.digest,
            attempt=self.work.attempt,
            outcome=max((e.outcome for e in conversation), key=_BY_GRAVITY.index),
            error=last.error,
            requests=[e.request for e in conversation],
            target=prompt.target,
            references=list(prompt.references) or None,
            turns=[Accepted(target=t.target, references=list(t.references) or None) for t in prompt.turns]
            or None,
            doc=self.document(sample),
        )

    def _request(self, asked: _Asked, answer: dict[str, Any]) -> Request:
        """The request with what its answer fills in."""
        prompt, form = asked.prompt, asked.form
        fields: dict[str, Any] = {"few_shot_ids": [s.id for s in prompt.few_shot] or None}
        if not self.work.task.request_type.weighs:
            fields["params"] = self._params
            fields["seed"] = self._seed(asked) if self.sampling.temperature else None
        if isinstance(form, Encoded):
            fields |= {"rendered_by": "Runner", "prompt_tokens": len(form.ids)}
            fields["prompt"] = None if self._rolling else form.text  # a text stands in the line as its target
            fields["prompt_cut"] = form.cut or None
            fields["doubled_bos"] = self._doubled_bos(form) or None
        else:
            messages = [dict(m) for m in prompt.messages] or None
            fields |= {"rendered_by": "Server", "prompt": prompt.text or None, "messages": messages}
        return Request(prompt_digest=form.digest, **fields | answer)

    def _count(self, thoughts: str) -> int | None:
        tokenizer = self.backend.tokenizer
        return len(tokenizer.encode(thoughts, special=False)) if thoughts and tokenizer else None

    def _doubled_bos(self, form: Encoded) -> bool:
        bos = self.backend.tokenizer.bos_id if self.backend.tokenizer else None
        return bos is not None and form.ids[:2] == (bos, bos)

    def _answer(
        self, prompt: Prompt, reply: Reply | LogLikelihoods
    ) -> tuple[Outcome, Error | None, dict[str, Any]]:
        """Outcome, error and the fields of the request that the answer fills."""
        if isinstance(reply, LogLikelihoods):
            known = {} if reply.prompt_tokens is None else {"prompt_tokens": reply.prompt_tokens}
            weighed = [_whole(prompt.target, reply)] if self._rolling else _choices(prompt, reply)
            return Outcome.ANSWERED, None, {"logprobs": weighed, **known}
        if isinstance(reply, Answer):
            said = reasoning.split(reply, self.work.model.reasoning, self.sampling.stop)
            outcome = _FINISHED[said.finish]
            if said.answer is None and outcome is Outcome.ANSWERED:
                outcome = Outcome.NO_ANSWER
            fields = {
                "output": said.answer,
                "reasoning": said.thoughts or None,
                "reasoning_tokens": self._count(said.thoughts),
                "finish_reason": said.finish.value,
                "prompt_tokens": reply.prompt_tokens,
                "output_tokens": reply.output_tokens,
                "seconds": reply.seconds,
            }
            return outcome, None, fields
        outcome = Outcome.CONTEXT_OVERFLOW if isinstance(reply, Overflow) else Outcome.INFRA_ERROR
        return outcome, Error(kind=outcome, message=reply.message[:ERROR_MESSAGE_MAX]), {}


def _whole(text: str, reply: LogLikelihoods) -> Choice:
    """A text of which each window was weighed."""
    return Choice(
        text="",
        sum=math.fsum(window.total for window in reply.weights),
        tokens=sum(window.tokens for window in reply.weights),
        characters=len(text),
        bytes=len(text.encode()),
        greedy=all(window.greedy for window in reply.weights),
    )


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
