"""One engine with the tiny model for all tests of this folder that need no process of their own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaljob.backends import Dtype
from tests.backend_contract import NaiveModel
from tests.runner_plans import TINY

if TYPE_CHECKING:
    from evaljob_runner.backends.vllm import VLLMBackend

Load = Callable[..., "VLLMBackend"]


def _load(folder: Path = TINY / "model", **changes: Any) -> "VLLMBackend":  # noqa: ANN401 - fields of Options
    """The tiny model (or a changed copy of it) in an engine, as the runner opens it."""
    from evaljob_runner import opening

    os.environ |= opening.VLLM_ENVIRONMENT
    from evaljob_runner.backends import vllm

    vllm.CPU_KV_CACHE_BYTES = changes.pop("cache_bytes", 64 * 1024**2)
    leave = changes.pop("leave", pytest.fail)
    options: dict[str, Any] = {"dtype": Dtype.FLOAT32, "tensor_parallel_size": 1, "max_model_len": None}
    options |= {"gpu_memory_utilization": 0.9, "gpu_expected": False}
    return vllm.VLLMBackend(folder, vllm.Options(**(options | changes)), leave)


@pytest.fixture(scope="session")
def open_tiny() -> Load:
    """Load engines that stay: the end of one takes down torch's process group, which all of a process share."""
    opened: list[VLLMBackend] = []

    def load(folder: Path = TINY / "model", **changes: Any) -> "VLLMBackend":  # noqa: ANN401 - as above
        opened.append(_load(folder, **changes))
        return opened[-1]

    return load


@pytest.fixture(scope="session")
def tiny() -> "VLLMBackend":
    """The tiny model, shared: that this changes nothing is a promise with a test of its own."""
    return _load()


@pytest.fixture(scope="session")
def naive() -> NaiveModel:
    """The reference."""
    return NaiveModel()
