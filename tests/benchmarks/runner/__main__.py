"""`python -m tests.benchmarks.runner`: ratios of one run on one machine, one line of JSON at the end.

Four comparisons, each in turn, so that other work on the machine meets both sides; the fastest round counts.

- Beside the bare engine, with a real model: CPU seconds on one thread, loading left out.
- Beside the bare engine and lm-eval, with a model so small that all else shows: the same.
- Beside lm-eval's command line: CPU seconds of whole processes, from the start of Python to the result.
- Beside a bare HTTP loop on an idle server: requests per second.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import count, cycle, islice, product
from multiprocessing import get_context
from pathlib import Path

from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.benchmarks.runner import endpoint, engines, whole
from tests.benchmarks.runner.engines import Cases, Seconds
from tests.parity import cases, theirs
from tests.parity.cases import Case

log = logging.getLogger("bench")
PROMPTS, QUESTIONS, WHOLE_ROUNDS = 200, 285, 2
REAL_PROMPTS = 48
"""Of the real model, whose answers take a hundred times as long."""
BACKENDS = ("transformers", "vllm")


def write_data(folder: Path) -> None:
    """The tiny model's data sets, repeated to the sizes that are measured."""
    cases.write_data(folder, None)
    for name, rows in (("gsm", PROMPTS), ("mc", QUESTIONS)):
        path = folder / name / "test.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(islice(cycle(lines), rows)))


def beside_engines(pool: ProcessPoolExecutor, folder: Path, tiny: Cases, real: Case) -> dict[str, float]:
    """The ratios of both local backends: the real model beside its engine, the tiny one beside lm-eval too."""
    found: dict[str, float] = {}
    for backend in BACKENDS:
        large = pool.submit(
            engines.seconds, backend, folder, {"generate": real}, beside_lm_eval=False
        ).result()
        small = pool.submit(engines.seconds, backend, folder, tiny, beside_lm_eval=True).result()
        log.info("%s: CPU seconds %s", backend, json.dumps({real.model.name: large, "tiny": small}))
        found[f"{backend}_ratio"] = round(large["generate"]["raw"] / large["generate"]["ours"], 3)
        found |= ratios(backend, small)
    return found


def ratios(backend: str, tiny: Seconds) -> dict[str, float]:
    """How many times as fast as the others, and what a sample costs outside the engine."""
    generate, choose = tiny["generate"], tiny["choose"]
    return {
        f"{backend}_tiny_ratio": round(generate["raw"] / generate["ours"], 3),
        f"lm_eval_{backend}_generate_ratio": round(generate["lm-eval"] / generate["ours"], 2),
        f"lm_eval_{backend}_choose_ratio": round(choose["lm-eval"] / choose["ours"], 2),
        f"overhead_{backend}_ms_per_sample": round(1000 * (generate["ours"] - generate["raw"]) / PROMPTS, 3),
    }


def from_start_to_result(folder: Path, wanted: Cases) -> dict[str, float]:
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
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.runner", description=__doc__)
    parser.add_argument("prepared", type=Path, help="folder of `python -m examples.prepare`, with SmolLM2")
    prepared = parser.parse_args().prepared
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hub = {"HF_HOME": scratch, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        os.environ |= VLLM_ENVIRONMENT | hub | {"OMP_NUM_THREADS": "1"}
        theirs.pretend_vllm(folder / "site")
        write_data(folder / "data")
        every = {str(case): case for case in cases.tiny(folder)}
        tiny = {
            "generate": every["tiny/gsm/generate/0-shot/Text"],
            "choose": every["tiny/mc/choose/0-shot/Text"],
        }
        real = replace(tiny["generate"], model=cases.smollm2_model(prepared), limit=REAL_PROMPTS)
        found = from_start_to_result(folder, tiny) | beside_a_server()
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            found |= beside_engines(pool, folder, tiny, real)
    print(json.dumps({"prompts": PROMPTS, "questions": QUESTIONS, **found, **summary(found)}))


if __name__ == "__main__":
    main()
