"""What a dataset may say about prompts and scores: the task language.

One structural schema without unions (a step is an object with exactly one key), the same in the catalogue and
in `taskSpec`. No conditionals, no loops, no Python. Words follow lm-eval's task YAML where it has one.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from evaljob.fields import Name, Template
from evaljob.model import Frozen, cel, cel_rules
from evaljob.requests import RULES, RequestType, misfits
from evaljob.scoring import Group, Metric, Step, weight_problems


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
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
            Field(min_length=2, max_length=64),
        ]
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


class DescriptionRole(StrEnum):
    """Who gives the description under a chat template."""

    USER = "User"
    """Before the examples, in the user's turn: every template takes it."""
    SYSTEM = "System"
    """In a system turn of its own, as in lm-eval; some templates have none."""


class Truncate(StrEnum):
    """Which tokens of a prompt that is too long for the model's window are left out."""

    START = "Start"
    """The first ones, as in lm-eval. Only with promptFormat Text: a conversation would lose its head."""
    MIDDLE = "Middle"
    """As many before as behind the middle, as in LongBench."""


class Turns(StrEnum):
    """Which assistant turns of a conversation the model writes. Its score is the mean over them."""

    LAST = "Last"
    """The one behind the last message."""
    EVERY = "Every"
    """All of them; what it said stays in the conversation, and the document's own assistant turns do not."""
    EVERY_WITH_GOLD = "EveryWithGold"
    """All of them, each behind the document's own assistant turns."""


SCORING_FIELDS = {"metrics", "groups", "extract", "cluster"}
"""Fields of a task that decide how answers are scored, and not what a model is asked."""


class Task(Frozen):
    """What turns a document into a prompt, and an answer into a score."""

    model_config = cel_rules(
        *RULES,
        cel(
            "self.metrics.filter(m, has(m.primary) && m.primary).size() == 1",
            "metrics: exactly one must be primary",
        ),
        cel("!has(self.groups) || has(self.subsets)", "groups: need subsets"),
        cel(
            "self.turns == 'Last' || self.requestType == 'Chat'",
            "turns: other than Last only with requestType Chat",
        ),
    )

    version: Annotated[int, Field(ge=1)] = 1
    """Raised when scores may change; part of every result."""
    request_type: RequestType
    splits: Splits | None = None
    subsets: Subsets | None = None
    id: Template | None = None
    """The sample's id; default `<subset>/<row in the source>`. Ids must be unique."""
    cluster: Template | None = None
    """Samples of one cluster are not independent: standard errors are clustered, shards never cut through one. Equal
    values in two subsets are two clusters."""
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
    tools: Template | None = None
    """For Chat: a template that yields the functions on offer, as OpenAI's `tools`. Local models get them through
    their chat template; a server's tool calls become a JSON list, which is then the answer."""
    turns: Turns = Turns.LAST
    target: Template
    """The expected answer; where the model writes several, `turn` counts them from 0. For LogLikelihood the index of
    the right choice, for LogLikelihoodRolling the text."""
    references: Template | None = None
    """A template that yields a list of all accepted answers; metrics take the best. Default: the target alone."""
    target_delimiter: Annotated[str, Field(max_length=16)] = " "
    """Between prompt and answer. Empty for choices under a chat template, as in lm-eval."""
    choices: Choices | None = None
    few_shot: FewShot | None = None
    truncate: Truncate | None = None
    """For local models: what is left out where prompt and answer do not fit the window. Default: nothing, the sample
    is a `ContextOverflow`."""
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
    given = frozenset(name for name in Task.model_fields if getattr(task, name) is not None)
    found = [*misfits(task.request_type, given)]
    if task.turns is not Turns.LAST and task.request_type is not RequestType.CHAT:
        found.append(f"turns: {task.turns} only with requestType Chat (this one is {task.request_type})")
    if sum(m.primary for m in task.metrics) != 1:
        found.append("metrics: exactly one must be primary")
    pipelines = [(m, field, name) for m in task.metrics for field, name in m.pipelines]
    found += [
        f"metrics: {m.name} names {field} {name!r}, which is not defined"
        for m, field, name in pipelines
        if name not in task.extract
    ]
    return found + _duplicates(task) + _reduce_problems(task) + _group_problems(task)


def _duplicates(task: Task) -> list[str]:
    keys = [k for m in task.metrics for k in m.result_keys]
    found = [
        f"metrics: {k} stands twice: give one an alias"
        for k in sorted({k for k in keys if keys.count(k) > 1})
    ]
    last = {m.key: m for m in task.metrics}
    return found + [
        f"metrics: {m.key} stands twice with different {field}"
        for m in task.metrics
        for field in ("args", "program", "tests", "limits", "judge")
        if getattr(m, field) != getattr(last[m.key], field)
    ]


def _reduce_problems(task: Task) -> list[str]:
    reduced = [m for m in task.metrics if m.reduce]
    if reduced and task.turns is not Turns.LAST:
        return [f"metrics: reduce is not used with turns {task.turns}, whose scores are means over turns"]
    if reduced and task.request_type.weighs:
        return [f"metrics: reduce is not used with requestType {task.request_type}, which has no repeats"]
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
        found += weight_problems(group)
    return found
