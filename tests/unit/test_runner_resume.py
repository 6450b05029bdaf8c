"""A partition goes on after anything; its scores can be made again without its model."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaljob.names import Reason
from evaljob.result import PartitionResult
from evaljob_runner import data, recording
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.scripted import Characters, ScriptedBackend
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from evaljob_runner.samplelog import SampleLog
from evaljob_runner.samples import ScoreLine
from tests.runner_plans import assignment, planned, tiny_model
from tests.unit.test_runner_data import lines, task
from tests.unit.test_runner_evaluate import Outside, answers, capitals, logged, run

STRICT = {"metrics": [{"name": "exact_match", "primary": True}]}


class WithBos(Characters):
    """Every prompt of these tests begins with two of them."""

    bos_id = ord("q")


def only_scores(work: Assignment) -> PartitionResult:
    """The runner with --score-only, where no model can be loaded."""

    def absent(_: Assignment, __: Checkpoint | None) -> ScriptedBackend:
        pytest.fail("the model was loaded")

    outside = Outside()
    return evaluate(
        work, Shell(absent, Progress(outside.said), Stopwatch(), outside.logs.append, score_only=True)
    )


def projection(found: PartitionResult) -> dict[str, Any]:
    """A result without what an attempt adds: its name, times, tokens, device, what it took over."""
    kept = found.model_copy(update={"outcomes": found.outcomes.model_copy(update={"from_log": 0})})
    return kept.model_dump(exclude={"attempt", "seconds", "tokens", "device"})


def test_a_finished_partition_loads_no_model_and_ends_as_it_did(tmp_path: Path) -> None:
    """Its result was lost, for example with its node: one process start, no inference. The lint stays too."""
    rows = [{"q": f"qq{i}", "a": "a"} for i in range(3)]
    whole = run(capitals(tmp_path, rows=rows), answers(lambda _: "a", tokenizer=WithBos()))
    assert ("DoubledBos", 3) in [(item.code, item.count) for item in whole.lint]
    outside = Outside()
    again = outside.run(capitals(tmp_path, rows=rows, attempt="a-2"))
    assert outside.opened == 0
    assert (again.outcomes.from_log, again.device) == (3, "none")
    assert projection(again) == projection(whole)


@pytest.mark.parametrize("subsets", [None, {"column": "s"}])
def test_a_shard_too_large_for_the_memory_ends_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subsets: dict[str, str] | None
) -> None:
    """Documents are read as they are asked for, answers are read back from the log; subsets may be mixed."""
    rows = [{"q": f"q{i}", "a": "a", "s": str(i % 3), "c": str(i % 5)} for i in range(20)]
    dataset = planned(task(subsets=subsets, cluster="{{ c }}"), inline={"jsonl": lines(rows)})

    def evaluated(out: str) -> PartitionResult:
        said = answers(lambda q: "a" if int(q[1:]) % 2 else "b")
        return run(assignment(tiny_model(), dataset, tmp_path / out), said)

    small = evaluated("small")
    for module in (data, recording):
        monkeypatch.setattr(module, "KEPT", 3)
    monkeypatch.setattr(data, "AT_ONCE", 4)
    large = evaluated("large")
    assert projection(large) == projection(small)
    assert logged(tmp_path / "large") == logged(tmp_path / "small")


def test_data_that_change_while_they_are_read_give_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "KEPT", 3)
    path = tmp_path / "rows.jsonl"
    path.write_text(lines([{"q": f"q{i}", "a": "a"} for i in range(6)]))
    work = assignment(
        tiny_model(), planned(task(), source="pvc://data/rows.jsonl"), tmp_path / "out", data=tmp_path
    )

    def changes(question: str) -> str:
        if question == "q2":
            os.utime(path, ns=(0, 0))
        return "a"

    with pytest.raises(Fatal, match=r"rows\.jsonl: the data changed while it was read") as caught:
        run(work, answers(changes))
    assert caught.value.reason is Reason.BAD_DATA


def test_scores_are_made_again_when_a_metric_changes(tmp_path: Path) -> None:
    before = run(capitals(tmp_path), answers(lambda _: "it is a0"))
    work = capitals(tmp_path, attempt="a-2")
    changed = planned(task(**STRICT), inline={"jsonl": work.planned.dataset.inline.jsonl})  # type: ignore[union-attr]
    found = only_scores(dataclasses.replace(work, planned=changed))
    assert found.inference_digest == before.inference_digest
    assert [s.stats[0].total for s in (before.subsets[0], found.subsets[0])] == [1, 0]
    scores = [item for item in logged(tmp_path) if item["kind"] == "score"]
    assert [set(item["scores"]) for item in scores[6:]] == [{"exact_match"}] * 6
    assert sum(item["kind"] == "inference" for item in logged(tmp_path)) == 6


def test_scores_that_are_in_the_log_are_not_written_again(tmp_path: Path) -> None:
    run(capitals(tmp_path), answers(lambda _: "a0"))
    before = logged(tmp_path)
    only_scores(capitals(tmp_path, attempt="a-2"))
    assert logged(tmp_path) == before


def test_score_only_refuses_what_the_log_lacks_and_says_how_much(tmp_path: Path) -> None:
    run(capitals(tmp_path, shard=(0, 2)), answers(lambda _: "a0"))
    with pytest.raises(Fatal, match=r"--score-only: 3 of 6 answers are not in the sample log") as caught:
        only_scores(capitals(tmp_path, attempt="a-2"))
    assert caught.value.reason is Reason.SAMPLES_LEFT


def test_another_prompt_is_another_log_and_the_old_one_is_kept(tmp_path: Path) -> None:
    run(capitals(tmp_path), answers(lambda _: "a0"))
    old = logged(tmp_path)
    dataset = planned(task(prompt="So: {{ q }}"), inline={"jsonl": lines([{"q": "q0", "a": "a0"}])})
    work = assignment(tiny_model(), dataset, tmp_path, attempt="a-2")
    with pytest.raises(Fatal, match="1 of 1 answers"):
        only_scores(work)
    assert run(work, answers(lambda _: "a0")).outcomes.from_log == 0
    assert logged(tmp_path)[: len(old)] == old


def test_attempts_at_once_count_every_sample_once(tmp_path: Path) -> None:
    """Two pods of one partition, the older one believed dead: both answer everything."""
    late = answers(lambda _: "a0")

    def first(question: str) -> str:
        if question == "q3":
            run(capitals(tmp_path, attempt="a-2"), late)
        return "a0"

    found = run(capitals(tmp_path), answers(first))
    assert len(late.asked) == 3, "the second attempt took over what the first had finished by then"
    third = Outside()
    merged = third.run(capitals(tmp_path, attempt="a-3"))
    assert third.opened == 0
    assert projection(merged) == projection(found)
    assert merged.subsets[0].stats[0].n == 6


@pytest.mark.parametrize(
    "tail", [b"\x00" * 4096, b'{"kind": "inference", "id": "\xff\xfe"}\n', b"[]\n", b"\n\n"]
)
def test_garbage_that_a_lost_node_leaves_is_dropped(tmp_path: Path, tail: bytes) -> None:
    whole = run(capitals(tmp_path), answers(lambda _: "a0"))
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + tail)
    outside = Outside()
    assert projection(outside.run(capitals(tmp_path, attempt="a-2"))) == projection(whole)
    assert outside.opened == 0


def test_a_log_torn_at_any_byte_costs_at_most_its_last_sample(tmp_path: Path) -> None:
    """Whatever prefix of the file a kill leaves, whole lines count and the rest does not."""
    run(capitals(tmp_path / "whole"), answers(lambda _: "a0"))
    (path,) = (tmp_path / "whole").rglob("*.jsonl")
    content = path.read_bytes()
    digest = json.loads(content.splitlines()[0])["inferenceDigest"]
    folder = tmp_path / "torn"
    folder.mkdir()
    for size in range(0, len(content), 37):
        (folder / "a-1.jsonl").write_bytes(content[:size])
        log = SampleLog(folder, "a-2", digest)
        log.close()
        whole = [
            json.loads(text) for text in content[: size + 1].splitlines(keepends=True) if _is_whole(text)
        ]
        assert sum(log.has((str(i), 0)) for i in range(6)) == sum(
            item["kind"] == "inference" for item in whole
        )


def _is_whole(text: bytes) -> bool:
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


def test_a_score_is_known_by_all_that_it_says(tmp_path: Path) -> None:
    run(capitals(tmp_path), answers(lambda _: "a0"))
    found = [item for item in logged(tmp_path) if item["kind"] == "score"]
    log = SampleLog(tmp_path / "tiny" / "set", "reader", found[0]["inferenceDigest"])
    log.close()
    line = ScoreLine.model_validate(found[0])
    assert log.holds(line)
    assert not log.holds(line.model_copy(update={"repeat": 1}))
    assert log.has(("0", 0))
