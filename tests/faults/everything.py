"""The sweep and the scenarios."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.cluster.shell import say
from tests.faults import scenarios, sweep
from tests.faults.case import Case, Lab, Outcome, lab
from tests.faults.scenarios import Scenario
from tests.faults.sweep import Slots
from tests.plane.plane import Options, plane

AT_ONCE = 8
"""Operators at the same time that do not only wait for a clock: each keeps a processor busy a fifth of its time."""


@dataclass
class Results:
    """What came of all parts."""

    cases: list[Outcome] = field(default_factory=list)
    """The reference run first."""
    scenarios: dict[str, Exception | None] = field(default_factory=dict)

    @property
    def bad(self) -> list[str]:
        """What is not as promised, a line each."""
        cases = [c.explain() for c in self.cases if c.violations or not c.converged]
        return cases + [f"{name}: {error}" for name, error in self.scenarios.items() if error]

    def line(self, seconds: float) -> str:
        """The line that ends a report."""
        done = [c for c in self.cases if c.converged]
        good = [name for name, error in self.scenarios.items() if error is None]
        return json.dumps(
            {
                "cases": len(self.cases) + len(self.scenarios),
                "converged": len(done) + len(good),
                "violations": sum(len(c.violations) for c in self.cases),
                "not_reached": sum(not c.fired for c in self.cases),
                "requests_of_a_run": self.cases[0].requests if self.cases else 0,
                "slowest_s": round(max((c.seconds for c in done), default=0.0), 1),
                "seconds": round(seconds),
            }
        )


def namespace_of(scenario: Scenario) -> str:
    """A scenario's own namespace."""
    return scenario.__name__.replace("_", "-")


async def run(jobs: int, wanted: Sequence[Scenario], *, cases: bool, thin: bool) -> Results:
    """Everything at once, as far as `jobs` operators at a time go; what needs a plane for itself has a second one."""
    names = sweep.namespaces(thin=thin) if cases else []
    alone = [s for s in wanted if s in scenarios.ALONE]
    results, slots = Results(), Slots.of(jobs)

    async def together() -> None:
        beside = [s for s in wanted if s not in scenarios.ALONE]
        async with _lab([*names, *map(namespace_of, beside)]) as lab_:
            played = [_play(lab_, s, slots, results) for s in beside]
            await asyncio.gather(
                *played, *([_sweep(lab_, names, slots, results, thin=thin)] if cases else [])
            )

    async def one_by_one() -> None:
        async with _lab([namespace_of(s) for s in alone]) as lab_:
            for scenario in alone:
                await _play(lab_, scenario, slots, results)

    await asyncio.gather(together(), *([one_by_one()] if alone else []))
    return results


@contextlib.asynccontextmanager
async def _lab(namespaces: Sequence[str]) -> AsyncIterator[Lab]:
    """A plane of its own."""
    with plane(Options()) as running:
        await asyncio.to_thread(running.install, namespaces)
        async with lab(running) as lab_:
            yield lab_


async def _sweep(lab_: Lab, names: Sequence[str], slots: Slots, results: Results, *, thin: bool) -> None:
    results.cases = await sweep.sweep(lab_, names, slots, thin=thin)


async def _play(lab_: Lab, scenario: Scenario, slots: Slots, results: Results) -> None:
    error: Exception | None = None
    async with slots.busy if scenario in scenarios.BUSY else slots.patient:
        started = time.monotonic()
        try:
            await scenario(Case(lab_, namespace_of(scenario)))
        except Exception as failure:  # noqa: BLE001 - reported with the others
            error = failure
    results.scenarios[scenario.__name__] = error
    said = "as promised" if error is None else repr(error)[:1000]
    say(f"    {scenario.__name__}: {said}, {time.monotonic() - started:.1f} s")
