"""Datasets of a hub, by real runner processes and real HTTP."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from evaljob.mounts import HUB_ROOM
from evaljob.plan import PlannedDataset
from evaljob.spec import Model
from tests import hub_server, stub_server
from tests.hub_server import TOKEN, Hub
from tests.runner_plans import planned
from tests.torch.processes import Ended, end, start
from tests.unit.test_runner_data import task

ROWS = [{"q": f"Question {i}", "a": "Paris" if i % 2 else "Rome", "s": f"topic-{i % 3}"} for i in range(8)]


def dataset(uri: str, **changes: Any) -> PlannedDataset:  # noqa: ANN401 - any field of the task
    few = {"splits": {"eval": "test", "fewShot": "dev"}, "fewShot": {"count": 1}, "subsets": {"column": "s"}}
    return planned(task(**(few | changes)), source=uri)


@dataclass(frozen=True)
class World:
    """A hub, a model that always says Paris, and a cache."""

    hub: Hub
    url: str
    model: Model
    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """What a runner has to know of the hub."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(self.home), "HF_TOKEN_PATH": "/nowhere"}

    def start(self, folder: Path, data: PlannedDataset, **variables: str) -> Callable[[], Ended]:
        """Start a partition; returns what waits for its end."""
        process = start(folder, self.model, data, variables=self.variables | variables)
        return lambda: end(process, folder)

    def run(self, folder: Path, data: PlannedDataset, **variables: str) -> Ended:
        """A partition from start to end."""
        return self.start(folder, data, **variables)()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """`org/qa` in the layout of cais/mmlu, and copies of it that are guarded."""
    root = tmp_path / "hub"
    folder = root / "datasets" / "org" / "qa" / "all"
    folder.mkdir(parents=True)
    (folder.parent / "README.md").write_text("# Questions")
    for name, rows in {
        "test-00000-of-00002": ROWS[:4],
        "test-00001-of-00002": ROWS[4:],
        "dev-00000-of-00001": ROWS,
        "auxiliary_train-00000-of-00001": ROWS,
    }.items():
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    for org in ("gated", "private", "broken", "slow"):
        shutil.copytree(folder.parent, root / "datasets" / org / "qa")
    hub = Hub(root)
    with hub_server.serve(hub) as url, stub_server.serve(stub_server.Script()) as model:
        openai = {"url": model, "model": "m", "maxConcurrency": 4}
        served = Model.model_validate({"name": "served", "promptFormat": "Chat", "openai": openai})
        yield World(hub, url, served, tmp_path / "home")


def fetched(hub: Hub) -> Sequence[str]:
    """Names of the files whose bytes were sent."""
    return sorted(r.rpartition("/")[2] for r in hub.requests if r.startswith("GET") and "/resolve/" in r)


def test_a_dataset_of_a_hub_is_the_one_in_its_files(world: World, tmp_path: Path) -> None:
    """Only the needed splits come, the commit is recorded; branch, commit and the offline cache are one dataset."""
    commit = world.hub.repository("datasets", "org/qa").commit()
    first = world.run(tmp_path / "first", dataset("hf://org/qa@main/all")).result
    assert first.provenance["data"] == f"commit:{commit}"
    assert fetched(world.hub) == [
        "dev-00000-of-00001.parquet",
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
    ]
    world.hub.requests.clear()
    # Caches of earlier versions of the library have no list of a commit's files.
    shutil.rmtree(world.home / "hub" / "datasets--org--qa" / "trees")
    by_commit = dataset(f"hf://org/qa@{commit}/all")
    offline = world.run(tmp_path / "offline", by_commit, HF_HUB_OFFLINE="1").result
    assert world.hub.requests == []
    assert offline.subsets == first.subsets
    assert offline.prompt_digest == first.prompt_digest
    assert offline.inference_digest == first.inference_digest


def test_a_split_of_several_files_is_a_table_too(world: World, tmp_path: Path) -> None:
    table = dataset("hf://org/qa@main/all/test", splits=None, fewShot=None, subsets=None)
    assert world.run(tmp_path / "x", table).result.outcomes.expected == 8
    assert fetched(world.hub) == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]


def test_a_branch_that_moves_is_another_dataset(world: World, tmp_path: Path) -> None:
    before = world.run(tmp_path / "before", dataset("hf://org/qa@main/all")).result
    readme = world.hub.root / "datasets" / "org" / "qa" / "README.md"
    readme.write_text("# Better questions")
    after = world.run(tmp_path / "after", dataset("hf://org/qa@main/all")).result
    assert after.inference_digest != before.inference_digest
    assert after.provenance["data"] != before.provenance["data"]


@dataclass(frozen=True)
class Case:
    """A partition that cannot go well, or only with a token."""

    uri: str
    code: int
    reason: str
    words: str
    variables: dict[str, str] = field(default_factory=dict)


