"""Which exceptions are a GPU's fault; the texts are those that users of torch, vLLM and NCCL have reported."""

import pytest

from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.gpu import SHOWN, gpu_fault

ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
GEMM = (
    "`cublasGemmEx( handle, opa, opb, m, n, k, &falpha, a, CUDA_R_16F, lda, b, CUDA_R_16F, ldb, &fbeta, c)`"
)
WORKER = "Worker failed with error '{}', please check the stack trace above for the root cause"


class AcceleratorError(RuntimeError):
    """As torch calls it since 2.8."""


class NVMLError_GpuIsLost(Exception):  # noqa: N801, N818 - as pynvml calls it
    """As pynvml makes it."""


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: an illegal memory access was encountered" + ADVICE),
        AcceleratorError("CUDA error: an illegal instruction was encountered" + ADVICE),
        RuntimeError("CUDA error: uncorrectable ECC error encountered\nCompile with `TORCH_USE_CUDA_DSA` to"),
        RuntimeError("CUDA error: unspecified launch failure" + ADVICE),
        RuntimeError("HIP error: an illegal memory access was encountered"),
        RuntimeError(f"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling {GEMM}"),
        RuntimeError(
            WORKER.format("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`")
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"),
        RuntimeError(
            "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, remote process exited "
            "or there was a network error, NCCL version 2.20.5\nncclRemoteError: A call failed possibly due "
            "to a network error or a remote process exiting prematurely."
        ),
        NVMLError_GpuIsLost("GPU is lost"),
        RuntimeError("Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  Reboot the system"),
        RuntimeError("NVRM: Xid (PCI:0000:44:00): 79, GPU has fallen off the bus"),
    ],
)  # fmt: skip
def test_a_fault_of_the_gpu_is_tried_again_under_its_own_reason(error: Exception) -> None:
    end = gpu_fault(error)
    assert isinstance(end, Retry)
    assert end.reason is Reason.GPU_ERROR
    assert str(end).startswith(f"{type(error).__name__}: {str(error)[:40]}")
    assert len(str(end)) <= SHOWN


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB",
        "CUDA error: out of memory",
        "CUDA error: device-side assert triggered" + ADVICE,
        "CUDA error: no kernel image is available for execution on the device" + ADVICE,
        "CUDA error: invalid device ordinal",
        "The NVIDIA driver on your system is too old (found version 11040)",
        "Error(s) in loading state_dict for Model: size mismatch for weight",
    ],
)
def test_what_another_attempt_would_not_mend_is_none(text: str) -> None:
    assert gpu_fault(RuntimeError(text)) is None


def test_a_backend_that_took_it_for_a_bad_checkpoint_is_overruled() -> None:
    text = "CUDA error: uncorrectable ECC error encountered"
    end = Fatal(Reason.BAD_CONFIGURATION, f"vLLM cannot load the model: {text}")
    end.__cause__ = AcceleratorError(text)
    assert str(gpu_fault(end)) == f"AcceleratorError: {text}"


def test_words_of_a_user_are_no_fault() -> None:
    assert gpu_fault(Fatal(Reason.BAD_DATA, "line 3: 'CUDA error: unknown error'")) is None


def test_of_a_long_text_the_part_that_tells_is_kept() -> None:
    end = gpu_fault(RuntimeError("x" * 5000 + "CUDA error: misaligned address" + "y" * 5000))
    assert "CUDA error: misaligned address" in str(end)
    assert len(str(end)) == SHOWN
