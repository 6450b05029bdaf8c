"""What a dataset may say about prompts and scores: the task language.

One structural schema without unions (a step is an object with exactly one key), the same in the catalogue and
in `taskSpec`. No conditionals, no loops, no Python. Words follow lm-eval's task YAML where it has one.
"""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

from evaljob.model import Frozen, cel, cel_rules

Template = Annotated[str, StringConstraints(max_length=32768)]
"""A Jinja2 template over the columns of one document (sandboxed, undefined variables are errors)."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$", max_length=63)]


class RequestType(StrEnum):
    """How a model is asked: a text to continue, a conversation to answer, or choices to weigh."""

    GENERATE = "Generate"
    CHAT = "Chat"
    LOG_LIKELIHOOD = "LogLikelihood"


class Generation(Frozen):
    """Sampling parameters. Precedence, low to high: neutral defaults, task, model; `stop` is a union."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy (the default)."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1048576)] | None = None
    """Longest answer, in tokens. Default 256, as in lm-eval."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=32)
    ] = ()
    """Texts that end an answer; they are cut off."""


class Splits(Frozen):
    """Names of the splits: of files in a source folder, or values of `column` in one file."""

    eval: Name
    few_shot: Name | None = None
    column: Name | None = None


class Subsets(Frozen):
    """Parts of the dataset that are reported apart, for example the 57 subjects of MMLU."""

    column: Name
    """The column that names the subset; templates see it as `subset`."""


class Choices(Frozen):
    """The answers to weigh: fixed `values` or a `template` that yields a list."""

    model_config = cel_rules(
        cel("has(self.values) != has(self.template)", "exactly one of values and template")
    )

    values: (
        Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(min_length=2, max_length=64)]
        | None
    ) = None
    template: Template | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.values is None) == (self.template is None):
            raise ValueError("choices: give exactly one of values and template")
        return self


class Sampler(StrEnum):
    """How few-shot examples are picked."""

    FIRST = "First"
    RANDOM = "Random"
    """Others for each sample, from the EvalJob's seed."""
    SIMILAR = "Similar"
    """The nearest by BM25 of the prompts; the most similar stands last."""
    FIXED = "Fixed"
    """Those of `ids`, in that order."""


class Pool(StrEnum):
    """Where few-shot examples come from: the few-shot split, all of it or the document's own subset."""

    SAME_SUBSET = "SameSubset"
    ALL = "All"


class FewShot(Frozen):
    """Solved examples before the question."""

    model_config = cel_rules(
        cel("has(self.count) != has(self.ids)", "exactly one of count and ids"),
        cel(
            "has(self.ids) == (has(self.sampler) && self.sampler == 'Fixed')",
            "ids: needed by sampler Fixed, and only there",
        ),
    )

    count: Annotated[int, Field(ge=0, le=64)] | None = None
    ids: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=253)], ...],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = None
    """With sampler Fixed: the ids of the examples, as the task names samples."""
    sampler: Sampler = Sampler.FIRST
    pool: Pool = Pool.SAME_SUBSET
    delimiter: Annotated[str, Field(max_length=64)] = "\n\n"
    answer: Template | None = None
    """What an example shows as its answer, for example with the way to it. Default: `target`."""
    as_turns: bool = False
    """For a Chat model: each example is a turn of the user and one of the assistant."""

    @property
    def wanted(self) -> int:
        """How many examples a prompt has."""
        return len(self.ids) if self.ids else self.count or 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.count is None) == (self.ids is None):
            raise ValueError("fewShot: give exactly one of count and ids")
        if (self.ids is not None) != (self.sampler is Sampler.FIXED):
            raise ValueError("fewShot.ids: needed by sampler Fixed, and only there")
        return self


class Take(StrEnum):
    """Which of several matches counts."""

    FIRST = "First"
    LAST = "Last"


class Empty(Frozen):
    """A step without arguments, written `{}`."""


_OPERATIONS = (
    "regex", "remove", "strip", "last_number", "boxed", "code_fence", "first_capital", "json",
)  # fmt: skip


