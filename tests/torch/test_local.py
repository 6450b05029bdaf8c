"""`evaljob` on this machine with the real runner and the tiny model, against scores that no code of ours made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaljob.summary import CellState, Summary

TINY = Path(__file__).parents[1] / "tiny"
REFERENCE = json.loads((TINY / "scores.json").read_text())
pytestmark = pytest.mark.torch


def evaljob() -> str:
    """The tiny model as Text on two shards of mc, and as Chat on chat."""
    transformers = {"source": "pvc://tiny/model", "dtype": "float32", "device": "CPU"}
    datasets = [
        {
            "name": name,
            "taskSpec": yaml.safe_load((TINY / "tasks" / f"{name}.yaml").read_text()),
            "source": f"pvc://tiny/data/{name}.jsonl",
            "shards": shards,
        }
        for name, shards in (("mc", 2), ("chat", 1))
    ]
    spec = {
        "models": [
            {"name": kind.lower(), "promptFormat": kind, "transformers": transformers}
            for kind in ("Text", "Chat")
        ],
        "datasets": datasets,
        "exclude": [{"model": "text", "dataset": "chat"}, {"model": "chat", "dataset": "mc"}],
        "backoffLimit": 0,
        "parallelism": 2,
    }
    document = {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": "tiny"},
        "spec": spec,
    }
    return yaml.safe_dump(document)


def call(folder: Path, command: str, *options: str, mount: bool = True) -> str:
    """Standard output of `evaljob` in a process of its own, which must succeed."""
    given = ["tiny.yaml", "--mount", f"tiny={TINY}"] if mount else []
    ended = subprocess.run(
        [sys.executable, "-m", "evaljob_cli", command, *given, *options],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the EvalJob has run once."""
    found = tmp_path_factory.mktemp("local")
    (found / "tiny.yaml").write_text(evaljob())
    (found / "table").write_text(call(found, "run"))
    return found


def summary(folder: Path) -> Summary:
    return Summary.model_validate_json((folder / "tiny-out" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("model", "dataset", "reference"), [("text", "mc", "mc/Text"), ("chat", "chat", "chat/Chat")]
)
def test_every_subset_scores_as_the_reference(folder: Path, model: str, dataset: str, reference: str) -> None:
    """Right answers and questions of each topic, over two shards as over one."""
    cell = next(c for c in summary(folder).cells if (c.model, c.dataset) == (model, dataset))
    scores = {p.name: next(s for s in p.scores if s.primary) for p in cell.parts if p.kind == "subset"}
    found = {name: [round((s.value or 0) * s.n, 6), s.n] for name, s in scores.items()}
    assert found == REFERENCE[reference]


def test_the_table_is_printed_and_the_files_are_written(folder: Path) -> None:
    table = (folder / "table").read_text()
    assert "Complete: 3 of 3 partitions succeeded" in table
    assert table.count("excluded") == 2
    assert {"summary.json", "summary.csv", "summary.md"} <= {p.name for p in (folder / "tiny-out").iterdir()}


def test_samples_can_be_looked_at_in_a_runners_log(folder: Path) -> None:
    (log,) = (folder / "tiny-out" / "attempts").glob("tiny-chat-chat-*/runner.log")
    out = call(folder, "preview", str(log), mount=False)
    assert out.count("\ntarget: ") >= 5
    assert ": Answered, " in out


def test_a_second_run_computes_only_what_the_sample_logs_lack(folder: Path) -> None:
    before = summary(folder)
    (log,) = (folder / "tiny-out" / "samples" / "chat" / "chat").glob("*.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    lost = {json.loads(line)["id"] for line in (lines[0], lines[-1])}
    kept = [line for line in lines if json.loads(line)["id"] not in lost]
    log.write_text("".join(kept) + lines[0][:40])
    call(folder, "run")
    after = summary(folder)
    from_log = {
        c.dataset: c.outcomes.from_log for c in after.cells if c.state is CellState.COMPLETE and c.outcomes
    }
    assert from_log == {"mc": 65, "chat": 48 - 2}
    assert [c.parts for c in after.cells] == [c.parts for c in before.cells]


def test_render_shows_what_was_tokenised(folder: Path) -> None:
    out = call(folder, "render", "--model", "chat", "--dataset", "chat", "--token-ids")
    assert "<|im_start|>user\n" in out
    assert "maxTokens 48 (task)" in out
    assert "token ids: 1 282 201 " in out
