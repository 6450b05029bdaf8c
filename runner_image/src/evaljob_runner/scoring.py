"""Inference lines -> outcomes and scores. Needs the sample log only, so scores can be made again."""

from evaljob.task import Metric, Task
from evaljob_runner import extract, metrics
from evaljob_runner.extract import Json
from evaljob_runner.samples import InferenceLine, Outcome, Score, ScoreLine


class Scorer:
    """A task's pipelines and metrics, compiled.

    Raises:
        Fatal: BadConfiguration, for a bad metric or argument.
    """

    def __init__(self, task: Task) -> None:
        self.info = metrics.info(task)
        self._task = task
        self._pipelines = extract.pipelines(task)

    def score(self, line: InferenceLine) -> tuple[Outcome, ScoreLine]:
        """How a finished sample ended, and its scores."""
        outcome = line.outcome
        if outcome in (Outcome.ANSWERED, Outcome.NO_ANSWER):
            found = self._extracted(self._task.primary, line) is not None
            outcome = Outcome.ANSWERED if found else Outcome.NO_ANSWER
        scores = {m.key: self._score(m, line) for m in self._task.metrics}
        return outcome, ScoreLine(id=line.id, inference_digest=line.inference_digest, scores=scores)

    def _extracted(self, metric: Metric, line: InferenceLine) -> Json:
        """What a metric sees: the pick among choices, or what its pipeline finds; None for no answer."""
        if not line.outcome.answered:
            return None
        definition = metrics.REGISTRY[metric.name]
        request = line.requests[0]
        if definition.choose is not None:
            weighed = [metrics.Choice(c.sum, c.characters, c.bytes) for c in request.logprobs or ()]
            return metrics.best(weighed, definition.choose)
        output = request.output or ""
        return self._pipelines[metric.extract](output) if metric.extract else output

    def _score(self, metric: Metric, line: InferenceLine) -> Score:
        definition = metrics.REGISTRY[metric.name]
        found = self._extracted(metric, line)
        if found is None:
            return Score(value=definition.floor)
        if definition.score is None:
            return Score(extracted=str(found), value=float(found == int(line.target)))
        value = float(definition.score(found, line.target, metric.args))
        return Score(extracted=metrics.as_text(found) if metric.extract else None, value=value)
