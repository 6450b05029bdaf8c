"""A document's conversation, taken apart where answers are due."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""One turn in OpenAI's shape: at least `role` and `content`."""
ASSISTANT = "assistant"
_ASKING = ("user", "tool")


def turn(role: str, content: str) -> Message:
    """A turn of text."""
    return {"role": role, "content": content}


@dataclass(frozen=True)
class Part:
    """What leads to an answer, from the answer before it."""

    lead: tuple[Message, ...]
    gold: Message | None = None
    """The answer that the document has there, if any."""

    @property
    def asks(self) -> bool:
        """Whether anybody expects an answer."""
        return any(message["role"] in _ASKING for message in self.lead)


def parts(messages: Iterable[Message]) -> tuple[Part, ...]:
    """Cut before each assistant turn that something asks for, and where the user speaks again without an answer.

    The last part may ask for nothing.
    """
    found: list[Part] = []
    part = Part(())
    for message in messages:
        if message["role"] == ASSISTANT and part.asks:
            found.append(Part(part.lead, message))
            part = Part(())
            continue
        if message["role"] == "user" and part.asks:
            found.append(part)
            part = Part(())
        part = Part((*part.lead, message))
    return (*found, part) if part.lead else tuple(found)


def joined(
    before: Iterable[Part], answers: Iterable[Message], lead: Sequence[Message]
) -> tuple[Message, ...]:
    """The conversation up to an answer: earlier parts, each with an answer, and what leads to this one."""
    told = [message for part, answer in zip(before, answers, strict=True) for message in (*part.lead, answer)]
    return *told, *lead
