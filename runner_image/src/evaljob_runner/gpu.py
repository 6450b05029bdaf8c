"""Whether an exception is a GPU's or its driver's fault, by its text: no type of torch, vLLM or NCCL says so.

The texts are those of cudaGetErrorString (HIP's are the same), cuBLAS, cuDNN, NCCL and NVML. What a smaller batch,
another image or other data would mend is not among them: memory, missing kernels, device-side assertions.
"""

import re
from collections.abc import Iterator

from evaljob.names import Reason
from evaljob_runner.errors import Retry, Stop

SHOWN = 400
"""Characters of what the library says."""
_CUDA = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected",
    "Invalid access of peer GPU memory over nvlink or a hardware error",
    "hardware stack error",
    "all CUDA-capable devices are busy or unavailable",
    "system not yet initialized",
    "unknown error",
)
_PATTERNS = (
    rf"(CUDA|HIP)( driver)? error: ({'|'.join(_CUDA)})",
    r"CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)",
    r"NCCL error|nccl(UnhandledCuda|System|Internal|Remote)Error",
    r"NVMLError_(GpuIsLost|ResetRequired|Unknown)|GPU is lost|GPU requires reset|fallen off the bus",
    r"\bXid\b.*\d",
)
_FAULT = re.compile("|".join(_PATTERNS))


def gpu_fault(error: BaseException) -> Retry | None:
    """The end of an attempt that a GPU has spoiled, None for any other error.

    Another attempt, perhaps on another node, may well succeed: also where a backend has taken the exception for
    a checkpoint that cannot be loaded.
    """
    # What an end of ours says may hold a user's words.
    for cause in (e for e in _chain(error) if not isinstance(e, Stop)):
        text = f"{type(cause).__name__}: {cause}"
        if found := _FAULT.search(text):
            # Of a long text, a worker's traceback, the part that tells.
            start = max(found.start() - SHOWN // 4, 0) if len(text) > SHOWN else 0
            return Retry(Reason.GPU_ERROR, text[start : start + SHOWN])
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The first cause first: it says more than what was made of it."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    return reversed(chain)
