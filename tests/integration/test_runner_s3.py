"""Datasets of a bucket, by real runner processes and real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from evaljob.plan import PlannedDataset
from evaljob.spec import Model
from tests import s3_server, stub_server
from tests.runner_plans import planned
from tests.torch.processes import Ended, run
from tests.unit.test_runner_data import task

ROWS = [{"q": f"Question {i}", "a": "Paris" if i % 2 else "Rome", "s": f"topic-{i % 3}"} for i in range(8)]
FEW = {"splits": {"eval": "test", "fewShot": "dev"}, "fewShot": {"count": 1}, "subsets": {"column": "s"}}
Run = Callable[..., Ended]


def dataset(uri: str) -> PlannedDataset:
    return planned(task(**FEW), source=uri)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The bucket `evals`, as variables of a runner with the credentials in a file."""
    folder = tmp_path / "root" / "evals" / "qa"
    folder.mkdir(parents=True)
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for i, rows in enumerate((ROWS[:4], ROWS[4:])):
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"test-0000{i}-of-00002.parquet")
    (tmp_path / "credentials").write_text(s3_server.CREDENTIALS)
    with s3_server.serve(tmp_path / "root") as url:
        yield {"AWS_ENDPOINT_URL": url, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


@pytest.fixture
def evaluate(tmp_path: Path, bucket: dict[str, str]) -> Iterator[Run]:
    """Runs a partition; the bucket's folder is the claim `files` too."""
    with stub_server.serve(stub_server.Script()) as served:
        openai = {"url": served, "model": "m", "maxConcurrency": 4}
        model = Model.model_validate({"name": "served", "promptFormat": "Chat", "openai": openai})

        def evaluate(name: str, data: PlannedDataset, **variables: str) -> Ended:
            mount = ("--mount", f"files={tmp_path / 'root' / 'evals'}")
            return run(tmp_path / name, model, data, *mount, variables=bucket | variables)

        yield evaluate


def test_a_dataset_of_a_bucket_is_the_one_in_its_files(evaluate: Run, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    by_claim = evaluate("claim", dataset("pvc://files/qa")).result
    by_bucket = evaluate("bucket", dataset("s3://evals/qa"), TMPDIR=str(scratch)).result
    assert by_bucket.subsets == by_claim.subsets
    assert by_bucket.prompt_digest == by_claim.prompt_digest
    assert by_bucket.inference_digest == by_claim.inference_digest
    assert list(scratch.iterdir()) == []


def test_one_object_and_the_beginning_of_several_names_are_tables(evaluate: Run) -> None:
    for uri, rows in (("s3://evals/qa/dev.jsonl", 8), ("s3://evals/qa/test", 8)):
        ended = evaluate(f"t{uri[-4:-2]}", planned(task(), source=uri))
        assert ended.result.outcomes.expected == rows, uri


EVALJOB = """
apiVersion: evaljob.dev/v1alpha1
kind: EvalJob
metadata: {{name: bucket}}
spec:
  models: [{{name: m, promptFormat: Text, openai: {{url: "{url}", model: x}}}}]
  datasets:
  - name: qa
    source: s3://evals/qa/dev.jsonl
    taskSpec:
      {{requestType: Generate, prompt: "{{{{ q }}}}", target: x, metrics: [{{name: exact_match, primary: true}}]}}
"""


def test_no_copy_outlives_a_local_runner(tmp_path: Path, bucket: dict[str, str]) -> None:
    """Killed or told to end it removes nothing itself."""
    scratch, file = tmp_path / "scratch", tmp_path / "bucket.yaml"
    scratch.mkdir()
    with stub_server.serve(stub_server.Script(mode="silent")) as served:
        file.write_text(EVALJOB.format(url=served))
        command = [sys.executable, "-m", "evaljob_cli", "run", str(file), "--out", str(tmp_path / "out")]
        variables = os.environ | bucket | {"TMPDIR": str(scratch)}
        with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as process:
            first = _until(lambda: next(scratch.rglob("dev.jsonl"), None))
            runner = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            os.kill(runner, signal.SIGKILL)
            second = _until(lambda: next((p for p in scratch.rglob("dev.jsonl") if p != first), None))
            assert (first.exists(), second.exists()) == (False, True)
            process.terminate()
        assert process.returncode == 130
    assert list(scratch.iterdir()) == []


def _until(found: Callable[[], Path | None]) -> Path:
    until = time.monotonic() + 60
    while (path := found()) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return path


CASES = {
    "bucket": ("s3://nobody/qa", {}, 78, "BadData", "s3://nobody/qa: nothing is there"),
    "key": ("s3://evals/none", {}, 78, "BadData", "s3://evals/none: nothing is there"),
    "denied": ("s3://secret/qa", {}, 78, "Unauthorized", "ACCESS_DENIED: check spec.s3.credentialsSecretRef"),
    "broken": ("s3://broken/qa", {}, 75, "DependencyUnavailable", "s3://broken/qa"),
    "no server": (
        "s3://evals/qa", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 75, "DependencyUnavailable", "s3://evals/qa",
    ),
}  # fmt: skip


def test_each_failure_says_what_to_mend(evaluate: Run) -> None:
    with ThreadPoolExecutor(3) as pool:
        ended = {
            name: pool.submit(evaluate, name.replace(" ", "-"), dataset(uri), **variables)
            for name, (uri, variables, *_) in CASES.items()
        }
    for name, (_, _, code, reason, words) in CASES.items():
        found = ended[name].result()
        assert (found.code, found.failure.reason) == (code, reason), (name, found.failure.message)
        assert re.search(words, found.failure.message), (name, found.failure.message)
        assert "very-secret" not in found.logged + found.failure.message
