"""What a partition reports: a result or a failure, in at most 4,096 bytes, and nothing in between.

The runner writes it to the termination message; the operator copies it, byte for byte, into one annotation of
the Job. Framing: `evaljob/1 <kind> <length> <crc32> <payload>`. The kubelet keeps only the last 4,096 bytes
of a message and users can edit annotations: a cut loses the head, an edit breaks the CRC, both say so.
"""

import base64
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, ValidationError

from evaljob.corpus import CORPORA, CORPUS_MAX, valid
from evaljob.model import Frozen
from evaljob.plan import Partition
from evaljob.scoring import Group
from evaljob.stats import (
    NATS_MAX,
    UNIT_BINARY,
    UNIT_REAL,
    Aggregation,
    Clusters,
    Estimate,
    LabelCount,
    Stat,
    estimate,
    perplexity,
)

RESULT_VERSION = 1
ENCODED_MAX = 4096
"""Bytes of a container's termination message (kubelet)."""
PLAIN_MAX = 1500
"""Up to here the payload stays plain JSON, so that `kubectl describe` can be read."""
DECODED_MAX = 64 * 1024
_FRAME = re.compile(
    r"evaljob/1 (?P<kind>[jzf]) (?P<length>\d{1,6}) (?P<crc>[0-9a-f]{8}) (?P<payload>.*)", re.DOTALL
)
MESSAGE_MAX = 1024

COUNT_MAX = 10**12
ITEMS_MAX = 10**4
"""Items of a sample (instructions, words, bytes) that the bound of a result's size counts with."""
SCORE_MAX = 10**50
"""No metric reaches it; sums below it stay finite as floats."""

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
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
        return perplexity(found) if found and self.aggregation is Aggregation.PERPLEXITY else found

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
    ngrams: dict[str, tuple[Count, ...]] = Field(default_factory=dict)
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


class InvalidResultError(Exception):
    """A text that is not an intact, valid report. The message holds its escaped head."""


class TooLargeError(Exception):
    """A report that does not fit its channel."""


def encode(report: PartitionResult | Failure) -> str:
    """The text for the termination message.

    Raises:
        TooLargeError: above 4,096 bytes; for a Failure this cannot happen.
    """
    if isinstance(report, Failure):
        return _frame("f", _ascii_json(report))
    text = _ascii_json(report)
    if len(text) <= PLAIN_MAX:
        return _frame("j", text)
    framed = _frame("z", base64.b85encode(zlib.compress(text.encode(), 9)).decode())
    if len(framed) > ENCODED_MAX:
        raise TooLargeError(
            f"the result of {len(report.subsets)} subsets x {len(report.metrics)} metrics takes {len(framed)} "
            f"bytes, its channel holds {ENCODED_MAX}: use fewer subsets or metrics per dataset"
        )
    return framed


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


def _ascii_json(report: Frozen) -> str:
    return json.dumps(
        report.model_dump(mode="json", by_alias=True, exclude_defaults=True), separators=(",", ":")
    )


def _frame(kind: str, payload: str) -> str:
    return f"evaljob/1 {kind} {len(payload)} {zlib.crc32(payload.encode()):08x} {payload}"


def decode(text: str) -> PartitionResult | Failure:
    """Read a report. Total: every other text raises InvalidResultError, whatever it holds."""
    found = _FRAME.fullmatch(text.strip())
    if not found:
        raise InvalidResultError(f"not a report, or its head was cut: {_head(text)}")
    payload = found["payload"]
    if len(payload) > DECODED_MAX:
        raise InvalidResultError(f"more than {DECODED_MAX} bytes: {_head(text)}")
    if (
        len(payload) != int(found["length"])
        or f"{zlib.crc32(payload.encode(errors='replace')):08x}" != found["crc"]
    ):
        raise InvalidResultError(f"length or checksum differ, the text was cut or edited: {_head(text)}")
    body = _inflate(payload) if found["kind"] == "z" else payload
    kind = Failure if found["kind"] == "f" else PartitionResult
    try:
        report = kind.model_validate_json(body)
    except (ValidationError, RecursionError) as error:
        raise InvalidResultError(f"not a valid {kind.__name__}: {_head(body)}") from error
    if isinstance(report, PartitionResult):
        _check(report)
    return report


