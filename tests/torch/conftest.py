"""One tiny model in memory for all tests of this folder that need no process of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaljob.backends import Device, Dtype
from tests.backend_contract import NaiveModel
from tests.runner_plans import TINY

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend


@pytest.fixture(scope="session")
def open_tiny() -> Callable[..., "TransformersBackend"]:
    """Load the tiny model (or a changed copy of it) on one thread."""
    from evaljob_runner.backends.transformers import Options, TransformersBackend

    def load(folder: Path = TINY / "model", *, batch_size: int = 16, **more: Any) -> TransformersBackend:  # noqa: ANN401
        options = Options(
            dtype=Dtype.FLOAT32,
            device=Device.CPU,
            batch_size=batch_size,
            gpu_expected=False,
            threads=1,
            marks=more.pop("marks", ()),
        )
        return more.pop("kind", TransformersBackend)(folder, options, **more)  # type: ignore[no-any-return]

    return load


@pytest.fixture(scope="session")
def tiny(open_tiny: Callable[..., "TransformersBackend"]) -> "TransformersBackend":
    """The tiny model, shared: that this changes nothing is a promise with a test of its own."""
    return open_tiny()


@pytest.fixture(scope="session")
def naive() -> NaiveModel:
    """The reference."""
    return NaiveModel()