class Step(Frozen):
    """One step of an extraction pipeline: an object with exactly one operation."""

    model_config = cel_rules(
        cel(
            f"[{', '.join(f'has(self.{to_camel(n)})' for n in _OPERATIONS)}].filter(x, x).size() == 1",
            f"a step has exactly one operation: {', '.join(map(to_camel, _OPERATIONS))}",
        ),
        cel("!has(self.take) || has(self.regex)", "take belongs to regex", fieldPath=".take"),
    )

    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Keep group 1 (or the whole match without groups); no match is `NoAnswer`."""
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
    )

    name: Name
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

    @model_validator(mode="after")
    def _execution(self) -> Self:
        if (self.program is None) != (self.tests is None):
            raise ValueError(f"metric {self.name}: program and tests belong together")
        if self.limits and self.program is None:
            raise ValueError(f"metric {self.name}: limits only with program")
        return self

    @property
    def key(self) -> str:
        """The name of the score of one answer."""
        return self._named(self.name)

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


class DescriptionRole(StrEnum):
    """Who gives the description under a chat template."""

    USER = "User"
    """Before the examples, in the user's turn: every template takes it."""
    SYSTEM = "System"
    """In a system turn of its own, as in lm-eval; some templates have none."""


class Turns(StrEnum):
    """Which assistant turn of a conversation the model writes."""

    LAST = "Last"


SCORING_FIELDS = {"metrics", "groups", "extract", "cluster"}
"""Fields of a task that decide how answers are scored, and not what a model is asked."""


class Task(Frozen):
    """What turns a document into a prompt, and an answer into a score."""

    model_config = cel_rules(
        cel(
            "has(self.messages) == (self.requestType == 'Chat')",
            "messages: needed by requestType Chat, and only there",
        ),
        cel(
            "has(self.prompt) == (self.requestType != 'Chat')",
            "prompt: needed unless requestType is Chat, and only there",
        ),
        cel(
            "has(self.choices) == (self.requestType == 'LogLikelihood')",
            "choices: needed by requestType LogLikelihood, and only there",
        ),
        cel(
            "!has(self.references) || self.requestType != 'LogLikelihood'",
            "references: not used with requestType LogLikelihood",
        ),
        *(
            cel(f"!has(self.{f}) || self.requestType != 'Chat'", f"{f}: not used with requestType Chat")
            for f in ("fewShot", "chatPrompt", "description")
        ),
        cel(
            "self.metrics.filter(m, has(m.primary) && m.primary).size() == 1",
            "metrics: exactly one must be primary",
        ),
        cel("!has(self.groups) || has(self.subsets)", "groups: need subsets"),
    )

    version: Annotated[int, Field(ge=1)] = 1
    """Raised when scores may change; part of every result."""
    request_type: RequestType
    splits: Splits | None = None
    subsets: Subsets | None = None
    id: Template | None = None
    """The sample's id; default `<subset>/<row in the source>`. Ids must be unique."""
    cluster: Template | None = None
    """Samples of one cluster are not independent: standard errors are clustered, shards never cut through one."""
    fields: Annotated[dict[Name, Template], Field(max_length=32)] = Field(default_factory=dict)
    """Derived columns, in order."""
    description: Template | None = None
    """Text before the few-shot examples."""
    description_role: DescriptionRole = DescriptionRole.USER
    prompt: Template | None = None
    chat_prompt: Template | None = None
    """Instead of `prompt` where the model has promptFormat Chat. The task's `stop` texts are then left out: they end
    the continuation of `prompt`, and a turn ends by itself."""
    assistant_prefix: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """How each answer begins; it is part of the prompt. Not with promptFormat Chat on a server."""
    messages: Template | None = None
    """For Chat: a template that yields a list of OpenAI messages."""
    turns: Turns = Turns.LAST
    target: Template
    """The expected answer; for LogLikelihood the index of the right choice."""
    references: Template | None = None
    """A template that yields a list of all accepted answers; metrics take the best. Default: the target alone."""
    target_delimiter: Annotated[str, Field(max_length=16)] = " "
    """Between prompt and answer. Empty for choices under a chat template, as in lm-eval."""
    choices: Choices | None = None
    few_shot: FewShot | None = None
    generation: Generation = Generation()
    extract: Annotated[
        dict[Name, Annotated[tuple[Step, ...], Field(min_length=1, max_length=16)]], Field(max_length=8)
    ] = Field(default_factory=dict)
    """Named pipelines from answer to the value that metrics compare."""
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=16)]
    groups: Annotated[tuple[Group, ...], Field(max_length=64)] = ()

    @property
    def primary(self) -> Metric:
        """The metric that stands in the summary's cell."""
        return next(m for m in self.metrics if m.primary)

    @property
    def executes(self) -> tuple[str, ...]:
        """The metrics that run what a model wrote."""
        return tuple(m.key for m in self.metrics if m.program is not None)

    def generation_of(self, *, chat: bool) -> Generation:
        """The sampling parameters for a prompt format."""
        other_prompt = chat and self.chat_prompt is not None
        return self.generation.model_copy(update={"stop": ()}) if other_prompt else self.generation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def _problems(task: Task) -> list[str]:
    """Everything in a task that can never run, each with the field to change."""
    kind = task.request_type
    found = []
    if (task.messages is None) == (kind is RequestType.CHAT):
        found.append(f"messages: {'missing' if kind is RequestType.CHAT else 'only'} for requestType Chat")
    if (task.prompt is None) == (kind is not RequestType.CHAT):
        found.append(f"prompt: {'not used' if task.prompt else 'missing'} with requestType {kind}")
    if (task.choices is None) == (kind is RequestType.LOG_LIKELIHOOD):
        found.append(f"choices: {'not used' if task.choices else 'missing'} with requestType {kind}")
    if kind is RequestType.CHAT:
        unused = {"fewShot": task.few_shot, "chatPrompt": task.chat_prompt, "description": task.description}
        found += [
            f"{k}: not used with requestType Chat, put it into messages" for k, v in unused.items() if v
        ]
    if task.references and kind is RequestType.LOG_LIKELIHOOD:
        found.append("references: not used with requestType LogLikelihood")
    if sum(m.primary for m in task.metrics) != 1:
        found.append("metrics: exactly one must be primary")
    found += [
        f"metrics: {m.name} names extract {m.extract!r}, which is not defined"
        for m in task.metrics
        if m.extract and m.extract not in task.extract
    ]
    return found + _duplicates(task) + _reduce_problems(task) + _group_problems(task)


