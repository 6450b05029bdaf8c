"""Whether a result is whole and possible: results come from pods, and every pod is hostile."""

from collections.abc import Mapping
from typing import NamedTuple

from evaljob.corpus import CORPORA, valid
from evaljob.result import RESULT_VERSION, MetricInfo, PartitionResult, SubsetResult
from evaljob.stats import Aggregation, LabelCount, Stat

SCORE_MAX = 10**50
"""No metric reaches it; sums below it stay finite as floats."""


def problem(result: PartitionResult) -> str | None:
    """What is wrong with a result that types cannot say, or None: it is complete and its parts fit together."""
    return next((text for bad, text in _checks(result) if bad), None)


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
