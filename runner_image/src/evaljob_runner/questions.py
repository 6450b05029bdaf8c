"""What judges are to be asked about answers, and the scores in what they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaljob.rubric import Rubric
from evaljob.scoring import Metric
from evaljob_runner import reducing
from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Judges, as_text
from evaljob_runner.samples import ERROR_MESSAGE_MAX, InferenceLine, Judgement, Score


@dataclass(frozen=True)
class Question:
    """What a judge is to be asked about a finished answer, or about each turn of a conversation."""

    metric: Metric
    judging: Judges
    line: InferenceLine
    answers: list[Json]
    """What is judged, turn by turn; None where there is no answer."""
    accepted: list[list[str]]

    @property
    def rubric(self) -> Rubric:
        """How the judge scores."""
        if self.metric.judge is None:
            raise ValueError(f"metric {self.metric.key} has no judge")
        return self.metric.judge

    def messages(self, turn: int) -> tuple[Mapping[str, Any], ...]:
        """What the judge is asked about one turn, in OpenAI's shape.

        Raises:
            Fatal: BadData.
        """
        said = ["" if answer is None else as_text(answer) for answer in self.answers[: turn + 1]]
        own = {
            "answer": said[-1],
            "answers": said,
            "turn": turn,
            "target": self.accepted[turn][0],
            "references": self.accepted[turn],
        }
        return self.judging.messages({**(self.line.doc or {}), **own}, f"sample {self.line.id}")

    def score(self, turn: int, judgement: Judgement) -> Score | None:
        """The score in a judgement, or None where there is none."""
        verdict = self.judging.verdict(judgement.output)
        if verdict is None:
            return None
        return Score(
            extracted=as_text(self.answers[turn]) if self.metric.extract else None,
            value=verdict.value,
            explanation=(verdict.explanation or "")[:ERROR_MESSAGE_MAX],
            judgement=judgement,
        )

    def whole(self, turns: list[Score]) -> Score:
        """The score of the answer: that of its only turn, or the mean over all."""
        return reducing.mean(turns, weighted=False) if self.line.turns else turns[0]
