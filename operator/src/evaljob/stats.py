"""Mergeable scores: exact integer sums, so that any split of the samples gives the same number to the last bit.

A score is an integer multiple of `1 / unit`: unit 1 for 0/1 scores, 10**12 for all others. Sums of integers
are associative; one rounding happens at the very end. Intervals are 95 %: Wilson (1927) for unclustered
proportions, else value +- 1.96 standard errors; standard errors of clustered samples after Miller (2024),
"Adding Error Bars to Evals", equation 4.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from statistics import NormalDist
from typing import NamedTuple

UNIT_BINARY = 1
UNIT_REAL = 10**12
NATS_MAX = 300
"""Per word or byte: no text reaches it, and squares of perplexities below it are finite doubles."""
_Z = NormalDist().inv_cdf(0.975)


class Aggregation(StrEnum):
    """How one number is made of the scores of all samples."""

    MEAN = "Mean"
    MACRO_F1 = "MacroF1"
    """The mean F1 of labels, made of their counts; the scores are those of the accuracy."""
    PERPLEXITY = "Perplexity"
    """The mean as the exponent of e: the scores are negative log-likelihoods per word or byte, in nats."""
    CORPUS_BLEU = "CorpusBLEU"
    CORPUS_CHRF = "CorpusChrF"
    CORPUS_CHRF_PP = "CorpusChrF++"
    """Made of the n-grams of all samples; the scores are those of samples alone."""
    CORPUS_TER = "CorpusTER"
    """As these, of edits and words."""

    @property
    def counted(self) -> bool:
        """Whether the number is made of counts, and not of scores."""
        return self not in (Aggregation.MEAN, Aggregation.PERPLEXITY)


class Clusters(NamedTuple):
    """Sums over clusters c with n_c samples and score sum S_c: enough for a clustered standard error."""

    number: int
    sum_squares: int
    """Sum of S_c squared."""
    sum_products: int
    """Sum of S_c times n_c."""
    size_squares: int
    """Sum of n_c squared."""

    def __add__(self, other: object) -> "Clusters":
        if not isinstance(other, Clusters):
            return NotImplemented
        return Clusters(*(a + b for a, b in zip(self, other, strict=True)))


class Stat(NamedTuple):
    """The state of one metric over some samples: count, sum and sum of squares, in units."""

    n: int
    total: int
    squares: int
    clusters: Clusters | None = None

    def __add__(self, other: object) -> "Stat":
        """Merge two disjoint sets of samples. Exact, associative, commutative."""
        if not isinstance(other, Stat):
            return NotImplemented
        clusters = _add_clusters(self, other)
        return Stat(self.n + other.n, self.total + other.total, self.squares + other.squares, clusters)

    def value(self, unit: int) -> float | None:
        """The mean score; None without samples."""
        return float(Fraction(self.total, self.n * unit)) if self.n else None

    def variance(self, unit: int) -> float | None:
        """The squared standard error of the mean; None below two samples (or two clusters)."""
        if self.n < 2 or (self.clusters is not None and self.clusters.number < 2):
            return None
        spread = Fraction(self.squares) - Fraction(self.total**2, self.n)
        variance = spread / (self.n - 1) / self.n
        if self.clusters is not None:
            # Pairs of different samples of one cluster: all pairs less those of a sample with itself.
            variance += (self._clustered_spread(self.clusters) - spread) / self.n**2
        return float(variance / unit**2)

    def _clustered_spread(self, c: Clusters) -> Fraction:
        """Sum over clusters of (S_c - mean n_c) squared."""
        mean = Fraction(self.total, self.n)
        return c.sum_squares - 2 * mean * c.sum_products + mean**2 * c.size_squares


EMPTY = Stat(0, 0, 0)


def _add_clusters(a: Stat, b: Stat) -> Clusters | None:
    """An empty state takes the other's clusters; otherwise both have them or neither has."""
    if a.n == 0 or b.n == 0:
        return a.clusters or b.clusters
    if (a.clusters is None) != (b.clusters is None):
        raise ValueError("clustered and unclustered scores do not add up")
    return a.clusters + b.clusters if a.clusters and b.clusters else None


def to_units(score: float, unit: int) -> int:
    """A finite score as an integer number of units.

    Raises:
        ValueError: for NaN and infinities, and for a binary metric's score other than 0 and 1.
    """
    if not math.isfinite(score):
        raise ValueError(f"score {score} is not a finite number")
    if unit == UNIT_BINARY and score not in (0, 1):
        raise ValueError(f"score {score} of a 0/1 metric")
    return int(score) * unit if score in (0, 1) else round(Fraction(score) * unit)


