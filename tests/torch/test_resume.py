"""A partition goes on after anything: the same, by real processes with a real model."""

import json
import resource
from pathlib import Path

import pytest

from tests.runner_plans import TINY, tiny_dataset, tiny_model
from tests.torch.processes import Ended, end, lines, run, start

pytestmark = pytest.mark.torch
MODEL = tiny_model(transformers={"batchSize": 1})


def without_torch(folder: Path) -> dict[str, str]:
    """Variables of a process that cannot import torch."""
    folder.mkdir()
    for name in ("torch", "transformers"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A partition that is done, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, MODEL, tiny_dataset("gsm"))


def test_a_run_says_how_far_it_is_and_where_its_time_went(finished: tuple[Path, Ended]) -> None:
    """And its scores are the reference's (tests/tiny/scores.json), which every other test here compares with."""
    found = finished[1]
    assert json.loads(found.said.splitlines()[-1])["done"] == 64
    assert found.result.seconds.start > 0
    assert found.result.seconds.load > 0
    reference = json.loads((TINY / "scores.json").read_text())["gsm/Text"]
    assert {s.name: [s.stats[0].total, s.stats[0].n] for s in found.result.subsets} == reference


@pytest.mark.parametrize("options", [(), ("--score-only",)], ids=["resumed", "score only"])
def test_what_is_finished_needs_neither_torch_nor_the_model(
    finished: tuple[Path, Ended], tmp_path: Path, options: tuple[str, ...]
) -> None:
    folder, before = finished
    variables = without_torch(tmp_path / "modules")
    again = run(folder, MODEL, tiny_dataset("gsm"), *options, attempt="a-2", variables=variables)
    assert again.code == 0, again.logged
    assert again.result.outcomes.from_log == 64
    assert again.result.subsets == before.result.subsets


def test_score_only_never_asks_a_model(tmp_path: Path) -> None:
    found = run(tmp_path, MODEL, tiny_dataset("gsm"), "--score-only")
    assert (found.code, found.failure.reason) == (78, "SamplesLeft")
    assert "64 of 64 answers are not in the sample log" in found.failure.message


def test_a_full_disk_leaves_a_readable_log_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    """A limit on the size of its files stands in for the end of the disk; it is reached in mid-line."""
    process = start(tmp_path, MODEL, tiny_dataset("gsm"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    full = end(process, tmp_path)
    assert (full.code, full.failure.reason) == (75, "DependencyUnavailable")
    assert "the sample log in gsm/ cannot be used: File too large" in full.failure.message
    *whole, torn = lines(tmp_path)
    kept = {item["id"] for item in map(json.loads, whole) if item["kind"] == "inference"}
    assert 0 < len(kept) < 64
    assert torn not in ("", whole[-1])
    again = run(tmp_path, MODEL, tiny_dataset("gsm"), attempt="a-2")
    assert (again.code, again.result.outcomes.from_log) == (0, len(kept))


def test_two_attempts_at_once_on_one_volume_count_every_sample_once(
    finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    """A pod that was believed dead answers beside the one that took its place."""
    where = ("--out", str(tmp_path / "out"))
    dataset = tiny_dataset("gsm")
    both = {name: start(tmp_path / name, MODEL, dataset, *where, attempt=name) for name in ("a-1", "a-2")}
    for name, process in both.items():
        assert end(process, tmp_path / name, timeout=300).result.subsets == finished[1].result.subsets
    third = run(tmp_path, MODEL, dataset, attempt="a-3")
    assert third.result.outcomes.from_log == third.result.outcomes.completed == 64
    assert third.result.subsets == finished[1].result.subsets
