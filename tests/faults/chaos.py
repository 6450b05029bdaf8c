"""`python -m tests.faults.chaos`: the operator is killed at random moments, in runs of 20 partitions.

Each round: one EvalJob, two to four kills, to the end. The last line is JSON: `kills`, `lost` (partitions without
their result at the end), `doubled` (partitions that were run, or recorded, twice).
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.shell import say
from tests.faults.case import NAME, Case, Lab, evaljob, lab
from tests.faults.history import is_result, record_of, violations
from tests.plane.plane import Options, plane

DATASETS = [f"d{n}" for n in range(10)]
MODELS = 2
PARTITIONS = MODELS * len(DATASETS)


@dataclass(frozen=True)
class Round:
    """What came of one run."""

    kills: int
    lost: int
    doubled: int
    violations: tuple[str, ...]


async def play(lab_: Lab, namespace: str, rng: random.Random) -> Round:
    """One run under fire."""
    case = Case(lab_, namespace)
    async with case.running():
        await case.submit(evaljob(NAME, DATASETS, MODELS, parallelism=rng.choice([3, 8, 20])))
        for _ in range(rng.randint(2, 4)):
            # A start takes a second, the rest is the run: both get their share.
            await case.until(lambda: case.finished, rng.uniform(0.2, 4.0))
            case.kill()
        await case.until(case.quiet, 120)
    return judge(case)


def judge(case: Case) -> Round:
    """Count what is missing and what there is twice, from everything that was ever seen of the Jobs."""
    uids: dict[str, set[str]] = {}
    records: dict[str, set[str]] = {}
    for change in case.history.of("Job"):
        name = change.obj["metadata"]["name"]
        uids.setdefault(name, set()).add(change.obj["metadata"]["uid"])
        if (text := record_of(change.obj)) is not None:
            records.setdefault(name, set()).add(text)
    good = [name for name, texts in records.items() if all(map(is_result, texts))]
    twice = Counter(name for seen in (uids, records) for name, values in seen.items() if len(values) > 1)
    return Round(case.kills, PARTITIONS - len(good), len(twice), tuple(violations(case.history)))


async def run(rounds: int, jobs: int, seed: int) -> list[Round]:
    """All rounds, several at once; the same seed gives the same intervals, not the same moments."""
    names = [f"round-{n}" for n in range(rounds)]
    slots = asyncio.Semaphore(jobs)

    async def take(lab_: Lab, name: str) -> Round:
        async with slots:
            found = await play(lab_, name, random.Random(f"{seed} {name}"))  # noqa: S311 - no secret
        say(f"    {name}: {found}")
        return found

    with plane(Options()) as running:
        running.install(names)
        async with lab(running) as lab_:
            return await asyncio.gather(*(take(lab_, name) for name in names))


def main(arguments: Sequence[str]) -> int:
    """Run it; the exit code says whether anything was lost, doubled or broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.chaos", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=3, help="rounds at once")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    started = time.monotonic()
    rounds = asyncio.run(run(args.rounds, args.jobs, args.seed))
    broken = [v for r in rounds for v in r.violations]
    for line in broken:
        print(line)
    report = {
        "rounds": len(rounds),
        "partitions": PARTITIONS,
        "kills": sum(r.kills for r in rounds),
        "lost": sum(r.lost for r in rounds),
        "doubled": sum(r.doubled for r in rounds),
        "violations": len(broken),
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(report))
    return 1 if report["lost"] or report["doubled"] or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
