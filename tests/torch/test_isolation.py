"""Nothing passes from one dataset to the next: the test of the leak that started this project.

Backends that leak on purpose show that the search can find something.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.isolation import GENERATING, Seen, leaks

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend

pytestmark = pytest.mark.torch


@contextmanager
def watched(backend: "TransformersBackend") -> Iterator[Seen]:
    """Rows of `generate` with every sampling parameter, and rows of log-likelihoods."""
    seen: Seen = []
    generate, logits = backend.model.generate, backend._logits  # noqa: SLF001 - right before the engine

    def generating(**call: Any) -> Any:  # noqa: ANN401 - the engine's own interface
        steps = [type(step).__name__ for step in call["logits_processor"]]
        params = f"{call['generation_config'].to_diff_dict()} {steps}"
        for ids, mask in zip(call["input_ids"], call["attention_mask"], strict=True):
            seen.append((tuple(ids[mask.bool()].tolist()), params))
        return generate(**call)

    def weighing(ids: Any, mask: Any, positions: list[int]) -> Any:  # noqa: ANN401 - as above
        seen.extend((tuple(row[m.bool()].tolist()), "") for row, m in zip(ids, mask, strict=True))
        return logits(ids, mask, positions)

    backend.model.generate, backend._logits = generating, weighing  # type: ignore[method-assign]  # noqa: SLF001
    try:
        yield seen
    finally:
        del backend.model.generate, backend._logits  # noqa: SLF001


def test_the_order_of_datasets_changes_neither_tokens_nor_answers(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    assert leaks(open_tiny, watched, tmp_path) == set()


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

        backend.tokenizer.render = rendering  # type: ignore[method-assign, assignment]
        backend.tokenizer.encode = encoding  # type: ignore[method-assign]
        return backend

    assert leaks(leaky, watched, tmp_path, GENERATING) == {"gsm"}


def test_a_backend_that_remembers_the_last_sampling_is_caught(
    open_tiny: Callable[..., "TransformersBackend"], tmp_path: Path
) -> None:
    from evaljob_runner.backends.transformers import TransformersBackend

    class Leaky(TransformersBackend):
        remembered: Any = None

        def _generate(self, batch: Any, sampling: Any) -> Any:  # noqa: ANN401
            self.remembered = self.remembered or sampling
            return super()._generate(batch, self.remembered)

    assert leaks(lambda: open_tiny(kind=Leaky), watched, tmp_path, GENERATING) == {"gsm"}
