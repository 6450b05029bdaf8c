"""How a model is asked, and which fields of a task belong to that. One table, for `kubectl apply` and for us."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from pydantic.alias_generators import to_camel

from evaljob.model import cel


class RequestType(StrEnum):
    """How a model is asked: a text to continue, a conversation to answer, choices to weigh, or a text to weigh."""

    GENERATE = "Generate"
    CHAT = "Chat"
    LOG_LIKELIHOOD = "LogLikelihood"
    LOG_LIKELIHOOD_ROLLING = "LogLikelihoodRolling"
    """The whole `target`, in windows, for perplexities: nothing is asked, and no chat template is used."""

    @property
    def weighs(self) -> bool:
        """Whether the model gives log-likelihoods and no answer."""
        return self in (RequestType.LOG_LIKELIHOOD, RequestType.LOG_LIKELIHOOD_ROLLING)


class _Use(NamedTuple):
    """What a field of a task is for."""

    field: str
    kinds: tuple[RequestType, ...]
    needed: bool = False
    """Whether these request types cannot do without."""

    @property
    def name(self) -> str:
        """As it is written in YAML."""
        return to_camel(self.field)

    @property
    def place(self) -> str:
        """Where it belongs."""
        *before, last = self.kinds
        return f"requestType {', '.join(before)} or {last}" if before else f"requestType {last}"

    @property
    def message(self) -> str:
        """What is said where the field and the request type do not fit."""
        if self.needed:
            return f"{self.name}: needed by {self.place}, and only there"
        return f"{self.name}: only with {self.place}"

    @property
    def rule(self) -> str:
        """In CEL."""
        fits = f"self.requestType in {[*map(str, self.kinds)]}"
        return f"has(self.{self.name}) == ({fits})" if self.needed else f"!has(self.{self.name}) || {fits}"


_GENERATE, _CHAT, _CHOICES = RequestType.GENERATE, RequestType.CHAT, RequestType.LOG_LIKELIHOOD
_USES = (
    _Use("prompt", (_GENERATE, _CHOICES), needed=True),
    _Use("messages", (_CHAT,), needed=True),
    _Use("choices", (_CHOICES,), needed=True),
    _Use("tools", (_CHAT,)),
    _Use("truncate", (_GENERATE, _CHAT)),
    _Use("references", (_GENERATE, _CHAT, _CHOICES)),
    *(_Use(field, (_GENERATE, _CHOICES)) for field in ("few_shot", "chat_prompt", "description")),
    _Use("assistant_prefix", (_GENERATE, _CHAT, _CHOICES)),
)

RULES = tuple(cel(use.rule, use.message) for use in _USES)
"""For the API server."""


def misfits(kind: RequestType, given: frozenset[str]) -> Iterator[str]:
    """What is wrong with the fields of a task.

    Args:
        kind: its request type.
        given: the fields that it has, as Python spells them.
    """
    for use in _USES:
        fits, there = kind in use.kinds, use.field in given
        if there and not fits:
            yield f"{use.name}: only with {use.place} (this one is {kind})"
        if use.needed and fits and not there:
            yield f"{use.name}: not there, needed by requestType {kind}"
