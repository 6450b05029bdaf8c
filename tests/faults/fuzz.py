"""`python -m tests.faults.fuzz COUNT`: EvalJobs drawn from the CRD's schema, before the real API server and operator.

Whatever the API server accepts must get an answer, must not stop or delay the others, must raise nothing that nobody
expected, must not end the process, and makes no Job that the chart's admission policy refuses.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from evaljob.names import Condition
from tests.faults.case import LIMIT, Case, evaljob, lab
from tests.faults.history import violations
from tests.plane.client import Json, StatusError
from tests.plane.plane import OPERATOR, Options, plane
from tests.schemas import SPEC, changed

NAMESPACE = "fuzz"
POLICY = "ValidatingAdmissionPolicy"
"""In the words of the API server, where one refuses a Job."""
GOOD = "good-"
AT_ONCE = 8
"""EvalJobs that are submitted at the same time."""
_LABELS = {"kueue.x-k8s.io/queue-name": "q", "team": "x", "evaljob.dev/name": "other"}
_ANNOTATIONS = {
    "evaljob.dev/retry-failed": "1",
    "evaljob.dev/result": "evaljob/1 j 2 00000000 {}",
    "note": "\x1b[31m",
}


@dataclass
class Report:
    """What came of it."""

    accepted: int = 0
    """By the API server; what the operator refuses is counted here."""
    run: int = 0
    """Accepted by the operator too."""
    refused: int = 0
    unanswered: list[str] = field(default_factory=list)
    """Accepted, and the operator never said anything."""
    good_s: list[float] = field(default_factory=list)
    """How long small, good EvalJobs beside them took."""
    problems: list[str] = field(default_factory=list)


def drawn(count: int, number: int) -> list[Json]:
    """So many EvalJobs that are good but for what was drawn; the same for the same number."""
    found: list[Json] = []
    base = evaljob("", ["one", "bad", "two"], models=2)["spec"]

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(SPEC, base), _some(_LABELS), _some(_ANNOTATIONS))
    def take(spec: Json, labels: Json, annotations: Json) -> None:
        body = evaljob(f"fuzz-{len(found)}", [])
        body["metadata"] |= {"labels": labels, "annotations": annotations}
        found.append({**body, "spec": _small(spec)})

    take()
    return found


def _some(choices: dict[str, str]) -> st.SearchStrategy[dict[str, str]]:
    rarely = st.integers(1, 6).map(lambda n: n == 1)
    return st.fixed_dictionaries(dict.fromkeys(choices, rarely)).map(
        lambda on: {k: v for k, v in choices.items() if on[k]}
    )


def _small(spec: Json) -> Json:
    """Few partitions: it is not about many."""
    for dataset in spec["datasets"]:
        dataset["shards"] = min(dataset.get("shards", 1), 2)
    return spec


async def run(count: int, number: int) -> Report:
    """Submit them all, good ones between them, and see what comes of it."""
    bodies, report = drawn(count, number), Report()
    with plane(Options()) as running:
        running.install([NAMESPACE], policy=True)
        async with lab(running) as lab_:
            case = Case(lab_, NAMESPACE)
            async with case.running():
                await case.until(case.watching)
                report.good_s.append(await _good(case, "alone"))
                submitting = asyncio.create_task(_submit_all(case, bodies, report))
                report.good_s += await asyncio.gather(*(_later(case, i) for i in range(1, 4)))
                await submitting
                report.good_s.append(await _good(case, "last"))
                await _answers(case, report)
                report.problems += _problems(case, report)
    return report


async def _submit_all(case: Case, bodies: list[Json], report: Report) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def submit(body: Json) -> None:
        async with slots:
            try:
                await case.submit(body)
                report.accepted += 1
            except StatusError as error:
                if error.status not in (400, 422):
                    raise
                report.refused += 1

    await asyncio.gather(*map(submit, bodies))


async def _later(case: Case, seconds: int) -> float:
    await asyncio.sleep(seconds)
    return await _good(case, str(seconds))


async def _good(case: Case, name: str) -> float:
    """A small, good EvalJob; how long it takes.

    Raises:
        AssertionError: it does not come to its end.
    """
    started = time.monotonic()
    await case.submit(evaljob(GOOD + name, ["one"]))
    done = await case.until(lambda: _said(case, GOOD + name, Condition.COMPLETE) == "True")
    assert done, f"{GOOD}{name} is not complete within {LIMIT} s"
    return round(time.monotonic() - started, 1)


def _said(case: Case, name: str, condition: Condition) -> str:
    """What the last status of an EvalJob says of a condition; "" for nothing."""
    found = ""
    for change in case.history.of("EvalJob"):
        if change.obj["metadata"]["name"] == name:
            said = change.obj.get("status", {}).get("conditions", ())
            found = next((c["status"] for c in said if c["type"] == condition), found)
    return found


async def _answers(case: Case, report: Report) -> None:
    """Wait until each has its answer; some are deleted soon after their end, as they ask for."""

    def answers() -> dict[str, str]:
        names = {c.obj["metadata"]["name"] for c in case.history.of("EvalJob")}
        return {n: _said(case, n, Condition.ACCEPTED) for n in names}

    await case.until(lambda: all(answers().values()))
    found = answers()
    report.unanswered = sorted(name for name, said in found.items() if not said)
    report.run = sum(said == "True" and not name.startswith(GOOD) for name, said in found.items())


def _problems(case: Case, report: Report) -> list[str]:
    assert case.operator is not None
    log = case.operator.log.read_text(errors="replace")
    restarts = [f"the process was started {case.operator.starts} times"] if case.operator.starts > 1 else []
    leaks = ["the log holds the operator's token"] if case.lab.plane.token(OPERATOR) in log else []
    slow = [f"a good EvalJob took {s} s" for s in report.good_s if s > LIMIT / 2]
    return [
        *map(_strange, filter(_strange, log.splitlines())),
        *restarts,
        *leaks,
        *slow,
        *violations(case.history),
    ]


def _strange(line: str) -> str:
    """A line of the log that tells of an exception nobody expected, or that is no JSON; "" for any other."""
    try:
        found = json.loads(line)
    except ValueError:
        return f"not JSON: {line[:2000]}"
    return f"{found.get('evaljob')}: {found['exception'][-2000:]}" if "exception" in found else ""


def main(arguments: Sequence[str]) -> int:
    """Run it; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description="EvalJobs by chance.")
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    report = asyncio.run(run(args.count, args.seed))
    for line in (*report.problems, *report.unanswered):
        print(line)
    print(
        json.dumps({**asdict(report), "problems": len(report.problems), "unanswered": len(report.unanswered)})
    )
    return 1 if report.problems or report.unanswered else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
