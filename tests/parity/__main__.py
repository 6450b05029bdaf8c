"""`python -m tests.parity`: compare, tell on standard error, end with one line of JSON on standard output."""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, groupby
from multiprocessing import get_context
from pathlib import Path

from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.parity import cases, sides

BACKENDS = ("transformers", "vllm")


def main() -> int:
    """Compare; exit code 1 where a difference has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: both")
    parser.add_argument("--prepared", type=Path, help="folder of `python -m examples.prepare`: SmolLM2 too")
    parser.add_argument("--limit", type=int, default=24, help="samples of SmolLM2 per task")
    args = parser.parse_args()
    explained: Counter[str] = Counter()
    samples = tasks = unexplained = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= VLLM_ENVIRONMENT | {
            "HF_HOME": scratch,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
        cases.write_data(folder / "data", args.prepared)
        wanted = cases.tiny(folder) + (cases.smollm2(args.prepared, args.limit) if args.prepared else [])
        groups = [list(group) for _, group in groupby(wanted, key=lambda case: case.model)]
        # An engine of vLLM that ends takes the process's groups with it: a process for each model.
        with ProcessPoolExecutor(
            1, get_context("spawn"), sides.begin, (folder / "site",), max_tasks_per_child=1
        ) as pool:
            jobs = [
                pool.submit(sides.compared, group, backend, folder / "data", folder / "out")
                for backend in args.backend or BACKENDS
                for group in groups
            ]
            for count, found in chain.from_iterable(job.result() for job in jobs):
                tasks, samples = tasks + 1, samples + count
                explained.update(difference.why for difference in found if difference.why)
                for difference in (d for d in found if not d.why):
                    unexplained += 1
                    print(f"unexplained: {difference}", file=sys.stderr)
    print(
        json.dumps({"tasks": tasks, "samples": samples, "unexplained": unexplained, "explained": explained})
    )
    return 1 if unexplained or not samples else 0


if __name__ == "__main__":
    sys.exit(main())
