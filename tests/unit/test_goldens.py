"""Five files tell the product: EvalJob, plan, Job, results, summary.

`pytest tests/unit/test_goldens.py --update-goldens` writes anew what follows from evaljob.yaml and result.json.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import evaljob
from evaljob import jobs, podsecurity
from evaljob.framing import decode, encode
from evaljob.merge import summarize
from evaljob.names import State
from evaljob.observe import Outcome
from evaljob.plan import Partition, Plan, from_data, to_data
from evaljob.planning import make_plan
from evaljob.result import Failure, PartitionResult
from evaljob.spec import EvalJob, parse_evaljob
from evaljob.tables import files
from evaljob.task import Task
from tests.unit.builders import DATE, SETTINGS

DATA = Path(__file__).parent.parent / "data"
CASES = sorted(path.name for path in DATA.iterdir())
TASKS = (Path(evaljob.__file__).parent / "tasks").glob("*.yaml")
CATALOGUE = {path.stem: Task.model_validate(yaml.safe_load(path.read_text())) for path in TASKS}


def given(case: str) -> tuple[EvalJob, Plan]:
    of = parse_evaljob(yaml.safe_load((DATA / case / "evaljob.yaml").read_text()))
    return of, make_plan(of, CATALOGUE, SETTINGS, DATE)


def results(case: str, plan: Plan) -> dict[Partition, Outcome]:
    """By partition, as the runners reported them."""
    reports: dict[str, Any] = json.loads((DATA / case / "result.json").read_text())
    named = {str(p): p for p in plan.partitions}
    kinds: dict[bool, type[Outcome]] = {True: Failure, False: PartitionResult}
    return {named[name]: kinds["reason" in r].model_validate(r) for name, r in reports.items()}


def summary_files(case: str, plan: Plan) -> dict[str, str]:
    outcomes = results(case, plan)
    failed = any(isinstance(o, Failure) for o in outcomes.values())
    found = files(summarize(plan, outcomes, state=State.FAILED if failed else State.COMPLETE))
    document = json.dumps(json.loads(found["summary.json"]), indent=1, ensure_ascii=False)
    return {
        "summary.md": found["summary.md"],
        "summary.csv": found["summary.csv"],
        "summary.json": document + "\n",
    }


def follows(case: str) -> dict[str, str]:
    """File name -> content of everything that follows from the other two."""
    of, plan = given(case)
    data = {key: json.loads(text) for key, text in to_data(plan).items()}
    manifests = [jobs.job(of, plan, p) for p in plan.partitions]
    # Of the Jobs only the last is shown whole: it is the one with a shard, an override or a volume of its own.
    return {
        "plan.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        "job.yaml": yaml.safe_dump(manifests[-1], sort_keys=False, width=110),
        **summary_files(case, plan),
    }


@pytest.mark.parametrize("case", CASES)
def test_what_follows_from_an_evaljob_and_its_results(case: str, pytestconfig: pytest.Config) -> None:
    found = follows(case)
    if pytestconfig.getoption("--update-goldens"):
        for name, text in found.items():
            (DATA / case / name).write_text(text)
    for name, text in found.items():
        assert text == (DATA / case / name).read_text(), f"{case}/{name} (--update-goldens rewrites it)"


@pytest.mark.parametrize("case", CASES)
def test_reports_pass_their_channel(case: str) -> None:
    _, plan = given(case)
    for partition, report in results(case, plan).items():
        assert decode(encode(report)) == report
        assert isinstance(report, Failure) or report.partition == partition


@pytest.mark.parametrize("case", CASES)
def test_plan_and_pods_are_sound(case: str) -> None:
    of, plan = given(case)
    assert from_data(dict(sorted(to_data(plan).items()))) == plan
    pods = [jobs.job(of, plan, p)["spec"]["template"]["spec"] for p in plan.partitions]
    assert [podsecurity.violations(p) for p in pods] == [[] for _ in pods]


def test_no_file_without_a_case() -> None:
    names = {
        "evaljob.yaml",
        "plan.json",
        "job.yaml",
        "result.json",
        "summary.md",
        "summary.csv",
        "summary.json",
    }
    assert {case: {p.name for p in (DATA / case).iterdir()} for case in CASES} == dict.fromkeys(CASES, names)
