"""What a metric is. Each family of metrics is one module beside this one; the package collects them."""

import importlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from evaljob.corpus import Counts
from evaljob.names import Reason
from evaljob.scoring import Metric
from evaljob_runner.errors import Fatal
from evaljob_runner.extract import Json, Pipeline

Args = Mapping[str, str]
Columns = Mapping[str, Any]


class Verdict(NamedTuple):
    """The score of one answer."""

    value: float
    explanation: str | None = None
    """Why, where the number does not say it; goes to the sample log."""


Compare = Callable[[Json, Sequence[str]], Verdict]
"""(extracted answer, accepted answers) -> verdict. There is at least one accepted answer."""


Count = Callable[[str, Sequence[str]], Counts]
"""(extracted answer or "", accepted answers) -> what `evaljob.corpus` makes a score of."""


class Executes(Protocol):
    """A prepared metric that runs what a model wrote, in processes of its own: slow, and safe in many threads."""

    columns: frozenset[str]
    """What it reads of a document; goes to the sample log."""
    memory: int
    """Bytes that one process of an execution may take."""

    def confine(self) -> str:
        """Refuse a place where programs cannot be confined; by what they are, for the record."""

    def check(self, columns: Columns, where: str) -> None:
        """Refuse a document that it cannot use."""

    def verdict(self, answer: Json, columns: Columns, where: str) -> Verdict:
        """Run it."""


class Judges(Protocol):
    """A prepared metric whose scores an LLM gives: what that is asked, and what its words are worth."""

    columns: frozenset[str]
    """What it reads of a document; goes to the sample log."""

    def check(self, columns: Columns, where: str) -> None:
        """Refuse a document that it cannot use."""

    def messages(self, columns: Columns, where: str) -> tuple[Mapping[str, Any], ...]:
        """What the judge is asked; the columns hold the answer too."""

    def verdict(self, said: str) -> Verdict | None:
        """The score in what the judge says, or None where there is none."""


@dataclass(frozen=True)
class Choice:
    """What a log-likelihood metric sees of one choice."""

    total: float
    """Sum of natural log-probabilities."""
    characters: int
    bytes: int
    """In UTF-8, without the delimiter, as are `characters`."""
    greedy: bool
    """Whether each of its tokens is the likeliest."""


@dataclass(frozen=True)
class Definition:
    """How a metric is computed.

    By `compare`, `execute`, `judge` or `count` of answers, `choose` or `right` of choices, `measure` of texts. What a
    task may tell it stands in `evaljob.metrics`.
    """

    compare: Callable[[Metric], Compare] | None = None
    """Called once per process, before the model loads: heavy libraries are imported here and nowhere else."""
    execute: Callable[[Metric], Executes] | None = None
    """Called as `compare`; for metrics with `program` and `tests`."""
    judge: Callable[[Metric, Pipeline], Judges] | None = None
    """Called as `compare`, with what finds the verdict in the judge's words."""
    choose: Callable[[Choice], float] | None = None
    """What is maximised; the first of equal choices wins, as with numpy's argmax."""
    right: Callable[[Sequence[Choice], Collection[int]], float] | None = None
    """(choices, indexes of the right ones) -> score."""
    count: Callable[[Metric], Count] | None = None
    """Called as `compare`; for scores of the corpus."""
    measure: Callable[[float], float] | None = None
    """Log-likelihood of a text -> what is shared out among its items, of which there are `weight`."""
    weight: Callable[[str], int] | None = None
    """How many items (for example instructions or bytes) a target has, where the number is a mean over items; a
    sample's score is then the mean of its own."""
    check: Callable[[str], str | None] | None = None
    """What is wrong with an expected answer, if anything: asked for all samples before the model loads."""
    higher_is_better: bool = True
    floor: float = 0.0

    def lowest(self, metric: Metric) -> float:
        """The score of a sample without an answer."""
        return metric.judge.lowest if metric.judge else self.floor


def simple(score: Callable[[Json, str, Args], float]) -> Callable[[Metric], Compare]:
    """The comparison of a metric that needs no preparation: the best over the accepted answers."""

    def prepare(metric: Metric) -> Compare:
        return best_of(lambda value, target: score(value, target, metric.args))

    return prepare


def best_of(score: Callable[[Json, str], float]) -> Compare:
    """A comparison with one answer -> with several, of which the best counts."""
    return lambda value, targets: Verdict(max(float(score(value, target)) for target in targets))


def library(name: str) -> Any:  # noqa: ANN401 - a module
    """A library that only some tasks need, and that others should not wait for.

    Raises:
        Fatal: BadConfiguration, where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"{error.name} is not installed: use an image made with evaljob[runner]",
        ) from error


def as_text(value: Json) -> str:
    """A text as it is, any other JSON value in one spelling."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
