"""How a process of the runner ends that meets what no test can bring about here: a GPU that breaks."""

import subprocess
import sys
from pathlib import Path

import pytest

from evaljob.framing import decode
from evaljob.result import Failure

PROGRAM = """
import sys
from evaljob_runner import __main__ as runner

def broken(args, ending):
    ending.know(attempt="a-1", durable=True)
    raise RuntimeError(sys.argv[1])

runner._run = broken
sys.exit(runner.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("CUDA error: uncorrectable ECC error encountered", 75, "GPUError"),
        ("CUDA error: device-side assert triggered", 1, "RunnerFailed"),
    ],
)
def test_a_gpu_that_breaks_ends_an_attempt_and_not_the_partition(
    tmp_path: Path, text: str, code: int, reason: str
) -> None:
    result = tmp_path / "result"
    where = ("--plan", tmp_path, "--model", "m", "--dataset", "d", "--out", tmp_path, "--result", result)
    process = subprocess.run([sys.executable, "-c", PROGRAM, text, *map(str, where)], check=False, timeout=60)
    report = decode(result.read_text())
    assert isinstance(report, Failure)
    assert (process.returncode, report.reason, report.attempt) == (code, reason, "a-1")
    assert text in report.message
