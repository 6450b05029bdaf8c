"""Scores add up exactly, and their errors are what the books say."""

import math
import operator
import random
from statistics import NormalDist, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.stats import (
    EMPTY,
    UNIT_BINARY,
    UNIT_REAL,
    Clusters,
    Estimate,
    Stat,
    Weighted,
    accumulate,
    accumulate_weighted,
    estimate,
    perplexity,
    to_units,
    weighted,
    wilson,
)

Z = NormalDist().inv_cdf(0.975)
real = st.floats(-1e6, 1e6, allow_nan=False)
units = st.integers(-(10**18), 10**18)


@pytest.mark.parametrize("shards", [1, 2, 7, 64])
@pytest.mark.parametrize("clustered", [False, True])
@given(data=st.data())
def test_any_number_of_shards_gives_the_same_doubles(
    shards: int, clustered: bool, data: st.DataObject
) -> None:
    scores = data.draw(st.lists(units, max_size=80))
    # Clusters are never cut: sample i belongs to cluster i // 3, and shards end at clusters.
    named = [(s, str(i // 3) if clustered else None) for i, s in enumerate(scores)]
    clusters = -(-len(named) // 3)
    merged = EMPTY
    for k in range(shards):
        low, high = 3 * (clusters * k // shards), 3 * (clusters * (k + 1) // shards)
        merged = merged + accumulate(named[low:high])
    assert merged == accumulate(named)
    assert estimate(merged, UNIT_REAL) == estimate(accumulate(named), UNIT_REAL)


@given(st.lists(st.tuples(units, units), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_addition_has_no_order(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    stats = [accumulate([(a, None), (b, None)]) for a, b in pairs]
    shuffled = rng.sample(stats, len(stats))
    assert sum(stats, EMPTY) == sum(shuffled, EMPTY)


@given(st.lists(real, min_size=2, max_size=50))
def test_mean_and_error_against_floats(scores: list[float]) -> None:
    found = estimate(accumulate((to_units(s, UNIT_REAL), None) for s in scores), UNIT_REAL)
    n, mean = len(scores), math.fsum(scores) / len(scores)
    stderr = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (n - 1) / n)
    assert found is not None
    assert found.stderr is not None
    assert found.value == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert found.stderr == pytest.approx(stderr, rel=1e-6, abs=1e-6)
    assert (found.low, found.high) == (found.value - Z * found.stderr, found.value + Z * found.stderr)


@given(st.lists(st.tuples(real, st.sampled_from("abcd")), min_size=2, max_size=30))
def test_clustered_error_is_equation_4_of_miller(samples: list[tuple[float, str]]) -> None:
    """SE**2 = SE_CLT**2 + sum over clusters and pairs i != j of (s_i - mean)(s_j - mean) / n**2."""
    n, mean = len(samples), math.fsum(s for s, _ in samples) / len(samples)
    independent = math.fsum((s - mean) ** 2 for s, _ in samples) / (n - 1) / n
    within = math.fsum(
        (a - mean) * (b - mean)
        for i, (a, c) in enumerate(samples)
        for j, (b, d) in enumerate(samples)
        if i != j and c == d
    )
    found = accumulate((to_units(s, UNIT_REAL), c) for s, c in samples).variance(UNIT_REAL)
    if len({c for _, c in samples}) < 2:
        assert found is None
    else:
        assert found == pytest.approx(independent + within / n**2, rel=1e-6, abs=1e-3)


@given(st.lists(units, min_size=2, max_size=30))
def test_clusters_of_one_sample_change_nothing(scores: list[int]) -> None:
    alone = accumulate((s, str(i)) for i, s in enumerate(scores))
    assert alone.variance(UNIT_REAL) == accumulate((s, None) for s in scores).variance(UNIT_REAL)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1),
    ],
)
def test_wilson_against_known_intervals(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_unclustered_proportions_have_a_wilson_interval() -> None:
    found = estimate(Stat(10, 8, 8), UNIT_BINARY)
    assert found is not None
    assert (found.low, found.high) == wilson(8, 10)
    assert found.stderr == pytest.approx(math.sqrt(0.8 * 0.2 / 9))


def test_clustered_proportions_have_a_normal_interval() -> None:
    found = estimate(accumulate([(1, "a"), (0, "a"), (1, "b")]), UNIT_BINARY)
    assert found is not None
    assert found.stderr is not None
    assert found.low == found.value - Z * found.stderr


def test_one_sample_has_a_value_and_no_error() -> None:
    assert estimate(Stat(1, 1, 1), UNIT_BINARY) == Estimate(1.0, None, None, None)


def test_no_sample_has_no_value() -> None:
    assert estimate(EMPTY, UNIT_BINARY) is None
    assert EMPTY.value(UNIT_REAL) is None


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("unit", [UNIT_BINARY, UNIT_REAL])
def test_what_is_not_a_number_is_refused(score: float, unit: int) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        to_units(score, unit)


@pytest.mark.parametrize("score", [0.5, 2, -1])
def test_a_binary_score_is_0_or_1(score: float) -> None:
    with pytest.raises(ValueError, match="of a 0/1 metric"):
        to_units(score, UNIT_BINARY)


@pytest.mark.parametrize(("score", "expected"), [(True, 1), (0.0, 0), (1, 1)])
def test_binary_units(score: float, expected: int) -> None:
    assert to_units(score, UNIT_BINARY) == expected


def test_real_units_are_exact_to_twelve_digits() -> None:
    assert to_units(0.1, UNIT_REAL) == 10**11


def test_clustered_and_unclustered_scores_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        accumulate([(1, "a")]) + Stat(1, 1, 1)


@pytest.mark.parametrize("scores", [[(1, "a"), (1, None)], [(1, None), (1, "a")]])
def test_all_samples_have_a_cluster_or_none_has(scores: list[tuple[int, str | None]]) -> None:
    with pytest.raises(ValueError, match="1 of 2 samples have a cluster"):
        accumulate(scores)


def test_only_equal_kinds_add_up() -> None:
    with pytest.raises(TypeError):
        operator.add(Stat(1, 1, 1), (1, 1, 1))
    with pytest.raises(TypeError):
        operator.add(Clusters(1, 1, 1, 1), (1, 1, 1, 1))


def test_weighted_mean_of_independent_parts() -> None:
    parts = [(Estimate(0.2, 0.03, None, None), 3), (Estimate(0.6, 0.04, None, None), 1)]
    found = weighted(parts)
    assert found.value == pytest.approx(0.3)
    assert found.stderr == pytest.approx(math.sqrt((0.75 * 0.03) ** 2 + (0.25 * 0.04) ** 2))


def test_without_one_parts_error_the_whole_has_none() -> None:
    assert (
        weighted([(Estimate(0.2, None, None, None), 1), (Estimate(0.6, 0.1, None, None), 1)]).stderr is None
    )


def test_the_error_of_a_perplexity_is_that_of_a_bootstrap_over_texts() -> None:
    """40 texts of different length, drawn 4,000 times: within a tenth."""
    random_ = random.Random(0)  # noqa: S311 - no secret
    texts = [(size, size * random_.gauss(2, 0.4)) for size in (random_.randint(50, 400) for _ in range(40))]
    stat = accumulate_weighted((Weighted(to_units(nats, UNIT_REAL), size), None) for size, nats in texts)
    mean = estimate(stat, UNIT_REAL)
    assert mean is not None
    found = perplexity(mean)
    assert found.value == pytest.approx(math.exp(sum(nats for _, nats in texts) / sum(n for n, _ in texts)))
    drawn = [random_.choices(texts, k=40) for _ in range(4000)]
    values = [math.exp(sum(nats for _, nats in some) / sum(size for size, _ in some)) for some in drawn]
    assert found.stderr == pytest.approx(stdev(values), rel=0.1)


def test_a_perplexity_is_a_number_whatever_the_mean() -> None:
    huge = perplexity(Estimate(1e50, 1e3, -1e50, 1e50))
    assert huge.low == 0
    assert huge.high is not None
    assert math.isfinite(huge.high)
    assert perplexity(Estimate(0.0, None, None, None)) == Estimate(1.0, None, None, None)
