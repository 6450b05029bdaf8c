"""A model of a hub, by real processes and real HTTP: the scores of its files, and nothing fetched in vain."""

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import hub_server
from tests.hub_server import Hub
from tests.runner_plans import TINY, run_plan, tiny_dataset, tiny_model
from tests.torch.processes import run, start

pytestmark = pytest.mark.torch
SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]


@dataclass(frozen=True)
class World:
    """A hub with the tiny model, and an empty cache."""

    hub: Hub
    variables: dict[str, str]

    def asked(self) -> list[str]:
        """What was asked since the last time, without the commit."""
        commit = self.hub.repository("models", "org/tiny").commit()
        found = [request.replace(commit, "COMMIT") for request in self.hub.requests]
        self.hub.requests.clear()
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "hub" / "models" / "org" / "tiny"
    shutil.copytree(TINY / "model", folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again")
    (folder / "README.md").write_text("# Tiny")
    hub = Hub(tmp_path / "hub")
    with hub_server.serve(hub) as url:
        yield World(hub, {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN_PATH": "/nowhere"})


def test_a_model_of_a_hub_scores_as_its_files_do(world: World, tmp_path: Path) -> None:
    """The second time from the cache alone, with one question: which commit is the branch?"""
    model = tiny_model(transformers={"source": "hf://org/tiny@main"})
    data = tiny_dataset("kind")
    first = run(tmp_path / "first", model, data, variables=world.variables)
    right = json.loads((TINY / "scores.json").read_text())["kind/Text"]
    assert {s.name: [s.stats[0].total, s.stats[0].n] for s in first.result.subsets} == right
    commit = world.hub.repository("models", "org/tiny").commit()
    assert first.result.provenance["weights"] == f"commit:{commit}"
    ways = ["/api/models/org/tiny/revision/main", "/api/models/org/tiny/tree/COMMIT"]
    files = [f"/org/tiny/resolve/COMMIT/{name}" for name in [*SMALL, "model.safetensors"]]
    assert sorted(world.asked()) == sorted(
        [f"GET {way}" for way in ways] + [f"{verb} {file}" for verb in ("HEAD", "GET") for file in files]
    )
    again = run(tmp_path / "again", model, data, variables=world.variables)
    assert again.result.inference_digest == first.result.inference_digest
    assert world.asked() == ["GET /api/models/org/tiny/revision/main"]


def test_what_can_be_refused_early_and_a_look_at_prompts_fetch_no_weights(
    world: World, tmp_path: Path
) -> None:
    model = tiny_model(transformers={"source": "hf://org/tiny@main"})
    process = start(
        tmp_path / "render", model, tiny_dataset("kind"), "--render", "1", variables=world.variables
    )
    with process:
        said, logged = process.communicate(timeout=120)
    assert process.returncode == 0, logged
    assert json.loads(said)["renderedBy"] == "Runner"
    empty = run(
        tmp_path / "empty",
        model,
        tiny_dataset("kind", limit=1),
        "--shard",
        "0/999",
        variables=world.variables,
    )
    assert empty.result.outcomes.expected == 0
    assert not [request for request in world.asked() if "model.safetensors" in request]


def test_a_repository_without_weights_is_refused_before_anything_is_fetched(
    world: World, tmp_path: Path
) -> None:
    folder = world.hub.root / "models" / "org" / "tiny"
    (folder / "model.safetensors").rename(folder / "model.gguf")
    (folder / "pytorch_model.bin").unlink()
    model = tiny_model(transformers={"source": "hf://org/tiny@main"})
    ended = run(tmp_path / "x", model, tiny_dataset("kind"), variables=world.variables)
    assert (ended.code, ended.failure.reason) == (78, "ModelNotFound")
    assert "no *.safetensors and no pytorch_model*.bin" in ended.failure.message
    assert not [request for request in world.asked() if "/resolve/" in request]


def test_a_folder_of_a_repository_and_the_clock_of_its_template_are_part_of_what_it_is(
    world: World, tmp_path: Path
) -> None:
    """Checkpoints of one training run are often folders; empty shards tell all of it without loading any."""
    top = world.hub.root / "models" / "org" / "tiny"
    shutil.copytree(TINY / "model", top / "checkpoint-1")
    config = json.loads((top / "tokenizer_config.json").read_text())
    clock = {**config, "chat_template": "{{ strftime_now('%Y') }}"}
    (top / "checkpoint-1" / "tokenizer_config.json").write_text(json.dumps(clock))

    def digest(name: str, path: str, date: dt.date) -> str:
        source = {"source": f"hf://org/tiny@main{path}"}
        model = tiny_model(promptFormat="Chat", transformers=source)
        data = tiny_dataset("kind", limit=1)
        more: dict[str, Any] = {"variables": world.variables, "run": run_plan(date=date)}
        found = run(tmp_path / name, model, data, "--shard", "0/999", **more).result
        assert found.provenance["weights"] == f"commit:{world.hub.repository('models', 'org/tiny').commit()}"
        return found.inference_digest

    first, later = dt.date(2026, 1, 31), dt.date(2026, 2, 1)
    whole, folder = digest("whole", "", first), digest("folder", "/checkpoint-1", first)
    assert len({whole, folder, digest("later", "/checkpoint-1", later)}) == 3
    assert digest("whole-later", "", later) == whole
