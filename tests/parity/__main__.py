"""`python -m tests.parity`: compare, tell on standard error, end with one line of JSON on standard output."""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.parity import cases, ours, theirs
from tests.parity.cases import Case
from tests.parity.compare import Difference, compare

log = logging.getLogger("parity")
BACKENDS = ("transformers", "vllm")


def compared(
    wanted: list[Case], backend: str, data: Path, out: Path
) -> Iterator[tuple[int, list[Difference]]]:
    """Each case with its number of samples and its differences; each model is loaded once by each side."""
    for model, group in groupby(wanted, key=lambda case: case.model):
        mine, their = (side.load(model.folder, backend, model.window) for side in (ours, theirs))
        for case in group:
            begin = time.monotonic()
            first = ours.run(case, mine, backend, data, out / backend / str(case).replace("/", "-"))
            middle = time.monotonic()
            second = theirs.run(case, their, data)
            found = list(compare(f"{backend}: {case}", first, second))
            seconds = f"{middle - begin:.1f} s, lm-eval {time.monotonic() - middle:.1f} s"
            log.info(
                "%s: %s: %d samples, %d differences, %s",
                backend,
                case,
                len(first.samples),
                len(found),
                seconds,
            )
            yield len(first.samples), found


def main() -> int:
    """Compare; exit code 1 where a difference has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: both")
    parser.add_argument("--prepared", type=Path, help="folder of `python -m examples.prepare`: SmolLM2 too")
    parser.add_argument("--limit", type=int, default=24, help="samples of SmolLM2 per task")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    explained: Counter[str] = Counter()
    samples = tasks = unexplained = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= VLLM_ENVIRONMENT | {
            "HF_HOME": scratch,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
        theirs.pretend_vllm(folder / "site")
        cases.write_data(folder / "data", args.prepared)
        wanted = cases.tiny(folder) + (cases.smollm2(args.prepared, args.limit) if args.prepared else [])
        for backend in args.backend or BACKENDS:
            for count, found in compared(wanted, backend, folder / "data", folder / "out"):
                tasks, samples = tasks + 1, samples + count
                for difference in found:
                    if difference.why:
                        explained[difference.why] += 1
                    else:
                        unexplained += 1
                        log.warning("unexplained: %s", difference)
    print(
        json.dumps({"tasks": tasks, "samples": samples, "unexplained": unexplained, "explained": explained})
    )
    return 1 if unexplained or not samples else 0


if __name__ == "__main__":
    sys.exit(main())
