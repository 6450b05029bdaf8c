"""The runner as Kubernetes sees it: signals, deadlines, a second attempt, preview of prompts."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from evaljob.spec import Model
from tests.runner_plans import TINY, planned, run_plan, tiny_dataset, tiny_model
from tests.stub_server import Script, serve
from tests.torch.processes import end, lines, run, start
from tests.unit.test_runner_data import lines as jsonl
from tests.unit.test_runner_data import task

pytestmark = pytest.mark.torch
CAPITALS = planned(task(), inline={"jsonl": jsonl([{"q": f"q{i}", "a": "Paris"} for i in range(40)])})


def slow(url: str) -> Model:
    openai = {"url": url, "model": "m", "maxConcurrency": 1}
    return Model.model_validate({"name": "slow", "promptFormat": "Chat", "openai": openai})


def when_logged(folder: Path, count: int, timeout: float = 60) -> None:
    """Wait until that many lines are in the log."""
    deadline = time.monotonic() + timeout
    while len(lines(folder)) < count:
        assert time.monotonic() < deadline, "nothing was logged"
        time.sleep(0.05)


def answered(folder: Path) -> set[str]:
    found = (json.loads(text) for text in lines(folder))
    return {item["id"] for item in found if item["kind"] == "inference"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_seconds_and_the_next_attempt_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = Script("slow", delay=0.2)
    with serve(script) as url:
        process = start(tmp_path, slow(url), CAPITALS)
        when_logged(tmp_path, 6)
        os.kill(process.pid, number)
        began = time.monotonic()
        found = end(process, tmp_path, timeout=20)
        assert time.monotonic() - began < 5
        assert (found.code, found.failure.reason, found.failure.attempt) == (75, "Interrupted", "a-1")
        done = answered(tmp_path)
        assert len(done) >= 3
        script.mode, asked = "ok", len(script.requests)
        again = run(tmp_path, slow(url), CAPITALS, attempt="a-2")
    assert again.code == 0
    assert again.result.outcomes.from_log == len(done)
    assert len(script.requests) - asked == 40 - len(done)
    assert answered(tmp_path) == {str(i) for i in range(40)}


def test_a_request_that_never_returns_does_not_hold_up_the_end(tmp_path: Path) -> None:
    script = Script("silent")
    with serve(script) as url:
        process = start(tmp_path, slow(url), CAPITALS)
        while not script.requests:
            time.sleep(0.05)
        began = time.monotonic()
        process.terminate()
        found = end(process, tmp_path, timeout=20)
    assert time.monotonic() - began < 5
    assert found.code == 75


@pytest.mark.parametrize(
    ("output", "mode", "seconds", "code"),
    [(True, "slow", 10, 75), (False, "slow", 3, 78), (True, "silent", 3, 78)],
    ids=["it can go on", "nothing is kept", "nothing was added"],
)
def test_the_soft_deadline_asks_for_another_attempt_only_if_that_can_help(
    tmp_path: Path, output: bool, mode: str, seconds: int, code: int
) -> None:
    with serve(Script(mode, delay=0.4)) as url:
        limits = {"partition_deadline_seconds": seconds} | ({} if output else {"output": None})
        found = end(start(tmp_path, slow(url), CAPITALS, run=run_plan(**limits)), tmp_path)
    assert (found.code, found.failure.reason) == (code, "DeadlineExceeded")
    assert ("raise partitionDeadlineSeconds" in found.failure.message) == (code == 78)


def test_a_report_that_cannot_be_written_is_never_a_success(tmp_path: Path) -> None:
    with serve(Script()) as url:
        process = start(tmp_path, slow(url), CAPITALS, "--result", str(tmp_path / "no" / "such" / "folder"))
        with process:
            process.communicate(timeout=60)
    assert process.returncode not in (0, 78)


def test_render_needs_no_model_weights(tmp_path: Path) -> None:
    """The tokenizer alone, from a folder without weights."""
    folder = tmp_path / "models" / "model"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TINY / "model" / name).read_bytes())
    process = start(
        tmp_path,
        tiny_model(promptFormat="Chat"),
        tiny_dataset("kind"),
        *("--render", "3", "--mount", f"models={folder.parent}"),
    )
    with process:
        said, logged = process.communicate(timeout=120)
    assert process.returncode == 0, logged
    prompts = [json.loads(text) for text in said.splitlines()]
    assert len(prompts) == 3
    assert prompts[0]["text"].endswith("<|im_start|>assistant\n")
    assert [c["text"] for c in prompts[0]["choices"]] == ["A", "B", "C", "D"]


def test_the_process_of_a_served_model_never_imports_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image for servers does not hold it; where it is installed it would cost seconds."""
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with serve(Script()) as url:
        assert run(tmp_path, slow(url), CAPITALS).code == 0
