"""A few samples on standard output, so that something wrong is seen before a partition has ended.

Whoever may read a pod's logs sees them; the operator does not.
"""

from collections import Counter
from typing import Literal, TextIO

from evaljob.preview import LINES_MAX, SamplePreview, bounded
from evaljob_runner.samples import InferenceLine, Outcome, Request, ScoreLine


class Preview:
    """Prints the first samples, the first wrong ones and the first without an answer or a score.

    Args:
        out: where lines go.
        primary: key of the metric that says what is wrong.
    """

    def __init__(self, out: TextIO, primary: str) -> None:
        self._out, self._primary = out, primary
        self._left = Counter(LINES_MAX)
        self._shown: set[str] = set()

    def show(self, line: InferenceLine, scores: ScoreLine | None = None) -> None:
        """Print a sample if it is one of those; `scores` may follow in a second call."""
        kind = self._kind(line, scores)
        if kind is None or line.id in self._shown:
            return
        self._left[kind] -= 1
        self._shown.add(line.id)
        request = line.requests[-1]
        found = SamplePreview(
            kind=kind,
            id=bounded(line.id),
            outcome=line.outcome,
            prompt=bounded(asked) if (asked := _asked(request)) else None,
            output=None if request.output is None else bounded(request.output),
            target=bounded(line.target),
            scores={key: score.value for key, score in scores.scores.items()} if scores else {},
            error=bounded(message) if (message := _error(line, scores)) else None,
        )
        print(found.to_json(), file=self._out, flush=True)

    def _kind(
        self, line: InferenceLine, scores: ScoreLine | None
    ) -> Literal["First", "Wrong", "Error"] | None:
        if line.outcome is Outcome.INFRA_ERROR or (scores and scores.errors):
            return "Error" if self._left["Error"] else None
        if self._left["First"]:
            return "First"
        wrong = scores is not None and scores.scores[self._primary].value == 0
        return "Wrong" if wrong and self._left["Wrong"] else None


def _error(line: InferenceLine, scores: ScoreLine | None) -> str | None:
    """Why there is no answer, or no score of it."""
    if line.error:
        return line.error.message
    return (
        next((error.message for error in scores.errors.values()), None) if scores and scores.errors else None
    )


def _asked(request: Request) -> str | None:
    if request.prompt is not None or not request.messages:
        return request.prompt
    return str(request.messages[-1].get("content", ""))
