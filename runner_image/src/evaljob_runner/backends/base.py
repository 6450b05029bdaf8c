"""What a backend is asked and what it answers."""

import datetime as dt
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """Every sampling parameter, explicit: a checkpoint's own defaults never apply."""

    max_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int | None
    """None is off."""
    repetition_penalty: float | None
    """None is off."""
    stop: tuple[str, ...]


@dataclass(frozen=True)
class TokenPrompt:
    """Token ids, as local engines take them."""

    ids: TokenIds


@dataclass(frozen=True)
class TextPrompt:
    """Text, for a server that tokenises."""

    text: str


@dataclass(frozen=True)
class ChatPrompt:
    """Messages, for a server that renders and tokenises."""

    messages: tuple[Mapping[str, Any], ...]
    template_args: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions on offer, as OpenAI's `tools`."""


@dataclass(frozen=True)
class GenerateRequest:
    """One text to continue."""

    key: str
    prompt: TokenPrompt | TextPrompt | ChatPrompt
    sampling: Sampling
    seed: int
    """Used where temperature > 0."""


@dataclass(frozen=True)
class TextPairs:
    """A context and what may follow it, none of them empty, for a server that tokenises."""

    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class LogLikelihoodRequest:
    """Continuations to weigh."""

    key: str
    pairs: tuple[tuple[TokenIds, TokenIds], ...] | TextPairs
    """(context, continuation), both not empty."""

    @property
    def token_pairs(self) -> tuple[tuple[TokenIds, TokenIds], ...]:
        """The pairs, as local engines take them."""
        if isinstance(self.pairs, TextPairs):
            raise TypeError("this backend takes token ids")
        return self.pairs


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """An end-of-text token or a stop text."""
    LENGTH = "length"
    """`max_tokens` reached."""
    REFUSED = "refused"
    """The server's filter."""


@dataclass(frozen=True)
class Answer:
    """The text of an answer, stop texts cut off."""

    key: str
    text: str
    finish: Finish
    prompt_tokens: int
    output_tokens: int
    seconds: float | None = None
    """Of this request alone, where known."""
    thoughts: str | None = None
    """What a server took out of the output as the model's reasoning; None where it does not do that."""


@dataclass(frozen=True)
class Overflow:
    """The server says that the prompt does not fit its window."""

    key: str
    message: str


@dataclass(frozen=True)
class Unavailable:
    """No answer after all retries."""

    key: str
    message: str


Reply = Answer | Overflow | Unavailable


@dataclass(frozen=True)
class Weight:
    """The log-likelihood of one continuation."""

    total: float
    """Sum of natural log-probabilities of its tokens."""
    tokens: int
    greedy: bool
    """Whether every token was the most likely one."""


@dataclass(frozen=True)
class LogLikelihoods:
    """One weight per continuation, in the order of the request."""

    key: str
    weights: tuple[Weight, ...]
    prompt_tokens: int | None = None
    """Of the context, where the server tokenises."""


class Unsupported(Exception):  # noqa: N818 - a property of the engine
    """The engine cannot do what it was asked for; the message says what it lacks."""


class Tokenizer(Protocol):
    """Text <-> token ids of one model."""

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the model has one."""

    @property
    def prefix_id(self) -> int | None:
        """What stands for an empty context: BOS, else EOS."""

    def encode(self, text: str, *, special: bool) -> TokenIds:
        """Token ids; with `special` the tokenizer adds what it adds by default, but never a second BOS."""

    def decode(self, ids: TokenIds) -> str:
        """Text without special tokens, but with those that mark a model's thoughts."""

    def render(self, messages: tuple[Mapping[str, Any], ...], date: dt.date, **template_args: Any) -> str:  # noqa: ANN401
        """The conversation as text, ready for the assistant's answer; `date` is the template's clock.

        Raises:
            Fatal: when there is no chat template, or it refuses the messages.
        """


class Backend(Protocol):
    """An engine, or a client of one. Holds nothing between requests but the model itself."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the server tokenises."""

    @property
    def window(self) -> int | None:
        """Tokens that prompt and answer share; None where only the server knows."""

    @property
    def rolling_window(self) -> int:
        """Tokens of a long text that are weighed at once: as many as lm-eval's on the same engine."""

    @property
    def device(self) -> str:
        """What computed, for the record."""

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers as they finish, in any order. Requests are pulled when there is room for them."""

    def weigh(
        self, requests: Iterable[LogLikelihoodRequest]
    ) -> Iterator[LogLikelihoods | Overflow | Unavailable]:
        """Log-likelihoods, in any order.

        Raises:
            Unsupported: before the first of them.
        """


Ask = Callable[[GenerateRequest], Awaitable[Reply]]
_T = TypeVar("_T")


class Correspondent(Protocol):
    """A served model that is asked beside other work."""

    def begin(self, talk: Callable[[Ask], Awaitable[_T]]) -> Future[_T]:
        """What comes of a talk, later: it is given what asks the model. A bounded number of them go on at a time."""

    def close(self) -> None:
        """Leave what is not answered yet; nothing is asked after that."""


def cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop text, and whether one was found."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def answer(
    request: GenerateRequest, new: TokenIds, ends: Collection[int], decode: Callable[[TokenIds], str]
) -> Answer:
    """What an engine's new tokens say: up to the first end token and before the first stop text.

    Args:
        request: which was answered.
        new: the tokens after the prompt.
        ends: tokens that end an answer; they are counted, and not part of the text.
        decode: token ids -> text.
    """
    end = next((i for i, token in enumerate(new) if token in ends), None)
    text, stopped = cut(decode(new[:end]), request.sampling.stop)
    return Answer(
        key=request.key,
        text=text,
        finish=Finish.STOP if stopped or end is not None else Finish.LENGTH,
        prompt_tokens=len(token_ids(request)),
        output_tokens=len(new) if end is None else end + 1,
    )


def token_ids(request: GenerateRequest) -> TokenIds:
    """The prompt of a request to a local engine.

    Raises:
        TypeError: for a prompt that only a server can read.
    """
    if not isinstance(request.prompt, TokenPrompt):
        raise TypeError("a local engine takes token ids")
    return request.prompt.ids
