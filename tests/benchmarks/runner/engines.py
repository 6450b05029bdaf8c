"""The runner beside the bare engine and lm-eval, all in this process: CPU seconds, loading left out."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from evaljob_runner.progress import Stopwatch
from tests.benchmarks.runner import raw
from tests.parity import ours, theirs
from tests.parity.cases import Case

ROUNDS = 3
Cases = Mapping[str, Case]
Seconds = Mapping[str, Mapping[str, float]]
"""By task and side."""


@dataclass(frozen=True)
class Sides:
    """One backend, loaded by us and, where it is compared with, by lm-eval."""

    backend: str
    mine: Any
    their: Any | None
    data: Path
    out: Path


def cpu(run: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def fastest(sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The seconds of each side's fastest round; the first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, side in sides.items():
            seconds = side()
            if number:
                found[name].append(seconds)
    return {name: min(seconds) for name, seconds in found.items()}


def measured(sides: Sides, wanted: Cases) -> Iterator[tuple[str, dict[str, float]]]:
    """Seconds of each task by side: the runner, lm-eval, and for generation the engine alone."""
    numbers = count()
    for task, case in wanted.items():

        def mine(case: Case = case) -> float:
            watch, out = Stopwatch(clock=time.process_time), sides.out / str(next(numbers))
            whole = cpu(lambda: ours.evaluated(case, sides.mine, sides.backend, sides.data, out, watch))
            return whole - watch.seconds["load"]

        def their(case: Case = case) -> float:
            return cpu(lambda: theirs.run(case, sides.their, sides.data))

        run: dict[str, Callable[[], float]] = {"ours": mine}
        if sides.their:
            run["lm-eval"] = their
        if case.kind == "generate":
            rows = raw.prompts(sides.mine.tokenizer, sides.data / case.data / "test.jsonl")
            bare = raw.loop(sides.mine, case.model.folder, rows[: case.limit])
            run["raw"] = partial(cpu, bare)
        yield task, fastest(run)


def seconds(backend: str, folder: Path, wanted: Cases, *, beside_lm_eval: bool) -> Seconds:
    """CPU seconds by task and side. In a process of its own: an engine that ends leaves nothing for the next one."""
    theirs.pretend_vllm(folder / "site")
    model = wanted["generate"].model
    mine = ours.load(model.folder, backend, model.window)
    their = theirs.load(model.folder, backend, model.window) if beside_lm_eval else None
    return dict(measured(Sides(backend, mine, their, folder / "data", folder / model.name / backend), wanted))
