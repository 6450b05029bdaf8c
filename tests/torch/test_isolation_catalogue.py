"""State that affects scores is impossible: each task of the catalogue after each other one, on one live engine.

What is compared is everything of a sample but times: token ids (by digest), sampling, answers, log-probabilities to
the last bit, scores. A backend that leaks on purpose shows that the comparison can fail.
"""

import io
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaljob.requests import RequestType
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import tiny_model
from tests.stub_server import Script, serve
from tests.unit.test_catalogue import TASKS, work

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend

pytestmark = pytest.mark.torch
Samples = list[dict[str, Any]]


def tour(names: Sequence[str]) -> list[str]:
    """The shortest sequence in which each name stands once behind each other one."""
    return [x for i, first in enumerate(names) for other in names[i + 1 :] for x in (first, other)] + [
        names[0]
    ]


def run(backend: "TransformersBackend", task: str, out: Path, judge: str) -> Samples:
    """The sample log of a task, without times. Few tokens: what would leak, leaks in the first one."""
    chat = TASKS[task].request_type is RequestType.CHAT
    model = tiny_model(promptFormat="Chat" if chat else "Text", generation={"max_tokens": 6})
    shell = Shell(lambda *_: backend, Progress(io.StringIO()), Stopwatch(), lambda _: None)
    found = evaluate(work(task, model, out, limit=1, judge=judge), shell)
    assert not found.outcomes.context_overflow
    texts = [line for path in out.rglob("*.jsonl") for line in path.read_text().splitlines()]
    lines = [json.loads(text, object_hook=_without_times) for text in texts]
    return sorted(lines, key=lambda line: (line["kind"], line["id"]))


def _without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


def leaking(
    alone: "TransformersBackend", live: "TransformersBackend", names: Sequence[str], out: Path
) -> set[tuple[str, str]]:
    """Pairs of tasks of which the first, run on the live backend, changes a sample of the second."""
    with serve(Script(answer="RATING: 5")) as judge:
        expected = {name: run(alone, name, out / "alone" / name, judge) for name in sorted(set(names))}
        runs = [(name, run(live, name, out / f"{i}", judge)) for i, name in enumerate(names)]
    return {(a, b) for (a, _), (b, samples) in pairwise(runs) if samples != expected[b]}


def test_a_tour_holds_each_pair_of_tasks_once() -> None:
    pairs = list(pairwise(tour("abcde")))
    assert len(pairs) == len(set(pairs)) == 5 * 4


def test_no_task_of_the_catalogue_changes_another(
    tiny: "TransformersBackend", open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    names = tour(sorted(TASKS))
    assert set(names) == TASKS.keys()
    assert leaking(open_tiny(), tiny, names, tmp_path) == set()


def test_a_backend_that_remembers_a_conversation_is_caught(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    """The original defect: text behind a chat goes through its template."""
    backend = open_tiny()
    render, encode = backend.tokenizer.render, backend.tokenizer.encode
    conversations: list[Any] = []

    def rendering(messages: Any, date: Any) -> str:  # noqa: ANN401
        conversations.append(date)
        return render(messages, date)

    def encoding(text: str, *, special: bool) -> tuple[int, ...]:
        if special and conversations:
            text = render(({"role": "user", "content": text},), conversations[-1])
        return encode(text, special=special)

    backend.tokenizer.render = rendering  # type: ignore[method-assign, assignment]
    backend.tokenizer.encode = encoding  # type: ignore[method-assign]
    found = leaking(open_tiny(), backend, ["gsm8k", "bfcl", "gsm8k", "arc"], tmp_path)
    assert found == {("bfcl", "gsm8k"), ("gsm8k", "arc")}
