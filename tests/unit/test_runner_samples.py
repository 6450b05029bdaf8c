"""The sample log: what a kill leaves, what the next attempt takes over."""

import errno
import io
import json
import os
import resource
import sys
from pathlib import Path

import pytest

from evaljob.framing import decode
from evaljob.names import Reason
from evaljob.result import Failure
from evaljob_runner.ending import EXIT_TRY_AGAIN, Ending
from evaljob_runner.errors import Retry
from evaljob_runner.samplelog import SampleLog
from evaljob_runner.samples import Error, InferenceLine, Outcome, Request, Score, ScoreLine


def line(name: str, *, digest: str = "i", outcome: Outcome = Outcome.ANSWERED) -> InferenceLine:
    request = Request(prompt="p" * 100, rendered_by="Runner", prompt_digest="d", output="o")
    error = None if outcome.final else Error(kind="InfraError", message="gone")
    return InferenceLine(
        id=name,
        doc_digest="d",
        inference_digest=digest,
        attempt="a",
        outcome=outcome,
        error=error,
        requests=[request],
        target="t",
    )


def score(name: str, digest: str = "i") -> ScoreLine:
    return ScoreLine(id=name, inference_digest=digest, scores={"acc": Score(value=1.0)})


def write(folder: Path, attempt: str, *lines: InferenceLine | ScoreLine, digest: str = "i") -> SampleLog:
    log = SampleLog(folder, attempt, digest)
    for item in lines:
        log.append(item)
    log.close()
    return log


def read(folder: Path, digest: str = "i") -> SampleLog:
    log = SampleLog(folder, "reader", digest)
    log.close()
    return log


def finished(log: SampleLog) -> set[str]:
    return {name for name in "123" if log.has((name, 0))}


def test_the_next_attempt_finds_what_earlier_ones_finished(tmp_path: Path) -> None:
    write(tmp_path, "a", line("1"), score("1"), line("2"))
    write(tmp_path, "b", line("3"))
    found = read(tmp_path)
    assert finished(found) == {"1", "2", "3"}
    assert (found.holds(score("1")), found.holds(score("2"))) == (True, False)
    assert [found.answer((name, 0)).id for name in "321"] == ["3", "2", "1"]
    found.close()


def test_an_answer_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    log = SampleLog(tmp_path, "b", "i")
    log.append(line("1"), score("1"))
    log.append(line("2"))
    assert [log.answer((name, 0)) for name in "21"] == [line("2"), line("1")]
    assert not log.inherited(("1", 0))
    log.close()
    again = read(tmp_path)
    assert again.answer(("1", 0)) == line("1")
    assert again.inherited(("1", 0))
    again.close()


def test_of_two_answers_the_first_counts_and_of_two_scores_each_is_known(tmp_path: Path) -> None:
    other = line("1").model_copy(update={"target": "other"})
    changed = ScoreLine(id="1", inference_digest="i", scores={"acc": Score(value=0.5)})
    write(tmp_path, "a", line("1"), score("1"))
    write(tmp_path, "b", other, changed)
    found = read(tmp_path)
    assert found.answer(("1", 0)).target == line("1").target
    assert found.holds(score("1"))
    assert found.holds(changed)
    found.close()


def test_a_log_that_somebody_empties_means_try_again(tmp_path: Path) -> None:
    log = write(tmp_path, "a", line("1"))
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(Retry, match="was changed meanwhile: 1"):
        log.answer(("1", 0))
    log.close()


def test_lines_of_another_digest_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "a", line("1", digest="old"))
    before = (tmp_path / "a.jsonl").read_bytes()
    assert not finished(read(tmp_path))
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_sample_without_an_answer_is_asked_again(tmp_path: Path) -> None:
    log = write(tmp_path, "a", line("1", outcome=Outcome.INFRA_ERROR))
    assert log.written == 0
    assert not finished(read(tmp_path))
    write(tmp_path, "b", line("1"))
    assert finished(read(tmp_path)) == {"1"}


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    write(tmp_path, "a", line("1"), line("2"))
    path = tmp_path / "a.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    expected = {"1"} if cut > 1 else {"1", "2"}  # the last byte is the newline only
    assert finished(read(tmp_path)) == expected


def test_the_same_attempt_may_go_on_after_a_torn_line(tmp_path: Path) -> None:
    write(tmp_path, "a", line("1"))
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"kind": "infer')
    write(tmp_path, "a", line("2"))
    assert finished(read(tmp_path)) == {"1", "2"}


def test_lines_are_on_disk_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    log = SampleLog(tmp_path, "a", "i")
    log.append(line("1"), score("1"))
    kinds = [json.loads(text)["kind"] for text in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert kinds == ["inference", "score"]
    assert log.written == 1
    log.close()


def test_a_full_volume_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SampleLog(tmp_path, "a", "i")
    log.close()
    with Path("/dev/full").open("ab", buffering=0) as full:
        monkeypatch.setattr(log, "_file", full)
        with pytest.raises(Retry, match="No space left on device; free or enlarge the volume") as caught:
            log.append(line("1"))
    assert caught.value.reason is Reason.OUTPUT_FULL
    assert log.written == 0


class Late(io.FileIO):
    """A file whose disk says only at its end that it is full."""

    def close(self) -> None:
        super().close()
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_a_volume_that_says_only_at_the_end_that_it_is_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write(tmp_path, "a")
    monkeypatch.setattr(log, "_file", Late(tmp_path / "a.jsonl", "ab"))
    with pytest.raises(Retry, match="Disk quota exceeded; free or enlarge the volume") as caught:
        log.close()
    assert caught.value.reason is Reason.OUTPUT_FULL


def test_a_signal_ends_with_its_report_whatever_the_log_says_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write(tmp_path, "a")
    monkeypatch.setattr(log, "_file", Late(tmp_path / "a.jsonl", "ab"))
    monkeypatch.setattr(os, "_exit", sys.exit)
    ending = Ending(tmp_path / "result")
    ending.watch(log)
    with pytest.raises(SystemExit) as caught:
        ending.leave(Retry(Reason.INTERRUPTED, "ended by SIGTERM"))
    assert caught.value.code == EXIT_TRY_AGAIN
    assert decode((tmp_path / "result").read_text()) == Failure(
        reason="Interrupted", message="ended by SIGTERM"
    )


def test_a_line_that_was_torn_by_a_write_that_failed_is_dropped(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the end of a volume."""
    log = SampleLog(tmp_path, "a", "i")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(Retry, match="cannot be used: File too large") as caught:
            log.append(line("1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.close()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert not finished(read(tmp_path))


def test_a_folder_that_cannot_be_made_means_try_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Retry, match="cannot be used"):
        SampleLog(tmp_path / "file" / "x", "a", "i")
