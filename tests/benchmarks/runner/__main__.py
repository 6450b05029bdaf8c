"""`python -m tests.benchmarks.runner`: ratios of one run on one machine, one line of JSON at the end.

Three comparisons, each in turn, so that other work on the machine meets both sides; the fastest round counts.

- Beside the bare engine and lm-eval in one process: CPU seconds on one thread, loading left out.
- Beside lm-eval's command line: CPU seconds of whole processes, from the start of Python to the result.
- Beside a bare HTTP loop on an idle server: requests per second.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.benchmarks.runner import endpoint, raw, whole
from tests.parity import cases, ours, theirs
from tests.parity.cases import Case

log = logging.getLogger("bench")
PROMPTS, QUESTIONS, ROUNDS, WHOLE_ROUNDS = 200, 285, 3, 2
BACKENDS = ("transformers", "vllm")


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


def in_one_process(folder: Path, wanted: Mapping[str, Case]) -> dict[str, float]:
    """The ratios of both local backends beside their engine and lm-eval."""
    found: dict[str, float] = {}
    model = wanted["generate"].model
    for backend in BACKENDS:
        mine, their = (side.load(model.folder, backend, model.window) for side in (ours, theirs))
        sides = Sides(backend, mine, their, folder / "data", folder / backend)
        seconds = dict(measured(sides, wanted))
        log.info("%s: CPU seconds %s", backend, json.dumps(seconds))
        found |= ratios(backend, seconds)
    return found


def from_start_to_result(folder: Path, wanted: Mapping[str, Case]) -> dict[str, float]:
    """How many times as fast as lm-eval's command line, by backend and task."""
    found = {}
    data, numbers = folder / "data", count()
    for backend, (name, case) in product(BACKENDS, wanted.items()):
        took: dict[str, list[whole.Took]] = {"ours": [], "lm-eval": []}
        for _ in range(WHOLE_ROUNDS):
            out = folder / "whole" / str(next(numbers))
            took["ours"].append(whole.runner(case, backend, data, out / "ours"))
            took["lm-eval"].append(whole.lm_eval(case, backend, data, out / "theirs", folder / "site"))
        log.info("%s %s, from start to result: %s", backend, name, took)
        mine, their = (min(t.cpu for t in took[side]) for side in ("ours", "lm-eval"))
        found[f"lm_eval_{backend}_{name}_whole_ratio"] = round(their / mine, 2)
    return found


def beside_a_server() -> dict[str, float]:
    """Requests per second over those of a bare loop, by requests in flight."""
    rates = endpoint.measured()
    log.info("requests per second, by requests in flight: %s", json.dumps(rates))
    return {f"endpoint_{n}_ratio": round(rate["ours"] / rate["bare"], 3) for n, rate in rates.items()}


def summary(found: Mapping[str, float]) -> dict[str, float]:
    """The least of each kind: what can be relied on."""
    least = {
        "lm_eval_ratio": [value for name, value in found.items() if name.endswith("_whole_ratio")],
        "endpoint_ratio": [value for name, value in found.items() if name.startswith("endpoint_")],
    }
    overhead = max(value for name, value in found.items() if name.startswith("overhead_"))
    return {name: min(values) for name, values in least.items()} | {"overhead_ms_per_sample": overhead}


def main() -> None:
    """Measure everything."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
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
        found = from_start_to_result(folder, wanted) | beside_a_server() | in_one_process(folder, wanted)
    print(json.dumps({"prompts": PROMPTS, "questions": QUESTIONS, **found, **summary(found)}))


if __name__ == "__main__":
    main()
