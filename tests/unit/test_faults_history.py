"""The checks of the fault tests can fail: each one finds the history that it is there for."""

import json

import pytest

from evaljob import framing
from evaljob.names import ANNOTATION_RESULT, ANNOTATION_RETRY, LABEL_DATASET, LABEL_MODEL, LABEL_SHARD
from evaljob.plan import Partition
from tests.faults.history import History, Step, violations
from tests.plane.client import Change, Json
from tests.unit.builders import failure_text, scored

PARTITION = Partition(model="m", dataset="d", shard=0, shards=1)
RESULT = framing.encode(scored(PARTITION))
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
FINISHED = {"type": "Finished", "status": "True"}
COUNTS = {"total": 2, "pending": 0, "running": 0, "succeeded": 2, "failed": 0}


def evaljob(status: Json | None = None, asked: str = "") -> Json:
    annotations = {ANNOTATION_RETRY: asked} if asked else {}
    return {"metadata": {"name": "run", "uid": "e", "annotations": annotations}, "status": status or {}}


def job(record: str | None = None, status: Json | None = None, uid: str = "j", owner: str = "e") -> Json:
    labels = {LABEL_MODEL: "m", LABEL_DATASET: "d", LABEL_SHARD: "0-of-1"}
    annotations = {ANNOTATION_RESULT: record} if record else {}
    owners = [{"uid": owner, "controller": True}]
    meta = {"name": "run-m-d", "uid": uid, "labels": labels, "annotations": annotations}
    return {"metadata": {**meta, "ownerReferences": owners}, "status": status or {}}


def summary(value: float) -> Json:
    cells = [{"model": "m", "dataset": "d", "state": "Complete", "value": value}]
    meta = {"name": "run-summary", "uid": "s", "ownerReferences": [{"uid": "e", "controller": True}]}
    return {"metadata": meta, "data": {"summary.json": json.dumps({"cells": cells})}}


def history(*steps: tuple[str, str, Json]) -> History:
    """Steps of (kind, type, object), in this order."""
    found = History()
    for version, (kind, type_, obj) in enumerate(steps, 1):
        versioned = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}
        found.steps.insert(
            0, Step(kind, Change(type_, versioned))
        )  # watches of several kinds are not in step
    return found


BORN = ("EvalJob", "ADDED", evaljob())
MADE = ("Job", "ADDED", job())
ENDED = ("Job", "MODIFIED", job(status=COMPLETE))
RECORDED = ("Job", "MODIFIED", job(RESULT, COMPLETE))


def test_a_good_run_breaks_no_promise() -> None:
    done = {"state": "Complete", "conditions": [FINISHED, *COMPLETE["conditions"]], "partitions": COUNTS}
    steps = [BORN, MADE, ENDED, RECORDED, ("ConfigMap", "ADDED", summary(0.5))]
    end = ("EvalJob", "MODIFIED", evaljob({**done, "observedGeneration": 1}))
    assert violations(history(*steps, end, ("Job", "DELETED", job(RESULT, COMPLETE)))) == []


def test_an_evaljob_that_the_recorder_saw_late_was_there_before_its_jobs() -> None:
    assert violations(history(MADE, ENDED, BORN)) == []


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        ("I1", [BORN, MADE, ("Job", "ADDED", job(uid="second"))]),
        ("I2", [MADE]),
        ("I2", [BORN, ("EvalJob", "DELETED", evaljob()), MADE]),
        ("I3", [BORN, MADE, ("Job", "MODIFIED", job(RESULT))]),
        ("I4", [BORN, MADE, ENDED, RECORDED, ENDED]),
        ("I4", [BORN, MADE, ENDED, RECORDED, ("Job", "MODIFIED", job(failure_text(), COMPLETE))]),
        ("I4", [BORN, ("ConfigMap", "ADDED", summary(0.5)), ("ConfigMap", "MODIFIED", summary(0.6))]),
        (
            "I5",
            [
                (
                    "EvalJob",
                    "ADDED",
                    evaljob({**COMPLETE, "partitions": {**COUNTS, "succeeded": 1, "failed": 1}}),
                )
            ],
        ),
        ("I6", [("EvalJob", "ADDED", evaljob({"partitions": {**COUNTS, "running": 1}}))]),
        ("I7", [BORN, MADE, ENDED, ("Job", "DELETED", job(status=COMPLETE))]),
        (
            "I9",
            [
                ("EvalJob", "ADDED", evaljob({"state": "Failed", "conditions": [FINISHED]})),
                ("EvalJob", "MODIFIED", evaljob({"state": "Running"})),
            ],
        ),
        (
            "I9",
            [
                ("EvalJob", "ADDED", evaljob({"conditions": [FINISHED]}, asked="1")),
                ("EvalJob", "MODIFIED", evaljob({"state": "Running"}, asked="1")),
            ],
        ),
        (
            "I10",
            [
                ("EvalJob", "ADDED", evaljob({"observedGeneration": 2})),
                ("EvalJob", "MODIFIED", evaljob({"observedGeneration": 1})),
            ],
        ),
    ],
)
def test_each_check_finds_its_breach(broken: str, steps: list[tuple[str, str, Json]]) -> None:
    assert [v.split(":")[0] for v in violations(history(*steps))] == [broken]


def test_a_retry_that_is_asked_for_may_reopen_what_has_finished() -> None:
    ended = ("EvalJob", "ADDED", evaljob({"conditions": [FINISHED]}, asked="1"))
    assert violations(history(ended, ("EvalJob", "MODIFIED", evaljob({"retried": "1"}, asked="1")))) == []


def test_what_the_test_deletes_or_the_evaljob_takes_along_is_no_breach() -> None:
    by_hand = history(BORN, MADE, ("Job", "DELETED", job()))
    by_hand.allowed_deletions.add("run-m-d")
    assert violations(by_hand) == []
    assert violations(history(BORN, MADE, ("EvalJob", "DELETED", evaljob()), ("Job", "DELETED", job()))) == []
