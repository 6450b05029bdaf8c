"""What the benchmarks make of what they measured."""

import json
import shutil
from pathlib import Path

import pytest

from evaljob import framing
from evaljob.plan import Partition
from evaljob.result import Seconds
from evaljob.spec import parse_evaljob
from evaljob_cli.inputs import identified
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.scripted import ScriptedBackend
from tests.benchmarks import one_process, overhead
from tests.benchmarks.control.audit import AuditLog
from tests.benchmarks.overhead import account, pod_phases
from tests.local_plans import plan_of
from tests.runner_plans import TINY
from tests.unit.builders import scored
from tests.unit.simulator import stamp

PARTITION = Partition(model="m", dataset="d", shard=0, shards=1)


def test_a_partitions_phases_come_from_its_job_its_pod_and_its_result() -> None:
    seconds = Seconds(start=3.0, load=0.5, infer=0.25, score=0.25)
    record = framing.encode(scored(PARTITION, seconds=seconds))
    job = {
        "metadata": {
            "uid": "u",
            "creationTimestamp": stamp(0),
            "annotations": {"evaljob.dev/result": record},
            "managedFields": [
                {"time": stamp(90), "fieldsV1": {"f:status": {}}},
                {
                    "time": stamp(13),
                    "fieldsV1": {"f:metadata": {"f:annotations": {"f:evaljob.dev/result": {}}}},
                },
            ],
        },
        "status": {"conditions": [{"type": "Complete", "lastTransitionTime": stamp(11)}]},
    }
    ran = {"startedAt": stamp(3), "finishedAt": stamp(9)}
    pod = {
        "metadata": {"ownerReferences": [{"uid": "u"}]},
        "status": {
            "conditions": [{"type": "PodScheduled", "lastTransitionTime": stamp(1)}],
            "containerStatuses": [{"state": {"terminated": ran}}],
        },
    }
    other = {"metadata": {"ownerReferences": [{"uid": "v"}]}}
    assert pod_phases(job, [other, pod]) == {
        "scheduling": 1.0,
        "start": 2.0,
        "imports": 3.0,
        "load": 0.5,
        "evaluate": 0.5,
        "count": 2.0,
        "collect": 2.0,
    }


def test_what_no_phase_claims_is_shown_too() -> None:
    found = account({"imports": 3.0, "load": 0.5}, wall=40.0, floor=22.0, count=10)
    assert found == {
        "seconds": 40.0,
        "one_process_seconds": 22.0,
        "ratio": 1.82,
        "more_per_further_partition": 2.0,
        "per_partition": {"imports": 3.0, "load": 0.5, "around": 0.5, "total": 4.0},
    }


def test_the_process_for_all_partitions_loads_each_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that differ in their prompt format only are one."""
    job = parse_evaljob(overhead.manifest("any"))
    opened: list[str] = []

    def opening(work: Assignment, *_: object, **__: object) -> ScriptedBackend:
        opened.append(work.model.name)
        return ScriptedBackend()

    monkeypatch.setattr(one_process, "open_backend", opening)
    shutil.copytree(TINY / "model", tmp_path / "models" / "tiny")
    claims = {"models": tmp_path / "models", "data": TINY / "data"}
    found = one_process.run(plan_of(identified(job)), claims, tmp_path / "out", {})
    assert len(found) == overhead.PARTITIONS
    assert opened == ["tiny-chat"]


def test_requests_are_counted_by_user_and_once(tmp_path: Path) -> None:
    def line(verb: str, user: str = "us", **ref: str) -> str:
        return (
            json.dumps({"verb": verb, "user": {"username": user}, "requestURI": "/x?a=1", "objectRef": ref})
            + "\n"
        )

    log = tmp_path / "audit.log"
    first = [
        line("create", resource="jobs"),
        line("watch", resource="jobs"),
        line("get", "them", resource="pods"),
    ]
    log.write_text("".join(first))
    audit = AuditLog(log)
    counts = audit.take("us")
    assert (counts.writes, counts.reads) == (1, 0)
    with log.open("a") as file:
        file.write(line("list", resource="pods") + line("patch", resource="evaljobs", subresource="status"))
    counts = audit.take("us")
    assert (counts.writes, counts.reads) == (1, 1)
    assert counts.by_kind == {"list pods": 1, "patch evaljobs/status": 1}
