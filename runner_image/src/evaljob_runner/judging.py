"""Asks judges about answers, and takes over what they said in earlier attempts."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaljob.judges import Judge
from evaljob.task import Generation
from evaljob_runner import generation, reasoning
from evaljob_runner.assignment import Assignment, template_values
from evaljob_runner.backends.base import (
    Answer,
    Ask,
    ChatPrompt,
    Correspondent,
    Finish,
    GenerateRequest,
    Overflow,
    Unavailable,
)
from evaljob_runner.errors import Fatal
from evaljob_runner.questions import Question
from evaljob_runner.reasoning import Said
from evaljob_runner.samples import (
    ERROR_MESSAGE_MAX,
    JUDGE_OUTPUT_MAX,
    InferenceLine,
    Judgement,
    Made,
    Score,
    Unscored,
)
from evaljob_runner.scoring import Scorer

DEFAULTS = Generation(max_tokens=1024)
"""A judge explains itself before it decides."""
TRIES = 3
"""Times that a judge is asked for a verdict that can be read."""
GIVE_UP_AFTER = 10
"""Questions in a row without an answer: the judge is gone, and each of them waited for all its retries."""
REQUEST_MAX = 16384
"""Characters of a question that the sample log keeps."""
OpenJudge = Callable[[Judge, Path | None], Correspondent]
"""(judge, file of its API key) -> what asks it."""


class Manner:
    """How a judge is asked: resolved once, for all questions.

    Args:
        judge: who is asked.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.sampling = generation.resolve(DEFAULTS, judge.generation)
        self._template_args = template_values(judge.chat_template_args)

    def identity(self, question: object) -> str:
        """SHA-256 of who is asked, how, and what (any JSON value)."""
        endpoint, thinks = self.judge.openai, self.judge.reasoning
        asked = [
            endpoint.url,
            endpoint.model,
            dataclasses.asdict(self.sampling),
            self._template_args,
            thinks.model_dump(mode="json") if thinks else None,
            question,
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def request(self, key: str, messages: Sequence[Mapping[str, Any]], seed: int) -> GenerateRequest:
        """A question as the judge's server takes it."""
        told = reasoning.engine(self.sampling, self.judge.reasoning)
        return GenerateRequest(key, ChatPrompt(tuple(messages), self._template_args), told, seed)

    def said(self, reply: Answer) -> Said:
        """What the judge says, without its thoughts."""
        return reasoning.split(reply, self.judge.reasoning, self.sampling.stop)


@dataclass(frozen=True)
class _Case:
    """A question in the form that its judge takes."""

    manner: Manner
    question: Question
    turn: int
    request: GenerateRequest
    digest: str
    text: str
    """The messages, for the record."""

    def judgement(self, reply: Answer) -> Judgement:
        """A reply, for the record."""
        judge, said = self.manner.judge, self.manner.said(reply)
        words = said.answer or ""
        return Judgement(
            judge=judge.name,
            model=judge.openai.model,
            digest=self.digest,
            request=self.text,
            output=words[:JUDGE_OUTPUT_MAX],
            finish_reason="length" if len(words) > JUDGE_OUTPUT_MAX else said.finish.value,
            prompt_tokens=reply.prompt_tokens,
            output_tokens=reply.output_tokens,
            seconds=reply.seconds,
        )

    def score(self, said: Judgement) -> Score | None:
        """The score in a judgement. One that was cut has none: the verdict may be what is missing."""
        return self.question.score(self.turn, said) if said.finish_reason == Finish.STOP else None

    def problem(self, said: Judgement) -> str:
        """Why a judgement has no score, and what to do."""
        who = f"judge {self.manner.judge.name}"
        if said.finish_reason == Finish.LENGTH:
            limit = self.request.sampling.max_tokens
            fields = "generation.maxTokens"
            if self.manner.judge.reasoning:
                fields += " or reasoning.maxTokens"
            return f"{who}: cut after {limit} tokens, before it ended: raise spec.judges[].{fields}"
        if said.finish_reason == Finish.REFUSED:
            return f"{who}: the server's filter took its answer"
        if self.manner.judge.reasoning and not said.output:
            return f"{who}: nothing stands behind its thoughts, or they do not end (reasoning.end)"
        rubric = self.question.rubric
        wanted = f"extract {rubric.extract} finds none ({rubric.wanted})"
        advice = "mend judge.prompt or the pipeline; the sample log has all that it said"
        return f"{who}: {wanted} in {said.output[-200:]!r}, its last of {TRIES} answers: {advice}"


class Judges:
    """The judges of a partition. To be closed.

    Args:
        work: the partition.
        scorer: of its task.
        past: what judges said in earlier attempts, by digest.
        open_judge: gets ready to ask one.
    """

    def __init__(
        self, work: Assignment, scorer: Scorer, past: Mapping[str, Judgement], open_judge: OpenJudge
    ) -> None:
        self._work, self._scorer, self._past, self._open_judge = work, scorer, past, open_judge
        self._manners = {judge.name: Manner(judge) for judge in work.planned.judges}
        self._open: dict[str, Correspondent] = {}
        self._unanswered: Counter[str] = Counter()
        """In a row, by judge."""

    def begin(self, line: InferenceLine) -> list[Future[Made]]:
        """The scores by judged metrics, or why there are none.

        The future raises Fatal, where the judge's server refuses for good.
        """
        return [self._begin(question) for question in self._scorer.questions(line)]

    def _begin(self, question: Question) -> Future[Made]:
        name = question.rubric.name
        if name not in self._open:
            key_file = self._work.places.judge_key_files.get(name)
            self._open[name] = self._open_judge(self._manners[name].judge, key_file)
        return self._open[name].begin(partial(self._made, question))

    def close(self) -> None:
        """Leave what is not answered yet."""
        for correspondent in self._open.values():
            correspondent.close()

    async def _made(self, question: Question, ask: Ask) -> Made:
        scores: list[Score] = []
        for turn, answer in enumerate(question.answers):
            score = await self._score(question, turn, ask) if answer is not None else None
            if isinstance(score, Unscored):
                judged = [s.judgement for s in scores if s.judgement]
                both = {"judgements": [*judged, *score.judgements]}
                return {question.metric.key: score.model_copy(update=both)}
            scores.append(score or Score(value=question.rubric.lowest))
        return {question.metric.key: question.whole(scores)}

    async def _score(self, question: Question, turn: int, ask: Ask) -> Score | Unscored:
        case = self._case(question, turn)
        if past := self._past.get(case.digest):
            known = past.model_copy(update={"request": case.text})
            if score := case.score(known):
                return score
        try:
            return await self._asked(case, ask)
        except Fatal as error:
            raise Fatal(error.reason, f"spec.judges[{question.rubric.name}]: {error}") from error

    async def _asked(self, case: _Case, ask: Ask) -> Score | Unscored:
        """The score of a new judgement; the judge is asked again where it has none."""
        name = case.question.rubric.name
        message = f"judge {name}: not asked any more, it is gone"
        said: list[Judgement] = []
        for n in range(TRIES if self._unanswered[name] < GIVE_UP_AFTER else 0):
            match await ask(dataclasses.replace(case.request, seed=case.request.seed + n)):
                case Answer() as reply:
                    self._unanswered[name] = 0
                    said.append(case.judgement(reply))
                    if score := case.score(said[-1]):
                        return score
                    message = case.problem(said[-1])
                    if said[-1].finish_reason != Finish.STOP:
                        break  # it would be cut again
                case Unavailable(message=words):
                    self._unanswered[name] += 1
                    message = f"judge {name}: {words}"
                    break
                case Overflow(message=words):
                    message = f"judge {name}: the question does not fit its window: {words}"
                    break
        return Unscored(message=message[:ERROR_MESSAGE_MAX], judgements=said[-1:])

    def _case(self, question: Question, turn: int) -> _Case:
        messages, line = question.messages(turn), question.line
        manner = self._manners[question.rubric.name]
        seed = generation.seed_of(
            run=self._work.run.seed,
            task=f"{self._work.planned.task_name}/{question.metric.key}/{turn}",
            subset=line.subset,
            sample=line.id,
            repeat=line.repeat,
        )
        key = f"{line.id}#{line.repeat}/{question.metric.key}/{turn}"
        # A server may change behind its name, so its words are never shared between EvalJobs.
        asked = [self._work.run.uid, seed if manner.sampling.temperature else None, messages]
        text = json.dumps(messages, ensure_ascii=False)
        return _Case(
            manner=manner,
            question=question,
            turn=turn,
            request=manner.request(key, messages, seed),
            digest=manner.identity(asked),
            text=text
            if len(text) <= REQUEST_MAX
            else f"{text[: REQUEST_MAX // 2]}…{text[-REQUEST_MAX // 2 :]}",
        )
