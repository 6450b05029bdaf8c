"""The one place that knows which backends there are. Each is imported only where it is used."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from evaljob.backends import VLLM, Transformers
from evaljob.judges import Judge
from evaljob.names import Reason
from evaljob.podfields import wants_gpu
from evaljob_runner import checkpoints
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Backend, Correspondent, Tokenizer
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal, Stop
from evaljob_runner.progress import Stopwatch

VLLM_ENVIRONMENT = {
    # One process: it starts in a third of the time, and ends as a whole.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # On CPUs: pods share a node, and binding would put the threads of all on the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # Standard output holds progress lines.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
# ruff: noqa: PLC0415 - importing torch takes seconds, and an image for servers does not hold it


def open_backend(
    work: Assignment, checkpoint: Checkpoint | None, stopwatch: Stopwatch, leave: Callable[[Stop], object]
) -> Backend:
    """Load the model, or get ready to ask its server (`checkpoint` is None).

    Args:
        work: whose model.
        checkpoint: of a local model.
        stopwatch: told how long it takes.
        leave: ends the process from another thread, when an engine hangs.

    Raises:
        Fatal: when that cannot work.
    """
    if work.model.openai:
        from evaljob_runner.backends.openai import OpenAIBackend

        return OpenAIBackend(work.model.openai, work.places.api_key_file)
    if work.model.local is None or checkpoint is None:
        raise ValueError(f"model {work.model.name} has no backend")
    if isinstance(work.model.local, VLLM):
        return _vllm(work, work.model.local, checkpoint, stopwatch, leave)
    return _transformers(work, work.model.local, checkpoint, stopwatch)


def _shared(work: Assignment) -> dict[str, Any]:
    """What both engines are told of a model."""
    thinks = work.model.reasoning
    gpu = wants_gpu(work.model.runner.resources.limits)
    return {"gpu_expected": gpu, "marks": (thinks.start, thinks.end) if thinks else ()}


@contextmanager
def _installed(extra: str) -> Iterator[None]:
    """Another attempt in the same image would find no more.

    Raises:
        Fatal: BadConfiguration, where a library is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"{error.name} is not installed: use an image made with evaljob[{extra}] (chart value "
            f"runner.images.{extra}, or runner.image), on your machine pip install 'evaljob[runner,{extra}]'",
        ) from error


def _transformers(
    work: Assignment, spec: Transformers, checkpoint: Checkpoint, stopwatch: Stopwatch
) -> Backend:
    with stopwatch.phase("start"), _installed("transformers"):
        from evaljob_runner.backends.transformers import Options, TransformersBackend
    options = Options(
        dtype=spec.dtype,
        device=spec.device,
        batch_size=spec.batch_size,
        threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        **_shared(work),
    )
    with stopwatch.phase("load"):
        return TransformersBackend(checkpoint.load(), options)


def _vllm(
    work: Assignment,
    spec: VLLM,
    checkpoint: Checkpoint,
    stopwatch: Stopwatch,
    leave: Callable[[Stop], object],
) -> Backend:
    _set_vllm_environment()
    with stopwatch.phase("start"), _installed("vllm"):
        from evaljob_runner.backends.vllm import Options, VLLMBackend
    options = Options(
        dtype=spec.dtype,
        tensor_parallel_size=spec.tensor_parallel_size,
        max_model_len=spec.max_model_len,
        gpu_memory_utilization=spec.gpu_memory_utilization,
        **_shared(work),
    )
    with stopwatch.phase("load"):
        return VLLMBackend(checkpoint.load(), options, leave)


def _set_vllm_environment() -> None:
    """Before vLLM is imported. What an installation has set stays."""
    os.environ |= {k: v for k, v in VLLM_ENVIRONMENT.items() if k not in os.environ}


def open_judge(judge: Judge, key_file: Path | None) -> Correspondent:
    """Get ready to ask a judge."""
    from evaljob_runner.backends.correspondent import OpenAICorrespondent

    return OpenAICorrespondent(judge.openai, key_file)


class Machine(NamedTuple):
    """What lm-eval's own models are told of this machine and the checkpoint, as our backends do it."""

    device: str
    arguments: Mapping[str, Any]


def machine(work: Assignment, folder: Path | None) -> Machine:
    """For partitions that lm-eval computes.

    Args:
        work: whose model.
        folder: its checkpoint; None behind a server.

    Raises:
        Fatal: DeviceUnavailable.
    """
    if folder is None:
        return Machine("server", {})
    gpu = wants_gpu(work.model.runner.resources.limits)
    if isinstance(work.model.local, Transformers):
        with _installed("transformers"):
            from evaljob_runner.backends import transformers

        device = transformers.chosen_device(work.model.local.device, gpu_expected=gpu)
        window = transformers.window_in(folder)
        more = {"max_length": window} if window else {}
        return Machine(transformers.device_name(device), {"device": device, **more})
    _set_vllm_environment()
    with _installed("vllm"):
        from evaljob_runner.backends import vllm

    vllm.refuse_missing_gpu(gpu_expected=gpu)
    return Machine(vllm.device_name(), vllm.limits())


def open_tokenizer(work: Assignment) -> Tokenizer | None:
    """The tokenizer alone; None for a server's model."""
    folder = checkpoints.tokenizer_folder(work)
    if folder is None:
        return None
    with _installed(work.model.backend):
        from evaljob_runner.backends.tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(folder)