def _inflate(payload: str) -> bytes:
    """Decompress at most DECODED_MAX bytes: a bomb stops there."""
    try:
        engine = zlib.decompressobj()
        body = engine.decompress(base64.b85decode(payload), DECODED_MAX)
    except (ValueError, zlib.error) as error:
        raise InvalidResultError(f"not decompressible: {_head(payload)}") from error
    if not engine.eof:
        raise InvalidResultError(f"more than {DECODED_MAX} bytes: {_head(payload)}")
    return body


def _check(result: PartitionResult) -> None:
    """What types cannot say: a complete result whose parts fit together."""
    problem = next((text for bad, text in _checks(result) if bad), None)
    if problem:
        raise InvalidResultError(problem)


class _Check(NamedTuple):
    bad: bool
    text: str


def _checks(r: PartitionResult) -> list[_Check]:
    o = r.outcomes
    finals = o.answered + o.no_answer + o.context_overflow + o.truncated + o.refused
    names = [s.name for s in r.subsets]
    scored = [pair for s in r.subsets for pair in _of(r, s)]
    return [
        _Check(r.v != RESULT_VERSION, f"version {r.v}, this program reads {RESULT_VERSION}"),
        _Check(o.completed != o.expected, f"completed {o.completed} of {o.expected} samples"),
        _Check(finals != o.completed, f"outcomes add up to {finals}, not to {o.completed}"),
        _Check(bool(o.infra_error or o.scorer_error), "holds samples that ended in an error"),
        _Check(sum(m.primary for m in r.metrics) != 1, "exactly one metric must be primary"),
        _Check(len(set(names)) != len(names), "a subset stands twice"),
        _Check(
            sum(s.expected for s in r.subsets) * r.repeats != o.expected,
            "expected counts of subsets do not add up",
        ),
        _Check(
            any(s.size < s.expected for s in r.subsets), "a subset is smaller than what was expected of it"
        ),
        _Check(any(len(s.stats) != len(r.metrics) for s in r.subsets), "a subset lacks a metric"),
        _Check(
            any(not _counted(m, stat, s.expected) for s in r.subsets for m, stat in _of(r, s)),
            "a subset scored fewer samples than expected",
        ),
        _Check(
            any(
                m.aggregation is Aggregation.MACRO_F1 and not _labelled(s.labels.get(m.key, {}), stat)
                for s in r.subsets
                for m, stat in _of(r, s)
            ),
            "labels that do not add up to the scores",
        ),
        _Check(not all(_counted_ngrams(r, s) for s in r.subsets), "n-grams that no texts can have"),
        _Check(any(m.binary and not _binary(stat) for m, stat in scored), "a 0/1 metric outside its range"),
        _Check(not all(_possible(stat, m.unit) for m, stat in scored), "sums that no scores can have"),
        _Check(
            any(_possible(stat, m.unit) and not m.finite(stat) for m, stat in scored),
            "a perplexity above all numbers",
        ),
        _Check(
            len({s.clusters is None for m, s in scored if s.n and not m.weighted}) > 1,
            "clusters in some subsets only",
        ),
    ]


def _of(result: PartitionResult, subset: SubsetResult) -> list[tuple[MetricInfo, Stat]]:
    return list(zip(result.metrics, subset.stats, strict=False))


def _counted(metric: MetricInfo, stat: Stat, expected: int) -> bool:
    """Whether every sample is in a state: once, or as its items."""
    if not metric.weighted or not expected:
        return stat.n == expected
    return stat.n >= expected and stat.clusters is not None and stat.clusters.number <= expected


def _counted_ngrams(result: PartitionResult, subset: SubsetResult) -> bool:
    """Whether every score of a corpus, and nothing else, has counts that some texts have."""
    wanted = {m.key: m.aggregation for m, stat in _of(result, subset) if m.aggregation in CORPORA and stat.n}
    return subset.ngrams.keys() == wanted.keys() and all(
        valid(aggregation, subset.ngrams[key]) for key, aggregation in wanted.items()
    )


def _labelled(labels: Mapping[str, LabelCount], stat: Stat) -> bool:
    counts = labels.values()
    possible = all(0 <= c.right <= min(c.predicted, c.actual) for c in counts)
    return (
        possible
        and sum(c.actual for c in counts) == stat.n
        and sum(c.right for c in counts) == stat.total
        and sum(c.predicted for c in counts) <= stat.n
    )