def accumulate(scores: Iterable[tuple[int, str | None]]) -> Stat:
    """Sum up (score in units, cluster or None) of some samples.

    Raises:
        ValueError: when some have a cluster and others have none.
    """
    n = total = squares = 0
    sums: dict[str, tuple[int, int]] = {}
    for score, cluster in scores:
        n, total, squares = n + 1, total + score, squares + score**2
        if cluster is not None:
            size, inner = sums.get(cluster, (0, 0))
            sums[cluster] = (size + 1, inner + score)
    if not sums:
        return Stat(n, total, squares)
    pairs = sums.values()
    if (clustered := sum(size for size, _ in pairs)) != n:
        raise ValueError(f"{clustered} of {n} samples have a cluster: all must have one, or none")
    return Stat(n, total, squares, _clusters(pairs))


class Weighted(NamedTuple):
    """A sample whose score is the mean of several items (instructions, words, bytes), which are not independent."""

    total: int
    """Sum of the items' scores, in units."""
    items: int


def accumulate_weighted(samples: Iterable[tuple[Weighted, str | None]]) -> Stat:
    """Sum up (items of a sample, cluster or None): the value is the mean over items, clustered by sample.

    The sum of squares has the least value that the samples' means allow: single items are not known.
    """
    n = total = squares = 0
    sums: dict[str | int, tuple[int, int]] = {}
    for row, ((score, items), cluster) in enumerate(samples):
        n, total, squares = n + items, total + score, squares - (-(score**2) // items)
        key = row if cluster is None else cluster
        size, inner = sums.get(key, (0, 0))
        sums[key] = (size + items, inner + score)
    return Stat(n, total, squares, _clusters(sums.values())) if sums else EMPTY


def _clusters(pairs: Collection[tuple[int, int]]) -> Clusters:
    """The sums over clusters of (size, sum of scores)."""
    return Clusters(
        len(pairs), sum(s * s for _, s in pairs), sum(s * k for k, s in pairs), sum(k * k for k, _ in pairs)
    )


class LabelCount(NamedTuple):
    """How often a label was right, was given as an answer, and was the target."""

    right: int
    predicted: int
    actual: int


def count_labels(pairs: Iterable[tuple[str, str | None]], labels: Iterable[str]) -> dict[str, LabelCount]:
    """Count (target, answer) pairs by label; answers that are no label only miss their target."""
    counted = Counter[tuple[str, str]]()
    for target, answer in pairs:
        counted["actual", target] += 1
        counted["predicted", answer or ""] += 1
        counted["right", target] += target == answer
    return {name: LabelCount(*(counted[field, name] for field in LabelCount._fields)) for name in labels}


def merge_labels(a: Mapping[str, LabelCount], b: Mapping[str, LabelCount]) -> dict[str, LabelCount]:
    """The counts of two disjoint sets of samples together: exact."""
    zero = LabelCount(0, 0, 0)
    return {
        name: LabelCount(*map(sum, zip(a.get(name, zero), b.get(name, zero), strict=True)))
        for name in dict.fromkeys([*a, *b])
    }


def macro_f1(counts: Mapping[str, LabelCount]) -> float | None:
    """The mean F1 of all labels that were a target or an answer; None without any."""
    scores = [
        Fraction(2 * c.right, c.predicted + c.actual) for c in counts.values() if c.predicted + c.actual
    ]
    return float(sum(scores) / len(scores)) if scores else None


class Estimate(NamedTuple):
    """A number as it is shown: value, standard error and 95 % interval (None where undefined)."""

    value: float
    stderr: float | None
    low: float | None
    high: float | None


def estimate(stat: Stat, unit: int) -> Estimate | None:
    """The estimate of one state; None without samples."""
    value = stat.value(unit)
    if value is None:
        return None
    variance = stat.variance(unit)
    if variance is None:
        return Estimate(value, None, None, None)
    stderr = math.sqrt(variance)
    if unit == UNIT_BINARY and stat.clusters is None:
        return Estimate(value, stderr, *wilson(stat.total, stat.n))
    return Estimate(value, stderr, value - _Z * stderr, value + _Z * stderr)


def perplexity(nats: Estimate) -> Estimate:
    """A mean as the exponent of e: its standard error to first order, its interval from that of the mean."""
    low, high = (None if end is None else math.exp(min(end, NATS_MAX)) for end in (nats.low, nats.high))
    value = math.exp(min(nats.value, NATS_MAX))
    return Estimate(value, None if nats.stderr is None else value * nats.stderr, low, high)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion."""
    p, z2 = successes / n, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def weighted(members: Sequence[tuple[Estimate, float]]) -> Estimate:
    """The weighted mean of independent estimates: stderr**2 = sum of w**2 stderr**2 (stratified sampling)."""
    whole = math.fsum(weight for _, weight in members)
    value = math.fsum(e.value * w for e, w in members) / whole
    errors = [(e.stderr, w) for e, w in members]
    if any(s is None for s, _ in errors):
        return Estimate(value, None, None, None)
    stderr = math.sqrt(math.fsum(((s or 0.0) * w / whole) ** 2 for s, w in errors))
    return Estimate(value, stderr, value - _Z * stderr, value + _Z * stderr)
