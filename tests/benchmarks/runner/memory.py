"""`python -m tests.benchmarks.runner.memory`: the runner's memory by the number of samples; the last line is JSON.

A process for each number and way, with a model that costs nothing: what is measured is the runner. `first` asks all,
`again` finds all in the log and makes the scores anew. The peak is the process' largest resident size.
"""

import argparse
import io
import json
import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from evaljob_runner.backends.base import Answer, Finish, GenerateRequest
from evaljob_runner.backends.scripted import ScriptedBackend
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import assignment, planned, tiny_model, tiny_task

SIZES = (1_000, 100_000, 1_000_000)
_CONTEXT = multiprocessing.get_context("spawn")


class Forgetful(ScriptedBackend):
    """Answers "7" and keeps nothing."""

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Answer]:
        """Answers in order."""
        for request in requests:
            yield Answer(request.key, "7", Finish.STOP, prompt_tokens=1, output_tokens=1)


def write(path: Path, samples: int) -> None:
    """Questions of about 200 bytes, some in each of ten subsets."""
    with path.open("w") as file:
        for i in range(samples):
            row = {"key": f"q{i:08}", "question": f"{i} plus {i % 97}? " * 10, "answer": str(i + i % 97)}
            file.write(json.dumps(row | {"subject": f"s{10 * i // samples}"}) + "\n")


def measure(folder: Path, attempt: str, *, own_ids: bool, told: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    """In a process of its own: evaluate all questions, tell the peak in KiB and the CPU seconds."""
    names = {"id": "{{ key }}"} if own_ids else {}
    task = tiny_task(
        "gsm", prompt="{{ question }}", target="{{ answer }}", subsets={"column": "subject"}, **names
    )
    dataset = planned(task, source="pvc://data/rows.jsonl")
    work = assignment(tiny_model(), dataset, folder / "out", attempt=attempt, data=folder)
    shell = Shell(lambda *_: Forgetful(), Progress(io.StringIO()), Stopwatch(), lambda _: None)
    found = evaluate(work, shell)
    told.put(
        (found.outcomes.completed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time())
    )


def measured(folder: Path, attempt: str, *, own_ids: bool) -> tuple[float, float]:
    """Peak in MiB and CPU seconds of one process."""
    told = _CONTEXT.SimpleQueue()
    process = _CONTEXT.Process(
        target=measure, args=(folder, attempt), kwargs={"own_ids": own_ids, "told": told}
    )
    process.start()
    _, peak, seconds = told.get()
    process.join()
    return round(peak / 1024, 1), round(seconds, 1)


def main() -> None:
    """Print a line per size, then what a sample adds."""
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser()
    parser.add_argument("--own-ids", action="store_true", help="the task makes the ids")
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    peaks: dict[str, dict[str, float]] = {}
    for samples in args.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write(folder / "rows.jsonl", samples)
            for attempt in ("first", "again"):
                peak, seconds = measured(folder, attempt, own_ids=args.own_ids)
                peaks.setdefault(attempt, {})[str(samples)] = peak
                print(
                    f"{samples} {attempt}: {peak} MiB, {1000 * seconds / samples:.3f} CPU ms per sample",
                    flush=True,
                )
    small, large = args.sizes[0], args.sizes[-1]
    grown = max(p[str(large)] - p[str(small)] for p in peaks.values())
    print(json.dumps({"peak_mib": peaks, "bytes_per_sample": round(grown * 2**20 / (large - small))}))


if __name__ == "__main__":
    main()
