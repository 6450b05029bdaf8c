"""Nothing passes from one dataset to the next: the test of the leak that started this project.

There, a chat dataset replaced the model object's template, and the next dataset, plain generation, was rendered
with it. Here one live model serves both in either order, and what reaches the engine is compared with what
each dataset alone gives. A backend that leaks on purpose shows that the comparison can fail.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.report import Progress, Stopwatch
from tests.runner_plans import assignment, tiny_dataset, tiny_model

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend

pytestmark = pytest.mark.torch
Seen = list[tuple[tuple[int, ...], str]]
"""What the engine saw: the token ids of each row, and every sampling parameter."""
# A chat dataset with stop texts and sampling of its own, and plain generation after (or before) it.
GENERATION = {"chat": {"temperature": 0.7, "top_k": 3, "max_tokens": 12}, "gsm": {}}
FORMATS = {"chat": "Chat", "gsm": "Text"}


@contextmanager
def watched(backend: "TransformersBackend") -> Iterator[Seen]:
    """Everything that reaches the engine's `generate`, in the order of prompts."""
    seen: Seen = []
    inner = backend.model.generate

    def spy(**call: Any) -> Any:  # noqa: ANN401 - the engine's own interface
        steps = [type(step).__name__ for step in call["logits_processor"]]
        params = f"{call['generation_config'].to_diff_dict()} {steps}"
        for ids, mask in zip(call["input_ids"], call["attention_mask"], strict=True):
            seen.append((tuple(ids[mask.bool()].tolist()), params))
        return inner(**call)

    backend.model.generate = spy
    try:
        yield seen
    finally:
        del backend.model.generate


def run(backend: "TransformersBackend", name: str, out: Path) -> Seen:
    """Evaluate a dataset on a live backend; returns what the engine saw."""
    model = tiny_model(promptFormat=FORMATS[name], generation=GENERATION[name])
    work = assignment(model, tiny_dataset(name, limit=8), out / name)
    with watched(backend) as seen, (out / f"{name}.progress").open("w") as said:
        evaluate(work, Shell(lambda *_: backend, Progress(said), Stopwatch(), lambda _: None))
    assert seen
    return sorted(seen)


def orders(make: Callable[[], "TransformersBackend"], out: Path) -> list[Mapping[str, Seen]]:
    """Chat then plain, plain then chat, and each alone, each time on a fresh backend."""
    found: list[Mapping[str, Seen]] = []
    for i, names in enumerate((("chat", "gsm"), ("gsm", "chat"), ("chat",), ("gsm",))):
        backend, folder = make(), out / str(i)
        folder.mkdir()
        found.append({name: run(backend, name, folder) for name in names})
    return found


def leaks(runs: list[Mapping[str, Seen]]) -> set[str]:
    """Datasets whose token ids or sampling parameters depend on what ran before."""
    first, second, chat, gsm = runs
    alone = {**chat, **gsm}
    return {name for name in alone for order in (first, second) if order[name] != alone[name]}


def test_the_order_of_datasets_changes_neither_tokens_nor_sampling(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    backend = open_tiny()
    assert leaks(orders(lambda: backend, tmp_path)) == set()


def test_a_backend_that_remembers_the_last_template_is_caught(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    """The original defect: once a conversation was rendered, every later text goes through the template too."""

    def leaky() -> "TransformersBackend":
        backend = open_tiny()
        render, encode = backend.tokenizer.render, backend.tokenizer.encode
        remembered: list[Any] = []

        def rendering(messages: Any, date: Any) -> str:  # noqa: ANN401
            remembered.append(date)
            return render(messages, date)

        def encoding(text: str, *, special: bool) -> tuple[int, ...]:
            if remembered and special:
                text = render(({"role": "user", "content": text},), remembered[-1])
            return encode(text, special=special)

        backend.tokenizer.render = rendering  # type: ignore[method-assign]
        backend.tokenizer.encode = encoding  # type: ignore[method-assign]
        return backend

    assert leaks(orders(leaky, tmp_path)) == {"gsm"}


def test_a_backend_that_remembers_the_last_sampling_is_caught(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    from evaljob_runner.backends.transformers import TransformersBackend

    class Leaky(TransformersBackend):
        remembered: Any = None

        def _generate(self, batch: Any, sampling: Any) -> Any:  # noqa: ANN401
            self.remembered = self.remembered or sampling
            return super()._generate(batch, self.remembered)

    assert leaks(orders(lambda: open_tiny(kind=Leaky), tmp_path)) == {"chat", "gsm"}
