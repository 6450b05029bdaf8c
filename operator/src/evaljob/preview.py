"""A sample as a runner shows it on its standard output, for people who look while it runs."""

from typing import Literal

from pydantic import Field

from evaljob.model import Frozen

LINES_MAX: dict[str, int] = {"First": 5, "Wrong": 10, "Error": 5}
"""How many of each kind a runner prints."""
_END = 300


class SamplePreview(Frozen):
    """One line of JSON; texts are cut in the middle."""

    type: Literal["sample"] = "sample"
    kind: Literal["First", "Wrong", "Error"]
    """One of the first; a primary score of 0; no answer."""
    id: str
    outcome: str
    prompt: str | None = None
    """The text or the last message."""
    output: str | None = None
    target: str = ""
    scores: dict[str, float] = Field(default_factory=dict)
    """By metric; empty where they follow later, as those of programs do."""
    error: str | None = None


def bounded(text: str) -> str:
    """At most about 600 characters: the beginning and the end, where questions and answers stand."""
    return text if len(text) <= 2 * _END else f"{text[:_END]} … {text[-_END:]}"
