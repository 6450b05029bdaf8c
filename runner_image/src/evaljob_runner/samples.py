"""What is written down of a sample: lines of JSON, enough to score again without inference.

Key of a line: (sample id, repeat, inference digest).
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from evaljob.model import Frozen

SAMPLE_VERSION = 1
ERROR_MESSAGE_MAX = 2048
JUDGE_OUTPUT_MAX = 262144
"""Characters; a longer verdict is none."""
AnswerKey = tuple[str, int]
"""Sample id and repeat."""


class Outcome(StrEnum):
    """How a sample ended. All but the last are final and scored."""

    ANSWERED = "Answered"
    NO_ANSWER = "NoAnswer"
    """The primary metric's pipeline finds nothing."""
    REFUSED = "Refused"
    """The server's filter."""
    CONTEXT_OVERFLOW = "ContextOverflow"
    """Prompt and answer do not fit the model's window."""
    TRUNCATED = "Truncated"
    """The answer ran into maxTokens; it is scored as it is."""
    INFRA_ERROR = "InfraError"
    """No answer for a reason outside the model: the next attempt asks again."""

    @property
    def final(self) -> bool:
        """Whether no attempt can change it."""
        return self is not Outcome.INFRA_ERROR

    @property
    def answered(self) -> bool:
        """Whether there is a text or weights to score; otherwise the metric's floor counts."""
        return self in (Outcome.ANSWERED, Outcome.NO_ANSWER, Outcome.TRUNCATED)


class Choice(Frozen):
    """The log-likelihood of one choice, or of a whole text."""

    text: str
    """"" for a text, which is the line's target."""
    sum: float
    tokens: int | None = None
    """None where lm-eval weighed it."""
    characters: int
    bytes: int
    greedy: bool


class Request(Frozen):
    """One question to the model and its answer."""

    prompt: str | None = None
    """The text that was tokenised or sent."""
    messages: list[dict[str, Any]] | None = None
    """The messages that a server rendered."""
    rendered_by: Literal["Runner", "Server"]
    prompt_digest: str
    """SHA-256 of the token ids (Runner) or of what was sent (Server)."""
    prompt_tokens: int | None = None
    prompt_cut: int | None = None
    """Tokens of the prompt that the task's `truncate` left out."""
    doubled_bos: bool | None = None
    """Whether the token ids begin with BOS twice; left out where they do not."""
    few_shot_ids: list[str] | None = None
    output: str | None = None
    """What is scored; None where the model's thoughts do not end."""
    reasoning: str | None = None
    """What the model thought before its answer."""
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    output_tokens: int | None = None
    seed: int | None = None
    params: dict[str, Any] | None = None
    logprobs: list[Choice] | None = None
    seconds: float | None = None


class Error(Frozen):
    """Why a sample has no answer yet."""

    kind: str
    message: Annotated[str, Field(max_length=ERROR_MESSAGE_MAX)]


class Accepted(Frozen):
    """What one answer of a conversation is compared with."""

    target: str
    references: list[str] | None = None


class InferenceLine(Frozen):
    """What the model was asked and what it said."""

    kind: Literal["inference"] = "inference"
    v: int = SAMPLE_VERSION
    id: str
    subset: str = ""
    repeat: int = 0
    doc_digest: str
    inference_digest: str
    attempt: str
    outcome: Outcome
    error: Error | None = None
    requests: list[Request]
    """One, or one for each turn up to the one that ended the conversation."""
    doc: dict[str, Any] | None = None
    """The columns of the document that scoring needs."""
    target: str
    references: list[str] | None = None
    """All accepted answers, where the task has several."""
    turns: list[Accepted] | None = None
    """Of every answer that the conversation asks for, where the task asks for more than the last one."""


class Judgement(Frozen):
    """What a judge was asked about an answer, and what it said."""

    judge: str
    model: str
    digest: str
    """SHA-256 of all that decides what the judge says: where and how it is asked, and what."""
    request: str
    """The messages as JSON, the middle left out where they are long."""
    output: Annotated[str, Field(max_length=JUDGE_OUTPUT_MAX)]
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float | None = None


class Score(Frozen):
    """What one metric made of an answer."""

    extracted: str | None = None
    """What the metric's pipeline found (the whole answer, where it has none, is not repeated here)."""
    value: float
    weight: Annotated[int, Field(ge=1)] = 1
    """Items that `value` is the mean of."""
    counts: list[int] | None = None
    """N-grams of the answer and its references, where the metric is of the whole corpus."""
    turns: "list[Score] | None" = None
    """Of each turn, where `value` is their mean."""
    explanation: Annotated[str, Field(max_length=ERROR_MESSAGE_MAX)] | None = None
    judgement: Judgement | None = None


class Unscored(Frozen):
    """Why a metric has no score of an answer yet: the next attempt scores it again."""

    kind: Literal["ScorerError"] = "ScorerError"
    message: Annotated[str, Field(max_length=ERROR_MESSAGE_MAX)]
    judgements: list[Judgement] = Field(default_factory=list)


Made = Mapping[str, Score | Unscored]
"""What was made of an answer beside the model, by metric."""


class ScoreLine(Frozen):
    """The scores of one answer, by metric key; a sample's repeats are reduced later."""

    kind: Literal["score"] = "score"
    v: int = SAMPLE_VERSION
    id: str
    repeat: int = 0
    inference_digest: str
    scores: dict[str, Score]
    errors: dict[str, Unscored] | None = None
    """Metrics without a score."""

    @property
    def judgements(self) -> Iterator[Judgement]:
        """What judges said of the answer."""
        for score in self.scores.values():
            yield from (part.judgement for part in score.turns or (score,) if part.judgement)
        for error in (self.errors or {}).values():
            yield from error.judgements


def without_prompt(line: InferenceLine) -> InferenceLine:
    """What scoring and reporting need of a line: prompts of a large shard would fill the memory."""
    requests = [
        r.model_copy(update={"prompt": None, "messages": None, "reasoning": None}) for r in line.requests
    ]
    return line.model_copy(update={"requests": requests})


def without_words(line: ScoreLine) -> ScoreLine:
    """What counting needs of scores: of judgements no texts."""

    def bare(score: Score) -> Score:
        if score.judgement is None and score.turns is None:
            return score
        judgement = score.judgement and score.judgement.model_copy(update={"request": "", "output": ""})
        turns = score.turns and [bare(turn) for turn in score.turns]
        return score.model_copy(update={"judgement": judgement, "turns": turns})

    if next(line.judgements, None) is None:
        return line
    return line.model_copy(update={"scores": {key: bare(score) for key, score in line.scores.items()}})
