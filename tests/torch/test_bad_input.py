"""Every bad input, by the real process: the exit code, the reason, and a message that names what to mend."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from evaljob.plan import PlannedDataset
from evaljob.spec import Model
from tests.runner_plans import TINY, planned, tiny_dataset, tiny_model
from tests.stub_server import Script, serve
from tests.torch.processes import Ended, lines, run, start
from tests.unit.test_runner_data import task

pytestmark = pytest.mark.torch
KEY = "sk-very-secret"


def served(url: str) -> Model:
    openai = {"url": url, "model": "m", "maxConcurrency": 2, "requestTimeoutSeconds": 2}
    return Model.model_validate({"name": "served", "promptFormat": "Chat", "openai": openai})


def questions(
    text: str = '{"q": "one", "a": "Paris"}\n{"q": "two", "a": "Rome"}',
    **changes: Any,  # noqa: ANN401 - any field of the task
) -> PlannedDataset:
    return planned(task(**changes), inline={"jsonl": text})


@dataclass(frozen=True)
class Case:
    """A partition that cannot go well."""

    model: Model | None = None
    """Default: a server in `mode`."""
    dataset: PlannedDataset = field(default_factory=questions)
    mode: str = ""


MANY = "\n".join(
    json.dumps({"q": "q", "a": "a", "s": f"{i * 7919:x}-{i * 104729:x}-{i}"}) for i in range(900)
)
CASES: Mapping[str, Case] = {
    "broken line": Case(tiny_model(), questions('{"q": "one", "a": "x"}\n{"q": ')),
    "duplicate ids": Case(
        tiny_model(), questions('{"q": 1, "a": 1, "n": "x"}\n{"q": 2, "a": 2, "n": "x"}', id="{{ n }}")
    ),
    "undefined variable": Case(tiny_model(), questions(prompt="{{ question }}")),
    "missing model": Case(tiny_model(transformers={"source": "pvc://models/absent"}), questions()),
    "missing data": Case(tiny_model(), tiny_dataset("gsm", source="pvc://data/absent.jsonl")),
    "zero samples": Case(tiny_model(), questions(" \n ")),
    "result too large": Case(tiny_model(), questions(MANY, subsets={"column": "s"})),
    "long prompt": Case(
        tiny_model(), questions(json.dumps({"q": "word " * 2000, "a": "x"}) + '\n{"q": "hi", "a": "x"}')
    ),
    "nan": Case(tiny_model(transformers={"source": "pvc://nan/model"}), questions()),
    "nan likelihood": Case(
        tiny_model(transformers={"source": "pvc://nan/model"}), tiny_dataset("kind", limit=1)
    ),
    "401": Case(mode="401"),
    "404": Case(mode="404"),
    "400": Case(mode="400"),
    "context": Case(mode="context"),
    "429 then ok": Case(mode="429-then-ok"),
    "500": Case(mode="500"),
    "garbage": Case(mode="garbage"),
    "nothing": Case(mode="closed"),
    "log-likelihood of a served chat": Case(mode="ok", dataset=tiny_dataset("kind")),
}


@pytest.fixture(scope="module")
def nan_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one weight that is no number."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("nan") / "model"
    copytree(TINY / "model", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder.parent


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, nan_model: Path
) -> Iterator[Callable[[str], tuple[Ended, Path]]]:
    """Runs all cases, three at a time: most of their time is spent waiting between retries."""
    key = tmp_path_factory.mktemp("key") / "token"
    key.write_text(KEY)
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        found: dict[str, tuple[Future[Ended], Path]] = {}
        for name, case in CASES.items():
            folder = tmp_path_factory.mktemp("case")
            model = case.model or served(_server(stack, case.mode))
            options = ["--mount", f"nan={nan_model}"]
            options += [] if case.model else ["--api-key-file", str(key)]
            found[name] = pool.submit(run, folder, model, case.dataset, *options), folder
        yield lambda name: (found[name][0].result(), found[name][1])


def _server(stack: ExitStack, mode: str) -> str:
    if mode != "closed":
        return stack.enter_context(serve(Script(mode)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("name", "code", "reason", "words"),
    [
        ("broken line", 78, "BadData", "inline.jsonl line 2: not JSON"),
        ("duplicate ids", 78, "BadData", "inline.jsonl line 2 have the same id 'x'"),
        (
            "undefined variable",
            78,
            "BadData",
            "prompt: 'question' is undefined (inline.jsonl line 1); the columns",
        ),
        ("missing model", 78, "ModelNotFound", "pvc://models/absent: nothing is there"),
        ("missing data", 78, "BadData", "pvc://data/absent.jsonl: nothing is there"),
        ("zero samples", 78, "EmptyDataset", "inline: no samples"),
        ("result too large", 78, "ResultTooLarge", "900 subsets x 1 metrics"),
        ("nan", 78, "InvalidNumber", "NaN or infinite logits (sample '"),
        ("nan likelihood", 78, "InvalidNumber", "not finite: nan"),
        ("401", 78, "Unauthorized", "answers 401: check openai.apiKeySecretRef"),
        ("404", 78, "EndpointNotFound", "answers 404"),
        ("400", 78, "BadConfiguration", "this stub always answers so"),
        ("500", 75, "DependencyUnavailable", "2 samples got no answer, 0 did; the last said: "),
        ("garbage", 75, "DependencyUnavailable", "not an answer of this API"),
        ("nothing", 75, "DependencyUnavailable", "connection attempts failed"),
        ("log-likelihood of a served chat", 78, "UnsupportedRequest", "needs promptFormat Text"),
    ],
)
def test_bad_input_ends_with_its_reason(
    ended: Callable[[str], tuple[Ended, Path]], name: str, code: int, reason: str, words: str
) -> None:
    found, _ = ended(name)
    assert found.failure.reason == reason
    assert words in found.failure.message
    assert found.code == code
    assert found.failure.attempt == "a-1"
    assert "Traceback" not in found.logged
    assert KEY not in found.logged + found.failure.message


@pytest.mark.parametrize("name", ["long prompt", "context"])
def test_a_prompt_longer_than_the_window_is_counted_and_the_others_are_scored(
    ended: Callable[[str], tuple[Ended, Path]], name: str
) -> None:
    found, _ = ended(name)
    assert found.code == 0
    outcomes = found.result.outcomes
    assert outcomes.context_overflow == (1 if name == "long prompt" else 2)
    assert outcomes.completed == 2


def test_a_server_that_is_busy_for_a_while_costs_nothing(ended: Callable[[str], tuple[Ended, Path]]) -> None:
    found, folder = ended("429 then ok")
    assert found.code == 0
    assert found.result.outcomes.answered == 2
    assert found.result.subsets[0].stats[0][:2] == (2, 1)
    assert KEY not in "".join(lines(folder))


def test_what_can_be_refused_early_never_loads_a_model(ended: Callable[[str], tuple[Ended, Path]]) -> None:
    """A log file is opened right before the model: none means that nothing was loaded."""
    early = (
        "broken line",
        "duplicate ids",
        "undefined variable",
        "missing model",
        "zero samples",
        "result too large",
    )
    assert {name for name in early if (ended(name)[1] / "out").exists()} == set()


def test_wrong_arguments_end_with_78(tmp_path: Path) -> None:
    """No report can be written where the arguments that name its file are wrong: the log has to do."""
    with start(tmp_path, tiny_model(), questions(), "--shard", "2/2") as process:
        _, logged = process.communicate(timeout=60)
    assert process.returncode == 78
    assert "K/N with K < N expected, got '2/2'" in logged
