"""The one place that knows which backends there are. Each is imported only where it is used."""

import os

from evaljob_runner import checkpoints
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Backend, Tokenizer
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.report import Stopwatch

_GPU_SUFFIX = "/gpu"
# ruff: noqa: PLC0415 - importing torch takes seconds, and an image for servers does not hold it


def open_backend(work: Assignment, checkpoint: Checkpoint | None, stopwatch: Stopwatch) -> Backend:
    """Load the model, or get ready to ask its server (`checkpoint` is None).

    Raises:
        Fatal: when that cannot work.
    """
    if work.model.openai:
        from evaljob_runner.backends.openai import OpenAIBackend

        return OpenAIBackend(work.model.openai, work.places.api_key_file)
    if work.model.transformers is None or checkpoint is None:
        raise ValueError(f"model {work.model.name} has no backend")
    with stopwatch.phase("start"):
        from evaljob_runner.backends.transformers import Options, TransformersBackend
    spec = work.model.transformers
    limits = work.model.runner.resources.limits
    options = Options(
        dtype=spec.dtype,
        device=spec.device,
        batch_size=spec.batch_size,
        gpu_expected=any(k.endswith(_GPU_SUFFIX) and str(v) != "0" for k, v in limits.items()),
        threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
    )
    with stopwatch.phase("load"):
        return TransformersBackend(checkpoint.load(), options)


def open_tokenizer(work: Assignment) -> Tokenizer | None:
    """The tokenizer alone; None for a server's model."""
    folder = checkpoints.tokenizer_folder(work)
    if folder is None:
        return None
    from evaljob_runner.backends.tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(folder)
