"""How an LLM scores an answer: what it is asked, and how what it says becomes a number."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from evaljob.fields import DnsLabel40, Name, Template
from evaljob.model import Frozen, cel, cel_rules

LABEL_MAX = 64


class Scale(Frozen):
    """The numbers that a judge may give; any other is no verdict."""

    model_config = cel_rules(cel("self.min < self.max", "min must be less than max"))

    min: float
    max: float

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"scale: min must be less than max, got {self.min:g} and {self.max:g}")
        return self


class Rubric(Frozen):
    """A judge of the EvalJob, what it is asked about an answer, and how its verdict becomes the score.

    The templates see the document's columns and, in place of columns of these names, `answer` (what the metric's own
    `extract` found, or the whole answer), `target`, the list `references`; and of a conversation with several turns,
    each of which is judged, `turn` from 0 and the list `answers` up to it.
    """

    model_config = cel_rules(
        cel("has(self.prompt) != has(self.messages)", "exactly one of prompt and messages"),
        cel("has(self.labels) != has(self.scale)", "exactly one of labels and scale"),
    )

    name: DnsLabel40
    """Of the judge in `spec.judges`."""
    prompt: Template | None = None
    """What the judge is asked, as one user turn."""
    messages: Template | None = None
    """Or a template that yields a list of OpenAI messages."""
    extract: Name
    """The pipeline that finds the verdict in what the judge says. Where it finds none there is no score: the judge is
    asked again, and then the next attempt does."""
    labels: (
        Annotated[
            dict[Annotated[str, Field(min_length=1, max_length=LABEL_MAX)], float],
            Field(min_length=1, max_length=32),
        ]
        | None
    ) = None
    """The score of each verdict; any other is none. Upper and lower case are the same."""
    scale: Scale | None = None
    """Or: the verdict is a number, which is the score."""
    unless: Annotated[str, Field(min_length=1, max_length=127)] | None = None
    """Key of a metric that compares: where its score is 1, this one is the highest, and nobody is asked."""

    @property
    def highest(self) -> float:
        """The best score."""
        return self.scale.max if self.scale else max((self.labels or {}).values(), default=0.0)

    @property
    def lowest(self) -> float:
        """The score of a sample without an answer."""
        return self.scale.min if self.scale else min((self.labels or {}).values(), default=0.0)

    @property
    def largest(self) -> float:
        """The largest magnitude of a score."""
        scores = (self.scale.min, self.scale.max) if self.scale else (self.labels or {}).values()
        return max(map(abs, scores), default=0.0)

    @property
    def binary(self) -> bool:
        """Whether each score is 0 or 1."""
        return self.labels is not None and set(self.labels.values()) <= {0, 1}

    @property
    def wanted(self) -> str:
        """The verdicts that count, for messages."""
        if self.scale:
            return f"a number from {self.scale.min:g} to {self.scale.max:g}"
        return f"one of {', '.join(self.labels or {})}"

    def score(self, verdict: str) -> float | None:
        """The score of a verdict, or None where it is none."""
        if self.labels is not None:
            scores = {label.casefold(): score for label, score in self.labels.items()}
            return scores.get(verdict.strip().casefold())
        try:
            number = float(verdict)
        except ValueError:
            return None
        return number if self.scale and self.scale.min <= number <= self.scale.max else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("judge: give exactly one of prompt and messages")
        if (self.labels is None) == (self.scale is None):
            raise ValueError("judge: give exactly one of labels and scale")
        names = [label.strip().casefold() for label in self.labels or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"judge.labels: {', '.join(twice)} stands twice, upper and lower case are the same"
            )
        return self
