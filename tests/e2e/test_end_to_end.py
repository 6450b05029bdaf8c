"""One EvalJob, real weights, real pods: the numbers, and that they are the same without a cluster."""

import datetime as dt
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from evaljob.framing import decode
from evaljob.names import plan_name
from evaljob.result import PartitionResult
from tests.cluster.paths import REPOSITORY
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import Handle, Manifest, dataset, evaljob, tiny
from tests.e2e.world import NAMESPACE, TINY, World

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def manifest(world: World) -> Manifest:
    node = world.torch_node
    models = [tiny("tiny-chat", "Chat", node), tiny("tiny-text", "Text", node)]
    datasets = [dataset("gsm", shards=2), dataset("mc"), dataset("kind"), dataset("chat")]
    exclude = [{"model": "tiny-text", "dataset": "chat"}]
    return evaljob("numbers", models, datasets, exclude=exclude, parallelism=2)


def test_a_run_gives_the_reference_scores_and_equals_a_local_run(
    submit: Submit, manifest: Manifest, tmp_path: Path
) -> None:
    handle = submit(manifest)
    status = handle.finished()
    assert (status["state"], status["progress"], status["failed"]) == ("Complete", "9/9", 0)
    for key in json.loads((TINY / "scores.json").read_text()):
        handle.matches_reference(f"tiny-{key.split('/')[1].lower()}", key)
    _records_are_on_the_jobs(handle)
    _shows_itself(handle)
    created = dt.datetime.fromisoformat(handle.body()["metadata"]["creationTimestamp"])
    local = _run_locally(manifest, tmp_path, created.date())
    assert _numbers(local) == _numbers(handle.summary())


def _records_are_on_the_jobs(handle: Handle) -> None:
    jobs = handle.get("jobs")
    assert len(jobs) == 9
    asked = handle.body()["spec"]["models"][0]["runner"]["resources"]["limits"]
    for job in jobs:
        report = decode(job["metadata"]["annotations"]["evaljob.dev/result"])
        assert isinstance(report, PartitionResult)
        assert job["status"]["succeeded"] == 1
        limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {resource: str(amount) for resource, amount in asked.items()}


def _shows_itself(handle: Handle) -> None:
    """What a user sees: the columns, the table, the frozen plan."""
    row = handle.world.kubectl.run("get", "ej", handle.name, "-n", NAMESPACE)
    head, line = row.splitlines()
    assert head.split() == ["NAME", "STATE", "DONE", "FAILED", "REASON", "AGE"]
    assert line.split()[:4] == ["numbers", "Complete", "9/9", "0"]
    maps = {m["metadata"]["name"]: m for m in handle.get("configmaps")}
    assert [name for name, m in maps.items() if m.get("immutable")] == [
        plan_name("numbers", handle.body()["metadata"]["uid"])
    ]
    assert (
        "| gsm (exact\\_match,final)" in (text := maps["numbers-summary"]["data"]["summary.md"])
        or "| gsm" in text
    )
    assert "excluded" in text


def _run_locally(manifest: Manifest, folder: Path, date: dt.date) -> Manifest:
    file = folder / "evaljob.yaml"
    file.write_text(yaml.safe_dump(manifest))
    python = REPOSITORY / ".venv-test" / "bin" / "python"
    # A copy: a link that leads out of its volume is refused.
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    mounts = [f"--mount=models={folder / 'models'}", f"--mount=data={TINY / 'data'}"]
    subprocess.run(
        [python, "-m", "evaljob_cli", "run", file, *mounts, "--out", folder / "out", "--date", date.isoformat()],
        check=True, cwd=REPOSITORY, timeout=300,
    )  # fmt: skip
    summary: Manifest = json.loads((folder / "out" / "summary.json").read_text())
    return summary


def _numbers(summary: Manifest) -> list[Manifest]:
    """All of a summary that must not depend on where it was computed."""
    kept = ("model", "dataset", "state", "parts", "outcomes", "inferenceDigest", "lint", "limited", "tokens")
    return [{k: cell.get(k) for k in kept} for cell in summary["cells"]]
