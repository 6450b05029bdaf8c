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
from tests.faults.history import History, violations
from tests.plane.client import Json, StatusError
from tests.plane.plane import OPERATOR, Options, plane
from tests.schemas import SPEC, changed

NAMESPACE = "fuzz"
POLICY = "ValidatingAdmissionPolicy"
"""In the words of the API server, where one refuses a Job."""
GOOD = "good-"
AT_ONCE = 8
"""EvalJobs that wait for their answer at the same time."""
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
    """How long small, good EvalJobs beside them took, one after the other."""
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


class Answers:
    """What the operator has said of each EvalJob so far, gone ones too."""

    def __init__(self, history: History) -> None:
        self._steps = history.steps
        self._read = 0
        self._said: dict[str, dict[str, str]] = {}

    def all(self) -> dict[str, dict[str, str]]:
        """By name: the last status of each condition."""
        for step in self._steps[self._read :]:
            if step.kind == "EvalJob":
                said = self._said.setdefault(step.change.obj["metadata"]["name"], {})
                found = step.change.obj.get("status", {}).get("conditions", ())
                said.update({c["type"]: c["status"] for c in found})
        self._read = len(self._steps)
        return self._said

    def of(self, name: str, condition: Condition) -> str:
        """One of them; "" for nothing."""
        return self.all().get(name, {}).get(condition, "")


async def run(count: int, number: int) -> Report:
    """Submit them all, good ones between them, and see what comes of it."""
    bodies, report = drawn(count, number), Report()
    with plane(Options()) as running:
        running.install([NAMESPACE], policy=True)
        async with lab(running) as lab_:
            case = Case(lab_, NAMESPACE)
            answers = Answers(case.history)
            async with case.running():
                await case.until(case.watching)
                report.good_s.append(await _good(case, answers))
                submitting = asyncio.create_task(_submit_all(case, answers, bodies, report))
                while not submitting.done():
                    report.good_s.append(await _good(case, answers))
                await submitting
                report.good_s.append(await _good(case, answers))
                report.problems += _problems(case)
    said = [(name, s.get(Condition.ACCEPTED)) for name, s in answers.all().items()]
    report.unanswered = sorted(name for name, accepted in said if not accepted)
    report.run = sum(accepted == "True" and not name.startswith(GOOD) for name, accepted in said)
    return report


async def _submit_all(case: Case, answers: Answers, bodies: list[Json], report: Report) -> None:
    """The next one when one has its answer: it is not about how much the API server can do at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def submit(body: Json) -> None:
        async with slots:
            try:
                await case.submit(body)
            except StatusError as error:
                if error.status not in (400, 422):
                    raise
                report.refused += 1
            else:
                report.accepted += 1
                await case.until(lambda: bool(answers.of(body["metadata"]["name"], Condition.ACCEPTED)))

    await asyncio.gather(*map(submit, bodies))


async def _good(case: Case, answers: Answers) -> float:
    """A small, good EvalJob; how long it takes.

    Raises:
        AssertionError: it does not come to its end.
    """
    started = time.monotonic()
    made = await case.submit(evaljob("", ["one"]) | {"metadata": {"generateName": GOOD}})
    name = made["metadata"]["name"]
    done = await case.until(lambda: answers.of(name, Condition.COMPLETE) == "True")
    assert done, f"{name} is not complete within {LIMIT} s"
    return round(time.monotonic() - started, 1)


def _problems(case: Case) -> list[str]:
    assert case.operator is not None
    log = case.operator.log.read_text(errors="replace")
    restarts = [f"the process was started {case.operator.starts} times"] if case.operator.starts > 1 else []
    leaks = ["the log holds the operator's token"] if case.lab.plane.token(OPERATOR) in log else []
    strange = [said for line in log.splitlines() if (said := _strange(line))]
    return [*strange, *_loose(case), *restarts, *leaks, *violations(case.history)]


def _loose(case: Case) -> list[str]:
    """What the admission policy refuses, as the conditions of EvalJobs tell it."""
    said = {
        c["message"]
        for change in case.history.of("EvalJob")
        for c in change.obj.get("status", {}).get("conditions", ())
    }
    return sorted(message for message in said if POLICY in message)


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
