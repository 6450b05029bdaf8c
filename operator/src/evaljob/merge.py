"""Outcomes of partitions -> the summary. Shards are added up as integers, so their number never shows in a value."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from evaljob.corpus import CORPORA, Counts, added
from evaljob.model import Frozen
from evaljob.names import Reason, State
from evaljob.plan import Partition, Plan, PlannedDataset
from evaljob.result import Failure, Lint, MetricInfo, Outcomes, PartitionResult, Seconds, Tokens
from evaljob.scoring import Group, Weighting
from evaljob.stats import (
    EMPTY,
    Aggregation,
    Estimate,
    LabelCount,
    Stat,
    estimate,
    macro_f1,
    merge_labels,
    weighted,
)
from evaljob.summary import Cell, CellState, Column, Line, Part, Row, Score, Summary


def summarize(plan: Plan, outcomes: Mapping[Partition, PartitionResult | Failure], *, state: str) -> Summary:
    """Merge what is known of a plan's partitions.

    Args:
        plan: the frozen plan.
        outcomes: per partition, as far as it has ended for good.
        state: the EvalJob's state. Complete becomes Failed if the shards of a cell disagree: all partitions
            succeeded, and still there is no number.
    """
    cells = tuple(cell for line in lines(plan, outcomes) for cell in line.cells)
    disagreed = any(c.reason == Reason.SHARDS_DISAGREE for c in cells)
    failed = sum(isinstance(o, Failure) for o in outcomes.values())
    head = headed(plan, state=state, succeeded=len(outcomes) - failed, failed=failed, disagreed=disagreed)
    return head.model_copy(update={"cells": cells})


def lines(plan: Plan, outcomes: Mapping[Partition, PartitionResult | Failure]) -> Iterator[Line]:
    """The cells of one dataset after the other: 10,000 at once would take 60 MiB. Each outcome is asked for once."""
    shards: dict[tuple[str, str], list[Partition]] = {}
    for partition in plan.partitions:
        shards.setdefault((partition.model, partition.dataset), []).append(partition)
    for d in plan.datasets:
        cells = (_cell(m.name, d, shards.get((m.name, d.dataset.name), []), outcomes) for m in plan.models)
        yield Line(_row(d), tuple(cells))


def headed(plan: Plan, *, state: str, succeeded: int, failed: int, disagreed: bool) -> Summary:
    """A summary without its cells; see `summarize`."""
    return Summary(
        name=plan.run.name,
        uid=plan.run.uid,
        state=State.FAILED if disagreed and state == State.COMPLETE else state,
        succeeded=succeeded,
        failed=failed,
        total=len(plan.partitions),
        models=tuple(Column(name=m.name, display_name=m.display_name or m.name) for m in plan.models),
        datasets=tuple(_row(d) for d in plan.datasets),
        cells=(),
    )


def _row(planned: PlannedDataset) -> Row:
    d = planned.dataset
    return Row(
        name=d.name,
        display_name=d.display_name or d.name,
        task=planned.task_name,
        task_version=planned.task.version if planned.task else None,
        primary=planned.primary,
    )


def _cell(
    model: str,
    planned: PlannedDataset,
    partitions: Sequence[Partition],
    outcomes: Mapping[Partition, PartitionResult | Failure],
) -> Cell:
    dataset = planned.dataset.name
    if not partitions:
        return Cell(model=model, dataset=dataset, state=CellState.EXCLUDED, shards=0, shards_done=0)
    known = [outcomes[p] for p in partitions if p in outcomes]
    results = [o for o in known if isinstance(o, PartitionResult)]
    failures = [o for o in known if isinstance(o, Failure)]
    reason, message = (failures[0].reason, failures[0].message) if failures else (None, None)
    if len(results) == len(partitions):
        reason = _disagreement(results)
        if reason is None:
            return _complete_cell(model, planned, results)
        message = "the shards did not compute with the same model, data and parameters"
        results = []
    return Cell(
        model=model,
        dataset=dataset,
        state=CellState.PARTIAL if results else CellState.MISSING,
        reason=reason,
        message=message,
        shards=len(partitions),
        shards_done=len(results),
        limited=planned.dataset.limit is not None,
    )


def _disagreement(results: Sequence[PartitionResult]) -> Reason | None:
    """Shards of one cell must come from the same inference and measure the same things."""
    digests = {r.inference_digest for r in results}
    metrics = {r.metrics for r in results}
    sizes: dict[str, set[int]] = {}
    for subset in (s for r in results for s in r.subsets):
        sizes.setdefault(subset.name, set()).add(subset.size)
    clustered = {
        x.clusters is None
        for r in results
        for s in r.subsets
        for m, x in zip(r.metrics, s.stats, strict=True)
        if x.n and not m.weighted
    }
    same = len(digests) == len(metrics) == 1 and all(len(s) == 1 for s in sizes.values())
    same = same and len(clustered) <= 1
    return None if same else Reason.SHARDS_DISAGREE


def _complete_cell(model: str, planned: PlannedDataset, results: Sequence[PartitionResult]) -> Cell:
    first = results[0]
    return Cell(
        model=model,
        dataset=planned.dataset.name,
        state=CellState.COMPLETE,
        shards=len(results),
        shards_done=len(results),
        limited=any(r.limited for r in results),
        lint=_merged_lint(results),
        outcomes=Outcomes(**_summed(r.outcomes for r in results)),
        inference_digest=first.inference_digest,
        parts=_parts(
            _merged_subsets(results),
            first.metrics,
            planned.dataset.name,
            planned.groups or first.groups,
            limited=any(r.limited for r in results),
        ),
        tokens=Tokens(**_summed(r.tokens for r in results)),
        seconds=Seconds(**_summed(r.seconds for r in results)),
        device=first.device,
        provenance=first.provenance,
    )


def _summed(values: Iterable[Frozen]) -> dict[str, int]:
    """Field by field sums of equal models of numbers."""
    total: dict[str, int] = {}
    for value in values:
        for name, number in value:
            total[name] = total.get(name, 0) + number
    return total


def _merged_lint(results: Iterable[PartitionResult]) -> tuple[Lint, ...]:
    found: dict[str, int] = {}
    for lint in (x for r in results for x in r.lint):
        found[lint.code] = found.get(lint.code, 0) + lint.count
    return tuple(Lint(code=code, count=number) for code, number in sorted(found.items()))


class _Merged(NamedTuple):
    """One subset over all shards."""

    size: int
    expected: int
    stats: tuple[Stat, ...]
    labels: Mapping[str, Mapping[str, LabelCount]]
    ngrams: Mapping[str, Counts]

    def counted(self, metric: MetricInfo) -> float | None:
        """The number that is made of counts; None without samples."""
        if metric.aggregation is Aggregation.MACRO_F1:
            return macro_f1(self.labels.get(metric.key, {}))
        counts = self.ngrams.get(metric.key)
        return CORPORA[metric.aggregation].score(counts) if counts else None


def _merged_subsets(results: Iterable[PartitionResult]) -> dict[str, _Merged]:
    merged: dict[str, _Merged] = {}
    for subset in (s for r in results for s in r.subsets):
        before = merged.get(subset.name, _Merged(subset.size, 0, (EMPTY,) * len(subset.stats), {}, {}))
        stats = tuple(a + b for a, b in zip(before.stats, subset.stats, strict=True))
        labels = {key: merge_labels(before.labels.get(key, {}), n) for key, n in subset.labels.items()}
        ngrams = {
            key: added(before.ngrams.get(key, ()), subset.ngrams.get(key, ()))
            for key in before.ngrams.keys() | subset.ngrams.keys()
        }
        expected = before.expected + subset.expected
        merged[subset.name] = _Merged(subset.size, expected, stats, labels, ngrams)
    return merged


class _Stratum(NamedTuple):
    """The samples of a subset that were scored, for all that it has."""

    stat: Stat
    size: int
    n: int

    @property
    def weight(self) -> float:
        """Of its mean: its size in samples, or in items where the state counts these."""
        return self.size * self.stat.n / self.n


class _Weighed(NamedTuple):
    """A part while groups are computed: its estimate and its weight."""

    estimate: Estimate
    size: int
    n: int
    strata: tuple[_Stratum, ...]
    """What it is the mean of all samples of; none where it is another number."""


def _parts(
    subsets: Mapping[str, _Merged],
    metrics: Sequence[MetricInfo],
    dataset: str,
    groups: Sequence[Group],
    *,
    limited: bool,
) -> tuple[Part, ...]:
    """The whole, the groups (outermost first) and the subsets of a complete cell."""
    by_subset = [_leaves(subsets, i, m) for i, m in enumerate(metrics)]
    by_group = [
        _weigh(leaves, m, groups, limited=limited) for leaves, m in zip(by_subset, metrics, strict=True)
    ]
    # Empty subsets have no score and no weight: the whole is that of the others.
    wholes = [
        _weigh_members(tuple(leaves), None, leaves, m, limited=limited)
        for leaves, m in zip(by_subset, metrics, strict=True)
    ]
    expected = sum(s.expected for s in subsets.values())
    size = sum(s.size for s in subsets.values())
    parts = [
        Part(kind="dataset", name=dataset, size=size, scores=_scores(metrics, wholes, expected)),
        *(_group_part(g, depth, by_group, metrics, subsets, groups) for g, depth in _ordered(groups)),
    ]
    if set(subsets) != {""}:
        parts += [
            Part(kind="subset", name=name, depth=1, size=s.size,
                 scores=_scores(metrics, [b.get(name) for b in by_subset], s.expected))
            for name, s in subsets.items()
        ]  # fmt: skip
    return tuple(parts)


def _leaves(subsets: Mapping[str, _Merged], i: int, metric: MetricInfo) -> dict[str, _Weighed]:
    found = {}
    for name, subset in subsets.items():
        stat = subset.stats[i]
        if metric.aggregation.counted:
            # No mean: subsets are weighed, never pooled, and there is no standard error.
            number = subset.counted(metric)
            if number is not None:
                found[name] = _Weighed(Estimate(number, None, None, None), subset.size, stat.n, ())
            continue
        value = metric.estimate(stat)
        if value is not None:
            # Coverage is of samples, also where the state counts their items.
            n = subset.expected if metric.weighted else stat.n
            found[name] = _Weighed(value, subset.size, n, (_Stratum(stat, subset.size, n),))
    return found


def _weigh(
    subsets: Mapping[str, _Weighed], metric: MetricInfo, groups: Iterable[Group], *, limited: bool
) -> dict[str, _Weighed]:
    """Every complete group of one metric."""
    found: dict[str, _Weighed] = {}
    for group in groups:
        # A group may have the name of a subset; as a member, such a name means the group.
        known = {**subsets, **found}
        value = _weigh_members(group.members, group, known, metric, limited=limited)
        if value is not None:
            found[group.name] = value
    return found


def _weigh_members(
    names: Sequence[str],
    group: Group | None,
    known: Mapping[str, _Weighed],
    metric: MetricInfo,
    *,
    limited: bool,
) -> _Weighed | None:
    """The estimate over some subsets and groups, None unless all of them are known.

    By size (also without a group) it is what all samples of its subsets together would give. Other groups, and those
    of members that are no such mean, weigh their members' numbers.
    """
    if not names or any(m not in known for m in names):
        return None
    members = [known[m] for m in names]
    size, n = sum(m.size for m in members), sum(m.n for m in members)
    by_size = group is None or group.weighting is Weighting.BY_SIZE
    if by_size and all(m.strata for m in members):
        strata = tuple(s for m in members for s in m.strata)
        value = _over(strata, metric, limited=limited)
        return _Weighed(value, size, n, strata) if value else None
    weights = [m.size for m in members] if group is None or by_size else _weights(group)
    value = weighted([(m.estimate, w) for m, w in zip(members, weights, strict=True)])
    return _Weighed(value, size, n, ())


def _over(strata: Sequence[_Stratum], metric: MetricInfo, *, limited: bool) -> Estimate | None:
    """The estimate over all samples of some subsets.

    Without `limit` their states add up, which is exact. With it each mean counts by the full size, of perplexities
    the nats.
    """
    if len(strata) == 1 or not limited:
        return metric.estimate(sum((s.stat for s in strata), EMPTY))
    means = [(mean, s.weight) for s in strata if (mean := estimate(s.stat, metric.unit))]
    return metric.shown(weighted(means))


def _weights(group: Group) -> list[float]:
    own = group.weighting is Weighting.WEIGHTS
    return [group.weights[name] if own else 1 for name in group.members]


def _scores(
    metrics: Sequence[MetricInfo], values: Sequence[_Weighed | None], expected: int
) -> tuple[Score, ...]:
    return tuple(
        Score(
            metric=m.key, primary=m.primary, higher_is_better=m.higher_is_better,
            **(v.estimate._asdict() if v else {}), n=v.n if v else 0, expected=expected,
        )
        for m, v in zip(metrics, values, strict=True)
    )  # fmt: skip


def _ordered(groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """Groups as a reader expects them: a group, then its member groups, indented."""
    by_name = {g.name: g for g in groups}
    inner = {m for g in groups for m in g.members if m in by_name}

    def walk(group: Group, depth: int) -> list[tuple[Group, int]]:
        below = [x for m in group.members if m in by_name for x in walk(by_name[m], depth + 1)]
        return [(group, depth), *below]

    return [x for g in groups if g.name not in inner for x in walk(g, 1)]


def _group_part(
    group: Group,
    depth: int,
    by_group: Sequence[Mapping[str, _Weighed]],
    metrics: Sequence[MetricInfo],
    subsets: Mapping[str, _Merged],
    groups: Sequence[Group],
) -> Part:
    names = {g.name: g for g in groups}
    leaves = _subsets_of(group, names)
    return Part(
        kind="group",
        name=group.name,
        depth=depth,
        size=sum(subsets[s].size for s in leaves if s in subsets),
        present=sum(s in subsets for s in leaves),
        members=len(leaves),
        scores=_scores(
            metrics,
            [b.get(group.name) for b in by_group],
            sum(subsets[s].expected for s in leaves if s in subsets),
        ),
    )


def _subsets_of(group: Group, groups: Mapping[str, Group]) -> list[str]:
    return [s for m in group.members for s in (_subsets_of(groups[m], groups) if m in groups else [m])]
