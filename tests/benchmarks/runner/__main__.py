"""`python -m tests.benchmarks.runner`: ratios of one run on one machine, one line of JSON at the end.

All times are CPU seconds of this process, on one thread: other work on the machine changes them least. Loading is
left out, as every side does it once. Each side runs `ROUNDS` times, in turn; its fastest round counts.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.benchmarks.runner import raw
from tests.parity import cases, ours, theirs
from tests.parity.cases import Case

log = logging.getLogger("bench")
PROMPTS, QUESTIONS, ROUNDS = 200, 285, 3


@dataclass(frozen=True)
class Sides:
    """One backend, loaded by us and by lm-eval."""

    backend: str
    mine: Any
    their: Any
    data: Path
    out: Path


def write_data(folder: Path) -> None:
    """The tiny model's data sets, repeated to the sizes that are measured."""
    cases.write_data(folder, None)
    for name, rows in (("gsm", PROMPTS), ("mc", QUESTIONS)):
        path = folder / name / "test.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(islice(cycle(lines), rows)))


def fastest(sides: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """CPU seconds of each side's fastest round; the first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, side in sides.items():
            begin = time.process_time()
            side()
            if number:
                found[name].append(time.process_time() - begin)
    return {name: min(seconds) for name, seconds in found.items()}


def measured(sides: Sides, wanted: Mapping[str, Case]) -> Iterator[tuple[str, dict[str, float]]]:
    """Seconds of each task by side: the runner, lm-eval, and for generation the engine alone."""
    numbers = count()
    for task, case in wanted.items():

        def mine(case: Case = case) -> object:
            out = sides.out / str(next(numbers))
            return ours.evaluated(case, sides.mine, sides.backend, sides.data, out)

        def their(case: Case = case) -> object:
            return theirs.run(case, sides.their, sides.data)

        run: dict[str, Callable[[], object]] = {"ours": mine, "lm-eval": their}
        if case.kind == "generate":
            prompts = raw.prompts(sides.mine.tokenizer, sides.data / case.data / "test.jsonl")
            run["raw"] = raw.loop(sides.backend, sides.their, prompts)
        yield task, fastest(run)


def ratios(backend: str, seconds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many times as fast as the others, and what a sample costs outside the engine."""
    generate, choose = seconds["generate"], seconds["choose"]
    return {
        f"{backend}_ratio": round(generate["raw"] / generate["ours"], 3),
        f"lm_eval_{backend}_generate_ratio": round(generate["lm-eval"] / generate["ours"], 2),
        f"lm_eval_{backend}_choose_ratio": round(choose["lm-eval"] / choose["ours"], 2),
        f"overhead_{backend}_ms_per_sample": round(1000 * (generate["ours"] - generate["raw"]) / PROMPTS, 3),
    }


def main() -> None:
    """Measure both local backends."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= VLLM_ENVIRONMENT | {
            "HF_HOME": scratch,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
        theirs.pretend_vllm(folder / "site")
        write_data(folder / "data")
        every = {str(case): case for case in cases.tiny(folder)}
        wanted = {
            "generate": every["tiny/gsm/generate/0-shot/Text"],
            "choose": every["tiny/mc/choose/0-shot/Text"],
        }
        model = wanted["generate"].model
        for backend in ("transformers", "vllm"):
            mine, their = (side.load(model.folder, backend, model.window) for side in (ours, theirs))
            sides = Sides(backend, mine, their, folder / "data", folder / backend)
            seconds = dict(measured(sides, wanted))
            log.info("%s: CPU seconds %s", backend, json.dumps(seconds))
            found |= ratios(backend, seconds)
    print(json.dumps({"prompts": PROMPTS, "questions": QUESTIONS, **found}))


if __name__ == "__main__":
    main()
