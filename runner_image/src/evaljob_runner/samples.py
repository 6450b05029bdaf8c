"""The sample log: append-only JSON lines, one file per attempt, enough to score again without inference.

Key of a line: (sample id, repeat, inference digest). Readers take the union of all files of a folder: no locks,
and a retried partition recomputes no finished sample.
"""

import errno
import hashlib
import logging
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field, TypeAdapter, ValidationError

from evaljob.model import Frozen
from evaljob.names import Reason
from evaljob_runner.errors import Retry

SAMPLE_VERSION = 1
ERROR_MESSAGE_MAX = 2048
_log = logging.getLogger(__name__)


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
    tokens: int
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


class Score(Frozen):
    """What one metric made of an answer."""

    extracted: str | None = None
    """What the metric's pipeline found (the whole answer, where it has none, is not repeated here)."""
    value: float
    weight: Annotated[int, Field(ge=1)] = 1
    """Items that `value` is the mean of."""
    turns: "list[Score] | None" = None
    """Of each turn, where `value` is their mean."""
    explanation: Annotated[str, Field(max_length=ERROR_MESSAGE_MAX)] | None = None


class ScoreLine(Frozen):
    """The scores of one answer, by metric key; a sample's repeats are reduced later."""

    kind: Literal["score"] = "score"
    v: int = SAMPLE_VERSION
    id: str
    repeat: int = 0
    inference_digest: str
    scores: dict[str, Score]


_Line = TypeAdapter[InferenceLine | ScoreLine](
    Annotated[InferenceLine | ScoreLine, Field(discriminator="kind")]
)


class SampleLog:
    """The log of one attempt, with what earlier attempts left.

    Args:
        folder: of this (model, dataset); all its shards and attempts write there.
        attempt: names the file.
        digest: lines of another inference digest are left alone and never used.

    Raises:
        Retry: when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, attempt: str, digest: str) -> None:
        self.folder, self._digest = folder, digest
        self.finished: dict[AnswerKey, InferenceLine] = {}
        """Final lines of earlier attempts, without prompts."""
        self._scores: set[bytes] = set()
        """Digests of all score lines: the lines themselves would fill the memory."""
        self.written = 0
        """Final answers that this attempt added."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.jsonl")):
                self._read(path)
            self._file = (folder / f"{attempt}.jsonl").open("ab", buffering=0)
            _end_torn_line(self._file, folder / f"{attempt}.jsonl")
        except OSError as error:
            raise _unusable(folder, error) from error

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in _lines(file, path.name):
                if line.inference_digest != self._digest:
                    continue
                if isinstance(line, ScoreLine):
                    self._scores.add(_digest(line))
                elif line.outcome.final:
                    self.finished.setdefault((line.id, line.repeat), without_prompt(line))

    def holds(self, scores: ScoreLine) -> bool:
        """Whether this very score is in the log, from this attempt or another."""
        return _digest(scores) in self._scores

    def append(self, *lines: InferenceLine | ScoreLine) -> None:
        """Write the lines of one answer at once; a kill may tear them, and then the reader drops them.

        Raises:
            Retry: when they cannot be written, for example because the disk is full.
        """
        data = "".join(line.to_json() + "\n" for line in lines).encode()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise _unusable(self.folder, error) from error
        self.written += sum(isinstance(line, InferenceLine) and line.outcome.final for line in lines)
        self._scores |= {_digest(line) for line in lines if isinstance(line, ScoreLine)}

    def close(self) -> None:
        """Close the file; everything is written already."""
        self._file.close()


def _digest(line: ScoreLine) -> bytes:
    return hashlib.blake2b(line.to_json().encode(), digest_size=16).digest()


def _lines(file: BinaryIO, name: str) -> Iterator[InferenceLine | ScoreLine]:
    """The intact lines of a log. A killed attempt leaves a torn one."""
    for number, raw in enumerate(file, start=1):
        try:
            yield _Line.validate_json(raw)
        except ValidationError:
            _log.warning("sample log %s line %d is torn or of another version: dropped", name, number)


def _end_torn_line(file: Any, path: Path) -> None:  # noqa: ANN401 - a raw binary file
    """An attempt that runs again under its name must not glue its first line to a torn one."""
    if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        file.write(b"\n")


def without_prompt(line: InferenceLine) -> InferenceLine:
    """What scoring and reporting need of a line: prompts of a large shard would fill the memory."""
    requests = [
        r.model_copy(update={"prompt": None, "messages": None, "reasoning": None}) for r in line.requests
    ]
    return line.model_copy(update={"requests": requests})


def _unusable(folder: Path, error: OSError) -> Retry:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Retry(
        Reason.OUTPUT_FULL if full else Reason.DEPENDENCY_UNAVAILABLE,
        f"the sample log in {folder.name}/ cannot be used: {error.strerror}"
        + ("; free or enlarge the volume of spec.output, whole samples stay" if full else ""),
    )
