"""What Prometheus sees."""

import pytest
from prometheus_client import generate_latest

from evaljob.result import Seconds
from evaljob.status import PartitionCounts
from evaljob_operator.metrics import Metrics, verb_and_resource

JOBS = "/apis/batch/v1/namespaces/evals/jobs"


def lines(metrics: Metrics) -> set[str]:
    text = generate_latest(metrics.registry).decode().splitlines()
    return {line for line in text if not line.startswith("#") and "_created " not in line}


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource"),
    [
        ("GET", JOBS, "list", "jobs"),
        ("GET", f"{JOBS}/x", "get", "jobs"),
        ("WATCH", JOBS, "watch", "jobs"),
        ("POST", JOBS, "create", "jobs"),
        ("PATCH", f"{JOBS}/x", "patch", "jobs"),
        ("DELETE", f"{JOBS}/x", "delete", "jobs"),
        ("DELETE", JOBS, "deletecollection", "jobs"),
        (
            "PATCH",
            "/apis/evaljob.dev/v1alpha1/namespaces/evals/evaljobs/x/status",
            "patch",
            "evaljobs/status",
        ),
        ("GET", "/api/v1/namespaces/evals/pods", "list", "pods"),
        ("GET", "/apis/evaljob.dev/v1alpha1", "get", "discovery"),
    ],
)
def test_requests_are_named_as_in_rbac(method: str, path: str, verb: str, resource: str) -> None:
    assert verb_and_resource(method, path) == (verb, resource)


def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    metrics.requested("POST", JOBS, 201)
    metrics.requested("POST", JOBS, 0)
    metrics.created()
    metrics.passed(0.02)
    assert {
        'evaljob_api_requests_total{code="201",resource="jobs",verb="create"} 1.0',
        'evaljob_api_requests_total{code="0",resource="jobs",verb="create"} 1.0',
        "evaljob_jobs_created_total 1.0",
        "evaljob_reconcile_seconds_count 1.0",
    } <= lines(metrics)


def test_gpu_seconds_say_where_they_went() -> None:
    metrics = Metrics()
    metrics.computed(8, Seconds(start=1, load=10, infer=100, score=2))
    metrics.computed(0, Seconds(infer=50))
    assert {line for line in lines(metrics) if "gpu_seconds_total" in line} == {
        'evaljob_gpu_seconds_total{phase="start"} 8.0',
        'evaljob_gpu_seconds_total{phase="load"} 80.0',
        'evaljob_gpu_seconds_total{phase="infer"} 800.0',
        'evaljob_gpu_seconds_total{phase="score"} 16.0',
    }


def test_a_runner_cannot_make_up_labels() -> None:
    metrics = Metrics()
    for outcome in ("Succeeded", "InvalidResult", "Whatever", "SomethingElse"):
        metrics.recorded(outcome)
    assert {line for line in lines(metrics) if "recorded_total" in line} == {
        'evaljob_partitions_recorded_total{outcome="Succeeded"} 1.0',
        'evaljob_partitions_recorded_total{outcome="InvalidResult"} 1.0',
        'evaljob_partitions_recorded_total{outcome="Other"} 2.0',
    }


def test_gauges_say_how_it_is_now() -> None:
    metrics, running = Metrics(), PartitionCounts(total=3, running=2, failed=1)
    counts = [("a", running), ("a", running), ("b", PartitionCounts(total=1, pending=1))]
    metrics.watch(lambda: counts, lambda: ["a", "b", "a"], lambda: [("a", "jobs", 4.5)])
    assert {
        'evaljob_partitions{namespace="a",state="running"} 4.0',
        'evaljob_partitions{namespace="b",state="pending"} 1.0',
        'evaljob_queue_depth{namespace="a"} 2.0',
        'evaljob_watch_silence_seconds{namespace="a",resource="jobs"} 4.5',
    } <= lines(metrics)
    counts.clear()
    assert not any("evaljob_partitions{" in line for line in lines(metrics))