CASES = {
    "no repository": Case("hf://org/none@main", 78, "BadData", "no such dataset repository: check the name"),
    "no revision": Case("hf://org/qa@1af63c6/all", 78, "BadData", "no revision '1af63c6': a commit is 40"),
    "no folder": Case("hf://org/qa@main/some", 78, "BadData", "hf://org/qa@main/some: nothing is there"),
    "all folders": Case("hf://org/qa@main", 78, "BadData", "has a column 's' already.*name one folder"),
    "private": Case("hf://private/qa@main/all", 78, "BadData", "a private one needs a token .*tokenSecretRef"),
    "wrong token": Case(
        "hf://org/qa@main/all", 78, "Unauthorized", "answers 401: check spec.hub", {"HF_TOKEN": "hf_old"}
    ),
    "gated": Case("hf://gated/qa@main/all", 78, "Unauthorized", "gated: accept its terms"),
    "broken": Case("hf://broken/qa@main/all", 75, "DependencyUnavailable", "answers 500"),
    "no hub": Case(
        "hf://org/qa@main/all", 75, "DependencyUnavailable", "does not answer", {"HF_ENDPOINT": "http://127.0.0.1:9"}
    ),
    "no room": Case(
        "hf://org/qa@main/all", 78, "BadConfiguration", r"room for 0\.0 GiB: name a larger claim", {HUB_ROOM: "10"}
    ),
    "offline": Case("hf://org/qa@main/all", 78, "BadData", "not in the cache", {"HF_HUB_OFFLINE": "1"}),
}  # fmt: skip


def test_each_failure_says_what_to_mend(world: World, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        ended = {
            name: pool.submit(
                world.run, tmp_path / name.replace(" ", "-"), dataset(case.uri), **case.variables
            )
            for name, case in CASES.items()
        }
    for name, case in CASES.items():
        found = ended[name].result()
        assert (found.code, found.failure.reason) == (case.code, case.reason), name
        assert found.failure.message.startswith("hf://"), name
        assert re.search(case.words, found.failure.message), (name, found.failure.message)
        assert "hf_old" not in found.logged + found.failure.message


def test_a_token_is_read_from_its_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    ended = world.run(
        tmp_path / "x", dataset("hf://private/qa@main/all"), HF_TOKEN_PATH=str(tmp_path / "token")
    )
    assert ended.code == 0
    assert TOKEN not in ended.logged + ended.said


def test_two_runners_share_a_cache_and_fetch_each_file_once(world: World, tmp_path: Path) -> None:
    waiting = [world.start(tmp_path / name, dataset("hf://slow/qa@main/all")) for name in "ab"]
    first, second = (wait() for wait in waiting)
    assert first.result.inference_digest == second.result.inference_digest
    assert len(fetched(world.hub)) == len(set(fetched(world.hub))) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_fetch_that_was_ended_harms_nobody(world: World, tmp_path: Path, number: int, code: int) -> None:
    """A half of a file and a lock may be left behind."""
    data = dataset("hf://slow/qa@main/all")
    process = start(tmp_path / "ended", world.model, data, variables=world.variables)
    with process:
        while not fetched(world.hub):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == code
    assert world.run(tmp_path / "next", data).code == 0


def test_a_full_cache_is_tried_again(world: World, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    lines = "".join(json.dumps({"q": "x" * 1000, "a": "Paris"}) + "\n" for _ in range(200))
    (world.hub.root / "datasets" / "slow" / "qa" / "test.jsonl").write_text(lines)
    data = dataset("hf://slow/qa@main/test.jsonl", splits=None, fewShot=None, subsets=None)
    process = start(tmp_path / "full", world.model, data, variables=world.variables)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    ended = end(process, tmp_path / "full")
    assert (ended.code, ended.failure.reason) == (75, "DependencyUnavailable")
    assert "the cache cannot be used: File too large" in ended.failure.message


def test_a_pods_own_volume_has_room_once(world: World, tmp_path: Path) -> None:
    """Each of two splits has room in it, both have not: the second is refused before it is fetched."""
    lines = "".join(json.dumps({"q": f"{i} " * 300, "a": "Paris", "s": "t"}) + "\n" for i in range(1000))
    folder = world.hub.root / "datasets" / "org" / "qa" / "large"
    folder.mkdir()
    for split in ("dev", "test"):
        (folder / f"{split}.jsonl").write_text(lines)
    ended = world.run(
        tmp_path / "x", dataset("hf://org/qa@main/large"), **{HUB_ROOM: str(len(lines) * 3 // 2)}
    )
    assert (ended.code, ended.failure.reason) == (78, "BadConfiguration")
    assert len(fetched(world.hub)) == 1


def test_without_a_cluster_the_shells_own_cache_and_token_are_used(world: World, tmp_path: Path) -> None:
    """The file is the one for a cluster, with a Secret and a claim that do not exist here."""
    data = dataset("hf://private/qa@main/all").dataset
    spec = {
        "models": [world.model.model_dump(mode="json", by_alias=True, exclude_none=True)],
        "datasets": [data.model_dump(mode="json", by_alias=True, exclude_none=True)],
        "hub": {"tokenSecretRef": {"name": "eval-hf", "key": "token"}},
        "modelCache": {"claimName": "hf-cache"},
        "backoffLimit": 0,
    }
    head = {"apiVersion": "evaljob.dev/v1alpha1", "kind": "EvalJob", "metadata": {"name": "hub"}}
    (tmp_path / "hub.yaml").write_text(json.dumps({**head, "spec": spec}))
    ended = subprocess.run(
        [sys.executable, "-m", "evaljob_cli", "run", "hub.yaml"],
        cwd=tmp_path,
        env={**os.environ, **world.variables, "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert (world.home / "hub" / "datasets--private--qa").is_dir()
