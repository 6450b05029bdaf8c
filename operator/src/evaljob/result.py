"""What a partition reports: a result or a failure, and nothing in between."""

import json
from typing import Annotated

from pydantic import AfterValidator, Field

from evaljob.model import Frozen
from evaljob.plan import Partition
from evaljob.scoring import Group
from evaljob.stats import (
    NATS_MAX,
    UNIT_BINARY,
    UNIT_REAL,
    Aggregation,
    Estimate,
    LabelCount,
    Stat,
    estimate,
    perplexity,
)

RESULT_VERSION = 1
MESSAGE_MAX = 1024

COUNT_MAX = 10**12
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
ITEM_COUNT_MAX = 10**18
"""Of words, n-grams and edits, which are counted in `Corpus.unit`: over 10**12 words for TER."""
ItemCount = Annotated[int, Field(ge=0, le=ITEM_COUNT_MAX)]
Duration = Annotated[float, Field(ge=0, le=1e9)]
Code = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)]


def _printable(text: str) -> str:
    """Without control characters: messages are shown in terminals."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


class Outcomes(Frozen):
    """How many answers (samples x repeats) ended how. All but the two errors are final and scored."""

    expected: Count
    """After `limit`, in this shard."""
    completed: Count
    answered: Count = 0
    no_answer: Count = 0
    context_overflow: Count = 0
    truncated: Count = 0
    refused: Count = 0
    infra_error: Count = 0
    scorer_error: Count = 0
    from_log: Count = 0
    """Taken over from an earlier attempt's sample log."""


class MetricInfo(Frozen):
    """What the numbers of one metric mean."""

    key: str
    primary: bool = False
    higher_is_better: bool = True
    binary: bool = True
    """Scores are 0 or 1 (unit 1); otherwise sums are in units of 10**-12."""
    weighted: bool = False
    """A mean over items, for example instructions: states count items, in clusters of one sample or more."""
    aggregation: Aggregation = Aggregation.MEAN
    """What is made of the states, or of `SubsetResult.labels` or `ngrams`."""

    @property
    def unit(self) -> int:
        """How many units make a score of 1."""
        return UNIT_BINARY if self.binary else UNIT_REAL

    def estimate(self, stat: Stat) -> Estimate | None:
        """The number that a state gives; None without samples, and for what is made of counts."""
        found = None if self.aggregation.counted else estimate(stat, self.unit)
        return self.shown(found) if found else None

    def shown(self, mean: Estimate) -> Estimate:
        """The number that a mean of scores gives."""
        return perplexity(mean) if self.aggregation is Aggregation.PERPLEXITY else mean

    def finite(self, stat: Stat) -> bool:
        """Whether the number of a state, and its error, can be written down."""
        if self.aggregation is not Aggregation.PERPLEXITY:
            return True
        found = estimate(stat, self.unit)
        return found is None or max(abs(found.value), found.stderr or 0.0) <= NATS_MAX


class SubsetResult(Frozen):
    """The scores of one subset in this shard; a dataset without subsets has one, named ''."""

    name: str
    size: Count
    """Samples in the whole source before `limit`, over all shards: the weight in groups."""
    expected: Count
    """Samples of this shard."""
    stats: tuple[Stat, ...]
    """One state per metric, in the order of `metrics`."""
    labels: dict[str, dict[str, LabelCount]] = Field(default_factory=dict)
    """By metric, where it is a macro F1, and label."""
    ngrams: dict[str, tuple[ItemCount, ...]] = Field(default_factory=dict)
    """By metric, where it is a score of the corpus: what `evaljob.corpus` makes it of; none without samples."""


class Lint(Frozen):
    """Something about prompts or answers that makes the cell suspect."""

    code: Code
    count: Count


class Tokens(Frozen):
    """Tokens computed by this attempt."""

    prompt: Count = 0
    output: Count = 0
    """Thoughts included."""
    reasoning: Count = 0
    """Of these, thoughts."""
    judge_prompt: Count = 0
    """Tokens of the judgements that the scores rest on, also of those that an earlier attempt asked for."""
    judge_output: Count = 0


class Seconds(Frozen):
    """Wall time by phase, in seconds."""

    start: Duration = 0.0
    """Imports: from process start to the first line of work."""
    load: Duration = 0.0
    infer: Duration = 0.0
    score: Duration = 0.0


class PartitionResult(Frozen):
    """The scores of one partition. Exists only when every expected sample is completed."""

    v: int = RESULT_VERSION
    model: str
    dataset: str
    shard: Count
    shards: Annotated[int, Field(ge=1)]
    attempt: str
    """The pod's uid."""
    inference_digest: str
    """SHA-256 of everything that changes tokens; all shards of a cell must agree on it."""
    prompt_digest: str
    """SHA-256 over the prompts' digests in order: equal prompts, equal digest."""
    outcomes: Outcomes
    repeats: Annotated[int, Field(ge=1)] = 1
    """Answers per sample; outcomes count answers, everything else samples."""
    limited: bool = False
    metrics: tuple[MetricInfo, ...]
    subsets: tuple[SubsetResult, ...]
    groups: tuple[Group, ...] = ()
    """Averages over subsets, where only the runner knows them: those of lm-eval's tasks."""
    lint: tuple[Lint, ...] = ()
    tokens: Tokens = Tokens()
    seconds: Seconds = Seconds()
    device: str
    provenance: dict[str, str] = Field(default_factory=dict)
    """Recorded, not hashed: weights, data and the versions of the packages that computed."""
    samples: str | None = None
    """The sample log, relative to the output claim."""

    @property
    def partition(self) -> Partition:
        """Which partition this is the result of."""
        return Partition(model=self.model, dataset=self.dataset, shard=self.shard, shards=self.shards)


class Failure(Frozen):
    """Why a partition has no result, said by the runner or seen by the operator."""

    reason: Code
    message: Annotated[str, Field(max_length=MESSAGE_MAX), AfterValidator(_printable)] = ""
    attempt: str | None = None


def failure(reason: str, message: str, attempt: str | None = None) -> Failure:
    """A Failure whose message is cut so that its encoding always fits."""
    escaped = 0
    # Names of files may hold bytes that are no text; they come as lone surrogates.
    message = _printable(message.encode(errors="replace").decode())
    for i, char in enumerate(message):
        escaped += len(json.dumps(char)) - 2
        if escaped > MESSAGE_MAX:
            message = message[: i - 1] + "…"
            break
    return Failure(reason=reason, message=message, attempt=attempt)
