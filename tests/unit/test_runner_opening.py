"""What an image without a backend's libraries says, where more attempts would say the same."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evaljob.names import Reason
from evaljob.spec import Model
from evaljob_runner import opening
from evaljob_runner.assignment import Assignment
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal
from evaljob_runner.progress import Stopwatch
from tests.runner_plans import TINY, assignment, tiny_dataset, tiny_model, tiny_vllm

CHECKPOINT = Checkpoint("d", "sha256", dated=False, load=lambda: TINY / "model")


def backend(work: Assignment) -> object:
    return opening.open_backend(work, CHECKPOINT, Stopwatch(), leave=str)


def machine(work: Assignment) -> object:
    return opening.machine(work, TINY / "model")


@pytest.mark.parametrize("needed", [backend, machine, opening.open_tokenizer])
@pytest.mark.parametrize("model", [tiny_model(), tiny_vllm()])
def test_a_missing_library_ends_for_good_and_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needed: Callable[[Assignment], object], model: Model
) -> None:
    for name in ("torch", "transformers", "vllm", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        Fatal, match=rf"is not installed: use an image made with evaljob\[{model.backend}\]"
    ) as e:
        needed(assignment(model, tiny_dataset("kind"), tmp_path))
    assert e.value.reason is Reason.BAD_CONFIGURATION