def _binary(stat: Stat) -> bool:
    return 0 <= stat.total == stat.squares <= stat.n


def _possible(stat: Stat, unit: int) -> bool:
    """Whether some scores have these sums: else a variance could be negative, or no finite float."""
    high = stat.n * unit * SCORE_MAX
    fine = abs(stat.total) <= high and stat.total**2 <= stat.n * stat.squares <= high**2
    if stat.clusters is None:
        return fine
    c = stat.clusters
    sizes = 1 <= c.number <= stat.n <= c.size_squares <= stat.n**2
    return (
        fine
        and sizes
        and 0 <= c.sum_squares <= high**2
        and c.sum_products**2 <= c.sum_squares * c.size_squares
    )


def _head(text: str | bytes) -> str:
    """The first 200 characters, escaped: shown in status, so nothing in it may act."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return ascii(text[:200])


def worst_case_bytes(
    *,
    partition: Partition,
    metrics: tuple[MetricInfo, ...],
    subsets: dict[str, tuple[int, int]],
    clustered: bool = False,
    labels: Mapping[str, Iterable[str]] = MappingProxyType({}),
    largest: float = 1.0,
) -> int:
    """An upper bound of an encoded result, known before a model loads.

    Args:
        partition: whose result it will be.
        metrics: what will be measured.
        subsets: per subset its full size and the samples of this shard.
        clustered: whether the task declares clusters.
        labels: by metric, where it is a macro F1.
        largest: magnitude of the scores of metrics that are not 0 or 1.
    """
    # Pseudo-random digits: the sums of real scores do not compress either.
    noise = (i * 6364136223846793005 for i in itertools.count(7919))

    def below(limit: int) -> int:
        return next(noise) % (limit + 1)

    def stat(m: MetricInfo, n: int) -> Stat:
        n = n * ITEMS_MAX if m.weighted else n
        most = max(largest, CORPUS_MAX) if m.aggregation in CORPORA else largest
        high = n * m.unit if m.binary else n * math.ceil(m.unit * most)
        total = below(high)
        has_clusters = clustered or m.weighted
        clusters = Clusters(below(n), below(high**2), below(high * n), below(n * n)) if has_clusters else None
        return Stat(n, total, total if m.binary else below(high**2 // max(n, 1)), clusters)

    n = sum(expected for _, expected in subsets.values())
    counts = Outcomes(**dict.fromkeys(Outcomes.model_fields, n))
    result = PartitionResult(
        model=partition.model,
        dataset=partition.dataset,
        shard=partition.shard,
        shards=partition.shards,
        attempt=_noise_hex(0)[:36],
        inference_digest=_noise_hex(1),
        prompt_digest=_noise_hex(2),
        outcomes=counts,
        limited=True,
        metrics=metrics,
        subsets=tuple(
            SubsetResult(
                name=k,
                size=size,
                expected=expected,
                stats=tuple(stat(m, expected) for m in metrics),
                labels={
                    key: {name: LabelCount(*(below(expected) for _ in LabelCount._fields)) for name in names}
                    for key, names in labels.items()
                },
                ngrams={
                    m.key: tuple(below(expected * ITEMS_MAX) for _ in range(CORPORA[m.aggregation].size))
                    for m in metrics
                    if m.aggregation in CORPORA
                },
            )
            for k, (size, expected) in subsets.items()
        ),
        lint=tuple(Lint(code=c * 16, count=n) for c in "ABCDEFGH"),
        tokens=Tokens(**{kind: below(COUNT_MAX) for kind in Tokens.model_fields}),
        seconds=Seconds(start=1234.567, load=2345.678, infer=34567.891, score=4567.892),
        device="x" * 40,
        provenance={str(i): _noise_hex(i) for i in range(6)},
        samples=_noise_hex(7) * 2,
    )
    text = _ascii_json(result)
    size = len(_frame("z", base64.b85encode(zlib.compress(text.encode(), 9)).decode()))
    # Other digits compress a little better or worse.
    return size + size // 20


def _noise_hex(seed: int) -> str:
    return f"{(seed + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A11D0C18E95:064x}"[-64:]
