"""The search for leaks: what reaches an engine, and what it says, with and without other datasets before.

In OpenCompass a chat dataset replaced the model object's template, and the next dataset, plain generation, was
rendered with it. Here one live engine serves every dataset after every other one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import permutations
from pathlib import Path
from typing import Any

from evaljob.plan import PlannedDataset
from evaljob.task import Task
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import assignment, planned, tiny_dataset, tiny_model, tiny_task

Seen = list[tuple[tuple[int, ...], str]]
"""What the engine saw: the token ids of each row, and every parameter."""
Found = tuple[Seen, Mapping[str, Any]]
"""What it saw, and what was logged of its answers by sample."""
Watch = Callable[[Any], AbstractContextManager[Seen]]
"""Collects everything that reaches the engine of a backend, in the order of prompts."""
# A chat dataset with sampling of its own, one of whole conversations, plain generation, two of choices and one of
# whole texts.
WARM = {"temperature": 0.7, "top_k": 3, "max_tokens": 12}
GENERATION = {"chat": WARM, "turns": WARM}
FORMATS = {"chat": "Chat", "turns": "Chat", "kind": "Chat"}
GENERATING = ("chat", "gsm")
ALL = ("chat", "turns", "gsm", "kind", "mc", "text")
TEXT = Task.model_validate(
    {
        "requestType": "LogLikelihoodRolling",
        "target": "{{ question }} {{ solution }}",
        "metrics": [{"name": "bits_per_byte", "primary": True}],
    }
)


def dataset(name: str) -> PlannedDataset:
    """One of the datasets; texts are the questions of gsm with their solutions, conversations those of chat."""
    if name == "text":
        return planned(TEXT, name=name, source="pvc://data/gsm.jsonl", limit=4)
    if name == "turns":
        return planned(tiny_task("chat", turns="Every"), name=name, source="pvc://data/chat.jsonl", limit=4)
    return tiny_dataset(name, limit=4)


def run(backend: Any, watch: Watch, name: str, out: Path) -> Found:  # noqa: ANN401 - any local backend
    """Evaluate a dataset on a live backend."""
    model = tiny_model(promptFormat=FORMATS.get(name, "Text"), generation=GENERATION.get(name, {}))
    work = assignment(model, dataset(name), out)
    out.mkdir(parents=True)
    with watch(backend) as seen, (out / "progress").open("w") as said:
        evaluate(work, Shell(lambda *_: backend, Progress(said), Stopwatch(), lambda _: None))
    assert seen
    return sorted(seen), dict(_answers(out))


def _answers(out: Path) -> Iterator[tuple[str, Any]]:
    for path in out.rglob("*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            if line["kind"] == "inference":
                yield line["id"], [_answer(request) for request in line["requests"]]


def _answer(request: Mapping[str, Any]) -> tuple[str | None, str, list[float]]:
    weights = [round(choice["sum"], 4) for choice in request.get("logprobs", ())]
    return request.get("output"), request["promptDigest"], weights


def leaks(make: Callable[[], Any], watch: Watch, out: Path, names: Sequence[str] = ALL) -> set[str]:
    """Datasets of which the engine saw or said something else after another one than alone.

    Args:
        make: the backend; called for each dataset alone, and once for all of them after each other.
        watch: sees what reaches its engine.
        out: a folder for sample logs.
        names: the datasets.
    """
    alone = {name: run(make(), watch, name, out / name) for name in names}
    backend = make()
    pairs = [name for pair in permutations(names, 2) for name in pair]
    after = [(name, run(backend, watch, name, out / f"{i}-{name}")) for i, name in enumerate(pairs)]
    return {name for name, found in after if found != alone[name]}