def _duplicates(task: Task) -> list[str]:
    keys = [k for m in task.metrics for k in m.result_keys]
    found = [f"metrics: {k} stands twice" for k in sorted({k for k in keys if keys.count(k) > 1})]
    args = {m.key: m.args for m in task.metrics}
    return found + [
        f"metrics: {m.key} stands twice with different args" for m in task.metrics if m.args != args[m.key]
    ]


def _reduce_problems(task: Task) -> list[str]:
    reduced = [m for m in task.metrics if m.reduce]
    if reduced and task.request_type is RequestType.LOG_LIKELIHOOD:
        return ["metrics: reduce is not used with requestType LogLikelihood, which has no repeats"]
    return [
        f"metrics: {m.key}: reduce.majority counts equal extracted answers, so it needs extract"
        for m in reduced
        if m.reduce and m.reduce.majority and not m.extract
    ]


def _group_problems(task: Task) -> list[str]:
    """Groups need subsets, unique names, and members that are subsets or groups defined before."""
    if task.groups and not task.subsets:
        return ["groups: need subsets"]
    names = [g.name for g in task.groups]
    found = [f"groups: {n} stands twice" for n in sorted({n for n in names if names.count(n) > 1})]
    for i, group in enumerate(task.groups):
        later = set(names[i:]) & set(group.members)
        found += [f"groups: {group.name} uses {m}, which must be defined before it" for m in sorted(later)]
        twice = sorted({m for m in group.members if group.members.count(m) > 1})
        found += [f"groups: {group.name} holds {m} twice" for m in twice]
        found += _weight_problems(group)
    return found


def _weight_problems(group: Group) -> list[str]:
    if group.weighting is not Weighting.WEIGHTS:
        return [f"groups: {group.name}: weights: only with weighting Weights"] if group.weights else []
    wrong = sorted(group.weights.keys() ^ set(group.members))
    return (
        [f"groups: {group.name}: weights: exactly one per member, look at {', '.join(wrong)}"]
        if wrong
        else []
    )
