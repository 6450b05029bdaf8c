"""How large a result can become, known before a model loads."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType

from evaljob.corpus import CORPORA, CORPUS_MAX
from evaljob.framing import Size, size
from evaljob.plan import Partition
from evaljob.result import (
    COUNT_MAX,
    ITEM_COUNT_MAX,
    Lint,
    MetricInfo,
    Outcomes,
    PartitionResult,
    Seconds,
    SubsetResult,
    Tokens,
)
from evaljob.stats import Clusters, LabelCount, Stat

ITEMS_MAX = 10**4
"""Items of a sample (instructions, words, bytes) that the bound of a result's size counts with."""


def worst_case(
    *,
    partition: Partition,
    metrics: tuple[MetricInfo, ...],
    subsets: dict[str, tuple[int, int]],
    clustered: bool = False,
    labels: Mapping[str, Iterable[str]] = MappingProxyType({}),
    largest: float = 1.0,
) -> Size:
    """An upper bound of a result's size, known before a model loads.

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

    result = partial(
        _result,
        partition=partition,
        metrics=metrics,
        subsets=subsets,
        clustered=clustered,
        labels=labels,
        largest=largest,
    )
    framed = size(result(below)).framed
    # Other digits compress a little better or worse. As JSON the largest numbers take most.
    return Size(framed + framed // 20, size(result(int)).plain)


def _result(
    below: Callable[[int], int],
    *,
    partition: Partition,
    metrics: tuple[MetricInfo, ...],
    subsets: dict[str, tuple[int, int]],
    clustered: bool,
    labels: Mapping[str, Iterable[str]],
    largest: float,
) -> PartitionResult:
    """A result whose numbers are what `below` makes of the largest ones that are possible."""

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
    return PartitionResult(
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
                size=full,
                expected=expected,
                stats=tuple(stat(m, expected) for m in metrics),
                labels={
                    key: {name: LabelCount(*(below(expected) for _ in LabelCount._fields)) for name in names}
                    for key, names in labels.items()
                },
                ngrams={
                    m.key: tuple(
                        below(min(expected * ITEMS_MAX * corpus.unit, ITEM_COUNT_MAX))
                        for _ in range(corpus.size)
                    )
                    for m in metrics
                    if (corpus := CORPORA.get(m.aggregation))
                },
            )
            for k, (full, expected) in subsets.items()
        ),
        lint=tuple(Lint(code=c * 16, count=n) for c in "ABCDEFGH"),
        tokens=Tokens(**{kind: below(COUNT_MAX) for kind in Tokens.model_fields}),
        seconds=Seconds(start=1234.567, load=2345.678, infer=34567.891, score=4567.892),
        device="x" * 40,
        provenance={str(i): _noise_hex(i) for i in range(6)},
        samples=_noise_hex(7) * 2,
    )


def _noise_hex(seed: int) -> str:
    return f"{(seed + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A11D0C18E95:064x}"[-64:]
