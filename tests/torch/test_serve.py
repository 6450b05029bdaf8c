"""The client against a real server: `transformers serve` on the tiny model.

It leaves stop texts in its answers and has no log-probabilities, as servers differ from OpenAI's.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evaljob.spec import Model
from tests.runner_plans import TINY, tiny_dataset
from tests.torch.processes import lines, run

pytestmark = pytest.mark.torch
SCORES = json.loads((TINY / "scores.json").read_text())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for this module; ended by its process id."""
    port, home = free_port(), tmp_path_factory.mktemp("home")
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    program = str(Path(sys.executable).parent / "transformers")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    with (home / "log").open("w") as log:
        command = [program, "serve", str(TINY / "model"), *options]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/health", home / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(address, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(f"not ready: {log.read_text()[-2000:]}")


def model(url: str, prompt_format: str) -> Model:
    openai = {"url": url, "model": str(TINY / "model"), "maxConcurrency": 2}
    return Model.model_validate({"name": "served", "promptFormat": prompt_format, "openai": openai})


@pytest.mark.parametrize("key", ["gsm/Text", "gsm/Chat", "chat/Chat"])
def test_scores_of_the_served_model_equal_the_reference(url: str, tmp_path: Path, key: str) -> None:
    """Completions and chat completions, against scores made without server and without our code."""
    name, prompt_format = key.split("/")
    ended = run(tmp_path, model(url, prompt_format), tiny_dataset(name))
    assert ended.code == 0, ended.report
    primary = next(i for i, m in enumerate(ended.result.metrics) if m.primary)
    right = {s.name: [s.stats[primary].total, s.stats[primary].n] for s in ended.result.subsets}
    assert right == SCORES[key]
    first = next(item for item in map(json.loads, lines(tmp_path)) if item["kind"] == "inference")
    assert first["requests"][0]["renderedBy"] == "Server"
    assert "\n\n" not in first["requests"][0]["output"]


def test_another_model_name_is_refused_in_the_servers_words(url: str, tmp_path: Path) -> None:
    other = model(url, "Chat").model_copy(
        update={"openai": model(url, "Chat").openai.model_copy(update={"model": "gpt-x"})}  # type: ignore[union-attr]
    )
    ended = run(tmp_path, other, tiny_dataset("chat", limit=1))
    assert (ended.code, ended.failure.reason) == (78, "BadConfiguration")
    assert "answers 400" in ended.failure.message
