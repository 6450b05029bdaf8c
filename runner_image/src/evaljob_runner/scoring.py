"""Inference lines -> outcomes and scores. Needs the sample log only, so scores can be made again."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

from evaljob.corpus import CORPORA
from evaljob.metrics import KINDS
from evaljob.scoring import Metric
from evaljob.task import Task, Turns
from evaljob_runner import extract, reducing
from evaljob_runner.data import Sample
from evaljob_runner.extract import Json
from evaljob_runner.metrics import REGISTRY, choices, judged
from evaljob_runner.metrics.base import Choice, Definition, Executes, Judges, Verdict, as_text
from evaljob_runner.questions import Question
from evaljob_runner.reducing import Reduced
from evaljob_runner.samples import InferenceLine, Made, Outcome, Score, ScoreLine, Unscored


class _Answer(NamedTuple):
    """What a model said, and what it is compared with."""

    said: str | None
    """None where there is no answer."""
    accepted: list[str]


class Scorer:
    """A task's pipelines and metrics, compiled.

    Args:
        task: whose metrics, none of which `evaljob.metrics.problem` refuses.
        repeats: answers per sample.

    Raises:
        Fatal: BadConfiguration, for a bad template, or a library that is not installed.
    """

    def __init__(self, task: Task, repeats: int = 1) -> None:
        self._task = task
        self._metrics = {m.key: m for m in task.metrics}
        self._pipelines = extract.pipelines(task)
        self._definitions = {m.key: REGISTRY[m.name] for m in task.metrics}
        self._compare = {m.key: d.compare(m) for m in task.metrics if (d := self._definitions[m.key]).compare}
        self._count = {m.key: d.count(m) for m in task.metrics if (d := self._definitions[m.key]).count}
        self._executions = {
            m.key: d.execute(m) for m in task.metrics if (d := self._definitions[m.key]).execute
        }
        self._judged = {
            m.key: d.judge(m, self._pipelines[m.judge.extract])
            for m in task.metrics
            if m.judge and (d := self._definitions[m.key]).judge
        }
        self._reductions = [
            r
            for m in task.metrics
            for r in reducing.reductions(
                m, self._definitions[m.key], repeats, turns=task.turns is not Turns.LAST
            )
        ]
        self.info = tuple(reduction.info for reduction in self._reductions)
        """What the numbers of a sample mean."""
        self._weighs = task.request_type.weighs
        self.labels = {m.key: m.args["labels"].split("|") for m in task.metrics if KINDS[m.name].labelled}
        """By metric, where it is a macro F1."""
        self.corpora = frozenset(self._count)
        """The metrics that are scores of the corpus."""
        self.checks = {key: d.check for key, d in self._definitions.items() if d.check}
        self.checks |= {key: partial(_no_label, labels) for key, labels in self.labels.items()}
        """By metric: what refuses an expected answer that it cannot read."""
        self.memory = max((e.memory for e in self._executions.values()), default=None)
        """Bytes that one process of an execution may take; None where no metric executes anything."""

    def outcome(self, line: InferenceLine) -> Outcome:
        """How a finished answer ended."""
        outcome = line.outcome
        if outcome in (Outcome.ANSWERED, Outcome.NO_ANSWER) and not self._weighs:
            found = all(self._extracted(self._task.primary, a.said) is not None for a in _answers(line))
            outcome = Outcome.ANSWERED if found else Outcome.NO_ANSWER
        return outcome

    @property
    def takes_time(self) -> bool:
        """Whether some scores are made beside the model, from more of a sample than its target."""
        return bool(self._executions or self._judged)

    def shown(self, columns: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
        """What judges would be asked about a document, by metric, for people.

        Args:
            columns: of the document.
            own: what else templates see (`metrics.judged.OWN`).
            where: names the document in messages.
        """
        seen = {**columns, **judged.OWN, **own}
        return {key: list(judging.messages(seen, where)) for key, judging in self._judged.items()}

    def questions(self, line: InferenceLine) -> list[Question]:
        """What judges are to be asked about a finished answer, metric by metric."""
        answers = _answers(line)
        found = {key: [self._extracted(self._metrics[key], a.said) for a in answers] for key in self._judged}
        return [
            Question(self._metrics[key], judging, line, found[key], [a.accepted for a in answers])
            for key, judging in self._judged.items()
            if any(answer is not None for answer in found[key]) and not self._settled(key, line)
        ]

    def _settled(self, key: str, line: InferenceLine) -> bool:
        """Whether another metric makes a judge's verdict needless."""
        rubric = self._metrics[key].judge
        return bool(rubric and rubric.unless and self._score(self._metrics[rubric.unless], line).value == 1)

    def executed(self, line: InferenceLine) -> dict[str, Score]:
        """The scores of a finished answer by metrics that execute programs; safe in many threads."""
        return {key: self._score(m, line) for key, m in self._metrics.items() if key in self._executions}

    def scores(self, line: InferenceLine, made: Made | None = None) -> ScoreLine:
        """The scores of a finished answer; what was executed or judged already is not made again."""
        found = {key: (made or {}).get(key) or self._score(m, line) for key, m in self._metrics.items()}
        return ScoreLine(
            id=line.id,
            repeat=line.repeat,
            inference_digest=line.inference_digest,
            scores={key: score for key, score in found.items() if isinstance(score, Score)},
            errors={key: error for key, error in found.items() if isinstance(error, Unscored)} or None,
        )

    def reduce(self, repeats: Sequence[ScoreLine]) -> tuple[Reduced, ...]:
        """The numbers of one sample, in the order of `info`."""
        return tuple(r.reduce([line.scores[r.metric.key] for line in repeats]) for r in self._reductions)

    def check(self, expected: str) -> str | None:
        """What is wrong with an expected answer, if anything."""
        problems = (f"metric {k}: {why}" for k, check in self.checks.items() if (why := check(expected)))
        return next(problems, None)

    def confine(self) -> str | None:
        """By what the programs that metrics run are confined here; None where no metric runs any.

        Raises:
            Fatal: SandboxUnavailable or BadConfiguration.
            Retry: when the machine is too busy to tell.
        """
        confined_by = [execution.confine() for execution in self._executions.values()]
        return confined_by[0] if confined_by else None

    def document(self, sample: Sample) -> dict[str, Any] | None:
        """The columns of a document that scoring needs; None for none.

        Raises:
            Fatal: BadData, when the document does not fit the metrics' templates.
        """
        readers: list[Executes | Judges] = [*self._executions.values(), *self._judged.values()]
        if not readers:
            return None
        for reader in readers:
            reader.check(sample.columns, sample.where)
        wanted = frozenset().union(*(reader.columns for reader in readers))
        return {name: value for name, value in sample.columns.items() if name in wanted}

    def _extracted(self, metric: Metric, said: str | None) -> Json:
        """What a metric sees of an answer: what its pipeline finds; None for nothing."""
        if said is None:
            return None
        return self._pipelines[metric.extract](said) if metric.extract else said

    def _score(self, metric: Metric, line: InferenceLine) -> Score:
        definition = self._definitions[metric.key]
        if definition.measure is not None:
            return _of_text(definition, definition.measure, line)
        if self._weighs:
            return _of_choices(definition, line)
        scores = [self._of_answer(metric, definition, answer, line) for answer in _answers(line)]
        return reducing.mean(scores, weighted=definition.weight is not None) if line.turns else scores[0]

    def _of_answer(
        self, metric: Metric, definition: Definition, answer: _Answer, line: InferenceLine
    ) -> Score:
        weight = definition.weight(answer.accepted[0]) if definition.weight else 1
        found = self._extracted(metric, answer.said)
        if count := self._count.get(metric.key):
            counts = count("" if found is None else as_text(found), answer.accepted)
            score = CORPORA[KINDS[metric.name].aggregation].score(counts)
            return Score(extracted=_shown(metric, found), value=score, counts=list(counts))
        if found is None:
            return Score(value=definition.lowest(metric), weight=weight)
        verdict = self._verdict(metric, found, answer, line)
        return Score(
            extracted=_shown(metric, found),
            value=verdict.value,
            weight=weight,
            explanation=verdict.explanation,
        )

    def _verdict(self, metric: Metric, found: Json, answer: _Answer, line: InferenceLine) -> Verdict:
        if metric.judge:
            # What was judged is made already.
            return Verdict(metric.judge.highest, f"{metric.judge.unless} is 1")
        if metric.key in self._executions:
            where = f"sample {line.id}"
            return self._executions[metric.key].verdict(found, line.doc or {}, where)
        return self._compare[metric.key](found, answer.accepted)


