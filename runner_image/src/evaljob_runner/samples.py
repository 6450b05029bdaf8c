"""The sample log: append-only JSON lines, one file per attempt, enough to score again without inference.

Key of a line: (sample id, repeat, inference digest). Readers take the union of all files of a folder: no locks,
and a retried partition recomputes no finished sample.
"""

import errno
import hashlib
import io
import logging
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field, TypeAdapter, ValidationError

from evaljob.model import Frozen
from evaljob.names import Reason
from evaljob_runner.columns import Names
from evaljob_runner.errors import Retry

SAMPLE_VERSION = 1
ERROR_MESSAGE_MAX = 2048
JUDGE_OUTPUT_MAX = 262144
"""Characters; a longer verdict is none."""
_log = logging.getLogger(__name__)
_FILE = 2**40
"""A place is the number of a file times this, and an offset."""
_NOWHERE = 2**64 - 1


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


_Line = TypeAdapter[InferenceLine | ScoreLine](
    Annotated[InferenceLine | ScoreLine, Field(discriminator="kind")]
)


class SampleLog:
    """The log of one attempt, with what earlier attempts left.

    Of an answer only the place is kept in memory, some 50 bytes: a shard may have a million.

    Args:
        folder: of this (model, dataset); all its shards and attempts write there.
        attempt: names the file.
        digest: lines of another inference digest are left alone and never used.

    Raises:
        Retry: when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, attempt: str, digest: str) -> None:
        self.folder, self._digest = folder, digest
        self._names = Names()
        """Of answers with a line of either kind."""
        self._places = array("Q")
        """Of final answers, by number: file and offset."""
        self._scores = array("Q")
        """Digest of an answer's scores, by number."""
        self._more_scores: set[int] = set()
        """Other digests of scores, where a metric has changed."""
        self.judgements: dict[str, Judgement] = {}
        """What judges said to earlier attempts, by digest, without their requests."""
        self.written = 0
        """Final answers that this attempt added."""
        self.judged = 0
        """Answers that it added a judge's words about."""
        own = folder / f"{attempt}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own.touch()
            others = sorted(path for path in folder.glob("*.jsonl") if path != own)
            self._paths = [*others, own]
            for number in range(len(self._paths)):
                self._read(number)
            self._reader = _Reader(self._paths)
            self._file = own.open("a+b", buffering=0)
            _end_torn_line(self._file)
            self._begin = self._end = len(others) * _FILE + self._file.tell()
        except OSError as error:
            raise _unusable(folder, error) from error

    def _read(self, number: int) -> None:
        path = self._paths[number]
        with path.open("rb") as file:
            for offset, line, text in _lines(file, path.name):
                if line.inference_digest == self._digest:
                    self._note(line, number * _FILE + offset, text)
                    if isinstance(line, ScoreLine):
                        self.judgements |= {
                            j.digest: j.model_copy(update={"request": ""}) for j in line.judgements
                        }

    def _note(self, line: InferenceLine | ScoreLine, place: int, text: bytes) -> None:
        """Keep what is needed to find a line again. The first answer to a question counts."""
        if isinstance(line, InferenceLine) and not line.outcome.final:
            return
        number = self._names.add(_name((line.id, line.repeat)))
        if number == len(self._places):
            self._places.append(_NOWHERE)
            self._scores.append(0)
        if isinstance(line, ScoreLine):
            if before := self._scores[number]:
                self._more_scores.add(before)
            self._scores[number] = _digest(text)
        elif self._places[number] == _NOWHERE:
            self._places[number] = place

    def _place(self, key: AnswerKey) -> int:
        number = self._names.number(_name(key))
        return _NOWHERE if number is None else self._places[number]

    def has(self, key: AnswerKey) -> bool:
        """Whether there is a final answer."""
        return self._place(key) != _NOWHERE

    def inherited(self, key: AnswerKey) -> bool:
        """Whether it is an earlier attempt's."""
        return self._place(key) < self._begin

    def answer(self, key: AnswerKey) -> InferenceLine:
        """A final answer, read back.

        Raises:
            Retry: when somebody has changed the log meanwhile.
        """
        try:
            line = _Line.validate_json(self._reader.line(self._place(key)))
        except (OSError, ValidationError) as error:
            raise self._changed(f"{key[0]}: {error}") from error
        if not isinstance(line, InferenceLine) or (line.id, line.repeat) != key:
            raise self._changed(key[0])
        return line

    def _changed(self, what: str) -> Retry:
        folder = self.folder.name
        return Retry(
            Reason.DEPENDENCY_UNAVAILABLE, f"the sample log in {folder}/ was changed meanwhile: {what[:200]}"
        )

    def holds(self, scores: ScoreLine) -> bool:
        """Whether this very score is in the log, from this attempt or another."""
        number = self._names.number(_name((scores.id, scores.repeat)))
        digest = _digest(f"{scores.to_json()}\n".encode())
        return number is not None and (self._scores[number] == digest or digest in self._more_scores)

    def append(self, *lines: InferenceLine | ScoreLine) -> None:
        """Write the lines of one answer at once; a kill may tear them, and then the reader drops them.

        Raises:
            Retry: when they cannot be written, for example because the disk is full.
        """
        written = [f"{line.to_json()}\n".encode() for line in lines]
        data = b"".join(written)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise _unusable(self.folder, error) from error
        for line, text in zip(lines, written, strict=True):
            self._note(line, self._end, text)
            self._end += len(text)
            self.written += isinstance(line, InferenceLine) and line.outcome.final
            self.judged += isinstance(line, ScoreLine) and next(line.judgements, None) is not None

    def close(self) -> None:
        """Close the files; everything is written already."""
        self._file.close()
        self._reader.close()


class _Reader:
    """Single lines of some files. One file is open at a time, as answers mostly follow each other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._number = -1
        self._file: BinaryIO = io.BytesIO()

    def line(self, place: int) -> bytes:
        """The line at a place.

        Raises:
            OSError: when the file is gone.
        """
        number, offset = divmod(place, _FILE)
        if number != self._number:
            self.close()
            self._file, self._number = self._paths[number].open("rb"), number
        self._file.seek(offset)
        return self._file.readline()

    def close(self) -> None:
        """Close the file that is open."""
        self._file.close()
        self._number = -1


def _name(key: AnswerKey) -> str:
    return f"{key[1]} {key[0]}"


def _digest(score_line: bytes) -> int:
    """Never 0."""
    return int.from_bytes(hashlib.blake2b(score_line, digest_size=8).digest()) or 1


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, InferenceLine | ScoreLine, bytes]]:
    """The intact lines of a log, each with its offset and its text. A killed attempt leaves a torn one."""
    offset = 0
    for number, raw in enumerate(file, start=1):
        try:
            yield offset, _Line.validate_json(raw), raw
        except ValidationError:
            _log.warning("sample log %s line %d is torn or of another version: dropped", name, number)
        offset += len(raw)


def _end_torn_line(file: io.FileIO) -> None:
    """An attempt that runs again under its name must not glue its first line to a torn one."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


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


def _unusable(folder: Path, error: OSError) -> Retry:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Retry(
        Reason.OUTPUT_FULL if full else Reason.DEPENDENCY_UNAVAILABLE,
        f"the sample log in {folder.name}/ cannot be used: {error.strerror}"
        + ("; free or enlarge the volume of spec.output, whole samples stay" if full else ""),
    )
