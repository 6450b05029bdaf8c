"""Both sides on the cases of one model, in a process of its own.

An engine of vLLM that ends takes the process groups of its process with it.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any

from evaljob_runner.backends.base import Backend
from tests.parity import ours, theirs
from tests.parity.cases import Case
from tests.parity.compare import Difference, compare

log = logging.getLogger("parity")


def compared(wanted: list[Case], backend: str, data: Path, out: Path) -> list[tuple[int, list[Difference]]]:
    """Each case of one model with its number of samples and its differences; each side loads the model once."""
    model = wanted[0].model
    mine, their = (side.load(model.folder, backend, model.window) for side in (ours, theirs))
    return [_compared(case, backend, data, out, mine, their) for case in wanted]


def _compared(
    case: Case,
    backend: str,
    data: Path,
    out: Path,
    mine: Backend,
    their: Any,  # noqa: ANN401 - an lm_eval.api.model.LM
) -> tuple[int, list[Difference]]:
    begin = time.monotonic()
    first = ours.run(case, mine, backend, data, out / backend / str(case).replace("/", "-"))
    middle = time.monotonic()
    second = theirs.run(case, their, data)
    found = list(compare(f"{backend}: {case}", first, second, case.precision))
    seconds = f"{middle - begin:.1f} s, lm-eval {time.monotonic() - middle:.1f} s"
    size = len(first.samples)
    log.info("%s: %s: %d samples, %d differences, %s", backend, case, size, len(found), seconds)
    return size, found


def begin(site: Path) -> None:
    """The start of each process."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    theirs.pretend_vllm(site)
