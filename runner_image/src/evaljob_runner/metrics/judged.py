"""An LLM as judge: what it is asked about an answer, and what its words are worth.

Who asks it is `evaljob_runner.judging`.
"""

from collections.abc import Mapping
from typing import Any

from evaljob.scoring import Metric
from evaljob_runner import templates
from evaljob_runner.extract import Pipeline
from evaljob_runner.metrics.base import Columns, Definition, Verdict, as_text

OWN: Mapping[str, Any] = {"answer": "", "answers": [""], "turn": 0, "target": "", "references": [""]}
"""What templates see beside the document, as it is before there is an answer."""


class Judging:
    """A judged metric, ready to score.

    Args:
        metric: with `judge`.
        read: the pipeline that finds the verdict in what the judge says.

    Raises:
        Fatal: BadConfiguration, for a bad template.
    """

    def __init__(self, metric: Metric, read: Pipeline) -> None:
        rubric, field = metric.judge, f"metrics.{metric.key}.judge"
        if rubric is None:
            raise ValueError(f"{field}: missing")
        self._rubric, self._read = rubric, read
        self._prompt = templates.text(f"{field}.prompt", rubric.prompt or "")
        self._messages = templates.value(f"{field}.messages", rubric.messages) if rubric.messages else None
        self.columns = (self._messages or self._prompt).variables - OWN.keys()

    def check(self, columns: Columns, where: str) -> None:
        """Refuse a document that does not fit the template.

        Raises:
            Fatal: BadData.
        """
        self.messages({**columns, **OWN}, where)

    def messages(self, columns: Columns, where: str) -> tuple[Mapping[str, Any], ...]:
        """What the judge is asked.

        Args:
            columns: of the document, and what `OWN` names.
            where: names the document in messages.

        Raises:
            Fatal: BadData.
        """
        if self._messages:
            return self._messages.conversation(columns, where)
        return ({"role": "user", "content": self._prompt.render(columns, where)},)

    def verdict(self, said: str) -> Verdict | None:
        """The score in what the judge says, with its own word for it; None where there is none."""
        found = self._read(said)
        score = None if found is None else self._rubric.score(as_text(found))
        return None if score is None else Verdict(score, as_text(found))


METRICS: Mapping[str, Definition] = {"llm_judge": Definition(judge=Judging)}
