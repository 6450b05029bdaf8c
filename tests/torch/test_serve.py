"""The client against real servers on the tiny model.

`transformers serve` leaves stop texts in its answers and has no log-probabilities, as servers differ from OpenAI's.
The server of echo_server.py has log-probabilities of prompts, as vLLM's has.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaljob.judges import Judge
from evaljob.spec import Model
from tests.runner_plans import TINY, planned, tiny_dataset, tiny_model, tiny_task
from tests.torch.processes import Ended, lines, run
from tests.torch.servers import serving

pytestmark = pytest.mark.torch
SCORES = json.loads((TINY / "scores.json").read_text())
TRANSFORMERS_SERVE = ("-m", "transformers.cli.transformers", "serve", TINY / "model")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve`, one for this module."""
    options = ("--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1")
    with serving(tmp_path_factory.mktemp("serve"), [*TRANSFORMERS_SERVE, *options]) as address:
        yield address


@pytest.fixture(scope="module")
def weighing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with log-probabilities."""
    command: list[str | Path] = [Path(__file__).with_name("echo_server.py"), "--model", TINY / "model"]
    with serving(tmp_path_factory.mktemp("weigh"), command) as address:
        yield address


def model(url: str, prompt_format: str) -> Model:
    openai = {"url": url, "model": str(TINY / "model"), "maxConcurrency": 2}
    return Model.model_validate({"name": "served", "promptFormat": prompt_format, "openai": openai})


def scores(ended: Ended) -> dict[str, list[int]]:
    """Subset → [right, all] by the primary metric, as in scores.json."""
    primary = next(i for i, m in enumerate(ended.result.metrics) if m.primary)
    return {s.name: [s.stats[primary].total, s.stats[primary].n] for s in ended.result.subsets}


def requests(folder: Path) -> dict[str, dict[str, Any]]:
    """The logged request of each sample."""
    logged = (item for item in map(json.loads, lines(folder)) if item["kind"] == "inference")
    return {item["id"]: item["requests"][0] for item in logged}


@pytest.mark.parametrize("key", ["gsm/Text", "chat/Chat"])
def test_scores_of_the_served_model_equal_the_reference(url: str, tmp_path: Path, key: str) -> None:
    """Completions and chat completions, against scores made without server and without our code."""
    name, prompt_format = key.split("/")
    ended = run(tmp_path, model(url, prompt_format), tiny_dataset(name))
    assert ended.code == 0, ended.report
    assert scores(ended) == SCORES[key]
    first = next(iter(requests(tmp_path).values()))
    assert first["renderedBy"] == "Server"
    assert "\n\n" not in first["output"]


def test_a_real_model_judges(url: str, tmp_path: Path) -> None:
    """Asked what the model was asked, with its parameters, the judge says the same: its number is the score."""
    rubric = {
        "name": "same",
        "prompt": "Question: {{ question }}\nAnswer:",
        "extract": "final",
        "scale": {"min": -1000, "max": 1000},
    }
    metrics = [{"name": "llm_judge", "primary": True, "judge": rubric}]
    task = tiny_task("gsm", metrics=metrics)
    generation = task.generation.model_dump(by_alias=True, exclude_none=True)
    served = model(url, "Chat")
    judge = Judge.model_validate({"name": "same", "openai": served.openai, "generation": generation})
    dataset = planned(task, name="gsm", source="pvc://data/gsm.jsonl", limit=2)
    ended = run(tmp_path, served, dataset.model_copy(update={"judges": (judge,)}))
    assert ended.code == 0, ended.report
    asked = requests(tmp_path)
    scored = [line for line in map(json.loads, lines(tmp_path)) if line["kind"] == "score"]
    assert len(scored) == len(asked) > 0
    for line in scored:
        score, said = line["scores"]["llm_judge"], asked[line["id"]]
        assert score["judgement"]["output"] == said["output"]
        assert score["judgement"]["promptTokens"] == said["promptTokens"]
        assert score["value"] == float(said["output"].rpartition("#### ")[2])


def test_another_model_name_is_refused_in_the_servers_words(url: str, tmp_path: Path) -> None:
    other = model(url, "Chat").model_copy(
        update={"openai": model(url, "Chat").openai.model_copy(update={"model": "gpt-x"})}  # type: ignore[union-attr]
    )
    ended = run(tmp_path, other, tiny_dataset("chat", limit=1))
    assert (ended.code, ended.failure.reason) == (78, "BadConfiguration")
    assert "answers 400" in ended.failure.message


def test_a_server_without_log_probabilities_is_refused_by_name_with_the_fix(url: str, tmp_path: Path) -> None:
    ended = run(tmp_path, model(url, "Text"), tiny_dataset("kind"))
    assert (ended.code, ended.failure.reason) == (78, "UnsupportedRequest")
    assert f"which {url} does not return: " in ended.failure.message
    assert "there are 0 token_logprobs" in ended.failure.message
    assert ended.failure.message.endswith("add to the spec: exclude: [{model: served, dataset: kind}]")
    assert requests(tmp_path) == {}


def test_log_likelihoods_of_a_server_are_those_of_the_local_model(weighing: str, tmp_path: Path) -> None:
    """Choice by choice: the sum to 1e-4, as batches differ, and the tokens exactly."""
    served = run(tmp_path / "served", model(weighing, "Text"), tiny_dataset("mc"))
    assert served.code == 0, served.report
    assert scores(served) == SCORES["mc/Text"]
    local = run(tmp_path / "local", tiny_model(), tiny_dataset("mc"))
    assert (served.result.subsets, served.result.tokens) == (local.result.subsets, local.result.tokens)
    ours, theirs = requests(tmp_path / "served"), requests(tmp_path / "local")
    assert ours.keys() == theirs.keys()
    for key, request in theirs.items():
        for here, there in zip(ours[key]["logprobs"], request["logprobs"], strict=True):
            assert here.pop("sum") == pytest.approx(there.pop("sum"), abs=1e-4), key
            assert here == there, key
