"""Prompts -> token ids and requests. BOS is decided here, once.

Log-likelihood pairs are cut as lm-eval 0.4 does, so that its numbers can be compared. One difference: text that
a chat template made gets no special tokens from the tokenizer, for both request types, as templates hold them.
"""

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaljob.names import Reason
from evaljob.task import Truncate
from evaljob_runner.backends.base import (
    ChatPrompt,
    TextPairs,
    TextPrompt,
    TokenIds,
    Tokenizer,
    TokenPrompt,
)
from evaljob_runner.errors import Fatal
from evaljob_runner.prompts import Prompt


@dataclass(frozen=True)
class Encoded:
    """A prompt as a local engine takes it."""

    text: str
    """What was tokenised, chat template included."""
    ids: TokenIds
    pairs: tuple[tuple[TokenIds, TokenIds], ...] = ()
    """LogLikelihood: (context, continuation) per choice; LogLikelihoodRolling: per window."""
    cut: int = 0
    """Tokens of `text` that were left out."""

    @property
    def prompt(self) -> TokenPrompt:
        """The prompt of a Generate request."""
        return TokenPrompt(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of every token id that the engine sees."""
        return _sha256([self.ids, *self.pairs])

    def needs(self, max_tokens: int) -> int:
        """Tokens of the window that the request takes."""
        if self.pairs:
            # The last token is only predicted, but vLLM keeps a place for it: one rule for all backends.
            return max(len(context) + len(continuation) for context, continuation in self.pairs)
        return len(self.ids) + max_tokens


@dataclass(frozen=True)
class Sent:
    """A prompt as a server takes it: the server renders and tokenises, so there is no digest of tokens."""

    prompt: TextPrompt | ChatPrompt
    continuations: tuple[str, ...] = ()
    """LogLikelihood: what may follow the prompt."""

    @property
    def pairs(self) -> TextPairs:
        """Context and continuations of a LogLikelihood request."""
        if isinstance(self.prompt, ChatPrompt):
            raise TypeError("a server's chat template has no log-likelihoods")
        return TextPairs(self.prompt.text, self.continuations)

    @property
    def digest(self) -> str:
        """SHA-256 of what is sent."""
        if isinstance(self.prompt, ChatPrompt):
            more = [part for part in (self.prompt.template_args, self.prompt.tools) if part]
            return _sha256([*map(dict, self.prompt.messages), *more])
        return _sha256([self.prompt.text, *self.continuations] if self.continuations else self.prompt.text)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


class Combined:
    """SHA-256 over digests in order, one after another."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"[")
        self._comma = b""

    def add(self, digest: str) -> None:
        """The next one."""
        self._hash.update(self._comma + json.dumps(digest).encode())
        self._comma = b","

    def hexdigest(self) -> str:
        """The digest of them all."""
        whole = self._hash.copy()
        whole.update(b"]")
        return whole.hexdigest()


def send(prompt: Prompt, template_args: Mapping[str, Any]) -> Sent:
    """The prompt for a server.

    Raises:
        Fatal: BadData, for choices without a prompt before them: only the server knows what begins a text.
    """
    if not prompt.choices:
        chat = ChatPrompt(prompt.messages, template_args, prompt.tools) if prompt.messages else None
        return Sent(chat or TextPrompt(prompt.text))
    context, space = _trimmed(prompt.text)
    if not context:
        raise Fatal(
            Reason.BAD_DATA,
            f"the prompt is empty ({prompt.sample.where}): behind a server LogLikelihood needs one",
        )
    return Sent(TextPrompt(context), tuple(space + prompt.delimiter + choice for choice in prompt.choices))


def encode(prompt: Prompt, tokenizer: Tokenizer, date: dt.date, template_args: Mapping[str, Any]) -> Encoded:
    """Render and tokenise a prompt.

    Raises:
        Fatal: when the chat template refuses the messages.
    """
    chat = bool(prompt.messages)
    if prompt.tools:
        template_args = {**template_args, "tools": [dict(tool) for tool in prompt.tools]}
    text = tokenizer.render(prompt.messages, date, **template_args) + prompt.prefix if chat else prompt.text
    ids = tokenizer.encode(text, special=not chat)
    continuations = [prompt.delimiter + choice for choice in prompt.choices]
    pairs = _pairs(tokenizer, text, continuations, special=not chat)
    for choice, (context, continuation) in zip(prompt.choices, pairs, strict=True):
        if not context or not continuation:
            raise Fatal(Reason.BAD_DATA, f"choice {choice[:80]!r} gives no token ({prompt.sample.where})")
    return Encoded(text, ids, pairs)


def shortened(encoded: Encoded, room: int, how: Truncate, bos_id: int | None) -> Encoded:
    """A prompt of at most `room` tokens. BOS stays."""
    ids = encoded.ids
    if len(ids) <= room:
        return encoded
    head = room // 2 if how is Truncate.MIDDLE else int(ids[:1] == (bos_id,))
    return dataclasses.replace(encoded, cut=len(ids) - room, ids=ids[:head] + ids[len(ids) - (room - head) :])


def windowed(encoded: Encoded, prefix_id: int | None, size: int, where: str) -> Encoded:
    """A text in windows of at most `size` tokens to weigh, each token once and with as much before it as fits.

    The first token follows the prefix token. The windows are lm-eval's, with a context of at least one token.

    Raises:
        Fatal: BadData, for a text without a token to weigh.
    """
    ids = encoded.ids if prefix_id is None else (prefix_id, *encoded.ids)
    if len(ids) < 2:
        raise Fatal(Reason.BAD_DATA, f"target: {encoded.text[:80]!r} gives no token to weigh ({where})")
    starts = range(1, len(ids), size)
    ends = (min(start + size, len(ids)) for start in starts)
    pairs = (
        (ids[max(0, end - size - 1) : start], ids[start:end]) for start, end in zip(starts, ends, strict=True)
    )
    return dataclasses.replace(encoded, pairs=tuple(pairs))


def _pairs(
    tokenizer: Tokenizer, context: str, continuations: Sequence[str], *, special: bool
) -> tuple[tuple[TokenIds, TokenIds], ...]:
    """Context and continuations as tokens; the border may lie inside a merge, so the whole is cut."""
    if not context:
        return tuple(_without_context(tokenizer, continuation) for continuation in continuations)
    stripped, space = _trimmed(context)
    start = tokenizer.encode(stripped, special=special) if continuations else ()
    wholes = (tokenizer.encode(stripped + space + c, special=special) for c in continuations)
    return tuple((start, whole[len(start) :]) for whole in wholes)


def _trimmed(context: str) -> tuple[str, str]:
    """A context and the white space at its end, which belongs to the continuation."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :]


def _without_context(tokenizer: Tokenizer, continuation: str) -> tuple[TokenIds, TokenIds]:
    """An empty context is the prefix token, unless the continuation brings it."""
    ids = tokenizer.encode(continuation, special=False)
    prefix = tokenizer.prefix_id
    if prefix is None or ids[:1] == (prefix,):
        return ids[:1], ids[1:]
    return (prefix,), ids