def _answers(line: InferenceLine) -> list[_Answer]:
    """Every answer that was asked for, also those that a conversation never came to."""
    said = [request.output for request in line.requests]
    if not line.outcome.answered:
        said[-1] = None  # that is what ended it
    accepted = [a.references or [a.target] for a in line.turns or (line,)]
    return [_Answer(*pair) for pair in zip_longest(said, accepted)]


def _of_text(definition: Definition, measure: Callable[[float], float], line: InferenceLine) -> Score:
    weight = definition.weight(line.target) if definition.weight else 1
    log_likelihood = math.fsum(weighed.sum for weighed in line.requests[0].logprobs or ())
    return Score(value=measure(log_likelihood) / weight, weight=weight)


def _of_choices(definition: Definition, line: InferenceLine) -> Score:
    weighed = [Choice(c.sum, c.characters, c.bytes, c.greedy) for c in line.requests[0].logprobs or ()]
    right = {int(index) for index in line.references or [line.target]}
    if not weighed:
        return Score(value=definition.floor)
    if definition.right is not None:
        return Score(value=definition.right(weighed, right))
    if definition.choose is None:
        raise ValueError("a metric of choices picks one or weighs the right ones")
    found = choices.best(weighed, definition.choose)
    return Score(extracted=str(found), value=float(found in right))


def _shown(metric: Metric, found: Json) -> str | None:
    """What stands in the log: the whole answer stands there already."""
    return as_text(found) if metric.extract and found is not None else None


def _no_label(labels: Sequence[str], target: str) -> str | None:
    return None if target in labels else f"{target[:80]!r} is not among args.labels, {'|'.join(labels)[:200]}"
