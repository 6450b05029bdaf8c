"""What a task may say about answers: how they are read, scored and averaged."""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

from evaljob.fields import Name, Template
from evaljob.model import Frozen, cel, cel_rules, exactly_one
from evaljob.rubric import Rubric


class Take(StrEnum):
    """Which of several matches counts."""

    FIRST = "First"
    LAST = "Last"


class Empty(Frozen):
    """A step without arguments, written `{}`."""


_OPERATIONS = (
    "regex", "remove", "strip", "last_number", "boxed", "code_fence", "first_capital", "json",
    "tool_calls",
)  # fmt: skip


class Step(Frozen):
    """One step of an extraction pipeline: an object with exactly one operation."""

    model_config = cel_rules(
        cel(
            exactly_one(*map(to_camel, _OPERATIONS)),
            f"a step has exactly one operation: {', '.join(map(to_camel, _OPERATIONS))}",
        ),
        cel("!has(self.take) || has(self.regex)", "take belongs to regex", fieldPath=".take"),
    )

    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Keep the group, or the whole match without groups; of several groups the first that holds something. No match
    is `NoAnswer`."""
    take: Take | None = None
    """With `regex`: which match, default First."""
    remove: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Delete every match of this pattern."""
    last_number: Empty | None = None
    """The last number in the text, without thousands separators."""
    strip: Empty | None = None
    """Without white space at both ends."""
    boxed: Empty | None = None
    """What the last `\\boxed{…}` or `\\fbox{…}` holds."""
    code_fence: Empty | None = None
    """What the first Markdown code fence holds, to the end where it is not closed; without one the whole text."""
    first_capital: Empty | None = None
    """The first capital letter A to Z."""
    json_value: Annotated[Empty | None, Field(alias="json")] = None
    """The first JSON value in the text, a code fence around it is ignored."""
    tool_calls: Empty | None = None
    """What each `<tool_call>` holds (Hermes, Qwen), as a list; without any the first JSON value, as a server's."""

    @field_validator("regex", "remove")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression of Python: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        fields = ("json_value" if n == "json" else n for n in _OPERATIONS)
        given = [n for n in fields if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"extract: a step has exactly one operation, this one has {given or 'none'}")
        if self.take is not None and self.regex is None:
            raise ValueError("extract: take belongs to regex")
        return self


class Reduce(Frozen):
    """How the scores of a sample's repeats become one: an object with exactly one operation."""

    model_config = cel_rules(
        cel("has(self.passAtK) != has(self.majority)", "exactly one of passAtK and majority")
    )

    pass_at_k: (
        Annotated[
            tuple[Annotated[int, Field(ge=1, le=10000)], ...],
            Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """The chance that one of k answers is right (unbiased), for each k up to `repeats`; keys are `pass@k`."""
    majority: Empty | None = None
    """The score of the most frequent extracted answer; the key is `majority`."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.pass_at_k is None) == (self.majority is None):
            raise ValueError("reduce: give exactly one of passAtK and majority")
        if self.pass_at_k and list(self.pass_at_k) != sorted(set(self.pass_at_k)):
            raise ValueError(f"reduce.passAtK: must ascend, got {list(self.pass_at_k)}")
        return self


_MEBIBYTE = 2**20
_MEMORY_MIN = 128 * _MEBIBYTE


class ExecutionLimits(Frozen):
    """What one run of a program may use. The program and its tests are two processes, with as much memory each."""

    wall_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    memory: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")] = "512Mi"
    """Of address space, at least 128Mi."""

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number."""
        return int(self.memory[:-2]) * _MEBIBYTE * (1024 if self.memory.endswith("Gi") else 1)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.memory_bytes < _MEMORY_MIN:
            raise ValueError(f"limits.memory: {self.memory} holds no Python, at least 128Mi")
        return self


class Metric(Frozen):
    """One score per answer. The key in results is `name` or `name,extract`, as in lm-eval."""

    model_config = cel_rules(
        cel("has(self.program) == has(self.tests)", "program and tests belong together"),
        cel("!has(self.limits) || has(self.program)", "limits: only with program", fieldPath=".limits"),
        cel("has(self.judge) == (self.name == 'llm_judge')", "judge: needed by llm_judge, and only there"),
    )

    name: Name
    alias: Name | None = None
    """Its name in results, where a task has a metric twice, for example with two judges."""
    extract: Name | None = None
    """The pipeline whose output is scored; without it the whole answer is."""
    primary: bool = False
    args: Annotated[dict[Name, Annotated[str, Field(max_length=1024)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    reduce: Reduce | None = None
    """With repeats: how a sample's scores become one. Default: their mean."""
    program: Template | None = None
    """For `code_exec`: the program to run, over the document and `answer`, which is what `extract` found."""
    tests: Template | None = None
    """For `code_exec`: Python over the document that raises unless the program is right. Names that it does not
    define are the program's."""
    limits: ExecutionLimits | None = None
    """Of one run; default 10 seconds and 512Mi."""
    judge: Rubric | None = None
    """For `llm_judge`: who scores the answer, and by what."""

    @model_validator(mode="after")
    def _execution(self) -> Self:
        if (self.program is None) != (self.tests is None):
            raise ValueError(f"metric {self.name}: program and tests belong together")
        if self.limits and self.program is None:
            raise ValueError(f"metric {self.name}: limits only with program")
        return self

    @property
    def pipelines(self) -> tuple[tuple[str, str], ...]:
        """The pipelines that it names, each with the field that does."""
        found = (("extract", self.extract), ("judge.extract", self.judge and self.judge.extract))
        return tuple((field, name) for field, name in found if name)

    @property
    def key(self) -> str:
        """The name of the score of one answer."""
        return self._named(self.alias or self.name)

    @property
    def result_keys(self) -> tuple[str, ...]:
        """The names in results and summaries, one per number."""
        if self.reduce is None:
            return (self.key,)
        if self.reduce.pass_at_k:
            return tuple(self._named(f"pass@{k}") for k in self.reduce.pass_at_k)
        return (self._named("majority"),)

    def _named(self, name: str) -> str:
        return f"{name},{self.extract}" if self.extract else name


class Weighting(StrEnum):
    """How a group averages its members: by their full size, all alike, or by weights of its own."""

    BY_SIZE = "BySize"
    EQUAL = "Equal"
    WEIGHTS = "Weights"


class Group(Frozen):
    """A named average over subsets or other groups."""

    model_config = cel_rules(
        cel(
            "has(self.weights) == (has(self.weighting) && self.weighting == 'Weights')",
            "weights: needed by weighting Weights, and only there",
            fieldPath=".weights",
        )
    )

    name: Name
    members: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(min_length=1, max_length=256)
    ]
    """Subsets, as the subset column spells them, or groups defined before."""
    weighting: Weighting = Weighting.BY_SIZE
    weights: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(max_length=256)] = Field(
        default_factory=dict
    )
    """With `Weights`: one per member; only their ratios count."""


def weight_problems(group: Group) -> list[str]:
    """What is wrong with a group's own weights, each with the field to change."""
    if group.weighting is not Weighting.WEIGHTS:
        return [f"groups: {group.name}: weights: only with weighting Weights"] if group.weights else []
    wrong = sorted(group.weights.keys() ^ set(group.members))
    return (
        [f"groups: {group.name}: weights: exactly one per member, look at {', '.join(wrong)}"]
        if wrong
        else []
    )
