"""Scored answers -> the sums of a result, one sample after another: memory does not grow with their number."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from evaljob import stats
from evaljob.corpus import Counts, added
from evaljob.result import MetricInfo, Outcomes, SubsetResult, Tokens
from evaljob.stats import EMPTY, LabelCount, Stat
from evaljob_runner import lint
from evaljob_runner.data import Count, Entry
from evaljob_runner.reducing import Reduced
from evaljob_runner.samples import InferenceLine, Outcome, ScoreLine
from evaljob_runner.scoring import Scorer
from evaljob_runner.tokens import Combined


@dataclass(frozen=True)
class Scored:
    """A finished answer."""

    entry: Entry
    line: InferenceLine
    outcome: Outcome
    scores: ScoreLine
    from_log: bool


class Tally:
    """The sums over a shard's answers.

    Args:
        scorer: of the task.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.prompts = Combined()
        """Digest of the prompts."""
        self.outputs = lint.Outputs()
        self.doubled_bos: list[bool] = []
        """Of the first prompts; read from the log, as a finished partition loads no tokenizer."""
        self._stats: dict[str, list[Stat]] = {}
        self._labels: dict[str, dict[str, dict[str, LabelCount]]] = {}
        self._ngrams: dict[str, dict[str, Counts]] = {}
        self._count: Counter[str] = Counter()

    def add(self, scored: Iterable[Scored]) -> None:
        """Count answers; a sample's repeats and a cluster's samples follow each other."""
        for _, cluster in groupby(self._counted(scored), key=lambda s: (s.entry.subset, _cluster(s.entry))):
            samples = [list(repeats) for _, repeats in groupby(cluster, key=lambda s: s.entry.id)]
            self._add_cluster(samples)

    def _counted(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        for answer in scored:
            request = answer.line.requests[0]
            self.outputs.add(answer.outcome, answer.line.requests[-1].output)
            self._count[answer.outcome] += 1
            self._count["from_log"] += answer.from_log
            if not answer.from_log:
                for asked in answer.line.requests:
                    self._count["prompt"] += asked.prompt_tokens or 0
                    self._count["output"] += asked.output_tokens or 0
                    self._count["reasoning"] += asked.reasoning_tokens or 0
            for judgement in answer.scores.judgements:
                self._count["judge_prompt"] += judgement.prompt_tokens
                self._count["judge_output"] += judgement.output_tokens
            if answer.line.repeat == 0:
                self.prompts.add(request.prompt_digest)
                if len(self.doubled_bos) < lint.FIRST_PROMPTS:
                    self.doubled_bos.append(bool(request.doubled_bos))
            yield answer

    def _add_cluster(self, samples: Sequence[Sequence[Scored]]) -> None:
        """Add the samples of one cluster, each with its repeats."""
        first = samples[0][0].entry
        rows = [self._scorer.reduce([s.scores for s in repeats]) for repeats in samples]
        found = [
            _state([row[i] for row in rows], first.cluster, metric)
            for i, metric in enumerate(self._scorer.info)
        ]
        before = self._stats.get(first.subset, [EMPTY] * len(found))
        self._stats[first.subset] = [a + b for a, b in zip(before, found, strict=True)]
        for key, names in self._scorer.labels.items():
            pairs = [(s.line.target, s.scores.scores[key].extracted) for repeats in samples for s in repeats]
            labels = self._labels.setdefault(first.subset, {})
            labels[key] = stats.merge_labels(labels.get(key, {}), stats.count_labels(pairs, names))
        for key in self._scorer.corpora:
            ngrams = self._ngrams.setdefault(first.subset, {})
            for scored in (s for repeats in samples for s in repeats):
                ngrams[key] = added(ngrams.get(key, ()), tuple(scored.scores.scores[key].counts or ()))

    def subset(self, name: str, count: Count) -> SubsetResult:
        """Everything about a subset."""
        empty = {key: stats.count_labels((), names) for key, names in self._scorer.labels.items()}
        return SubsetResult(
            name=name,
            size=count.size,
            expected=count.expected,
            stats=tuple(self._stats.get(name, [EMPTY] * len(self._scorer.info))),
            labels=self._labels.get(name, empty),
            ngrams=self._ngrams.get(name, {}),
        )

    @property
    def outcomes(self) -> Outcomes:
        """How many answers ended how."""
        count = self._count
        total = sum(count[outcome] for outcome in Outcome)
        return Outcomes(
            expected=total,
            completed=total,
            answered=count[Outcome.ANSWERED],
            no_answer=count[Outcome.NO_ANSWER],
            context_overflow=count[Outcome.CONTEXT_OVERFLOW],
            truncated=count[Outcome.TRUNCATED],
            refused=count[Outcome.REFUSED],
            from_log=count["from_log"],
        )

    @property
    def tokens(self) -> Tokens:
        """What this attempt's answers took."""
        return Tokens(**{kind: self._count[kind] for kind in Tokens.model_fields})


def _cluster(entry: Entry) -> tuple[bool, str]:
    """A sample without a cluster is its own."""
    return (True, entry.id) if entry.cluster is None else (False, entry.cluster)


def _state(scores: Sequence[Reduced], cluster: str | None, metric: MetricInfo) -> Stat:
    if not metric.weighted:
        return stats.accumulate((stats.to_units(s.value, metric.unit), cluster) for s in scores)
    return stats.accumulate_weighted(
        (stats.Weighted(stats.to_units(s.value * s.weight, metric.unit), s.weight), cluster) for s in scores
    )
