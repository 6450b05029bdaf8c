"""Why a partition has no running pod, and since when."""

from typing import Any

import pytest

from evaljob.views import JobView, PodView
from evaljob.waiting import Waiting, retry_delay, waiting
from tests.unit.builders import NOW, job_view, later, pod_view

REFUSED = 'Error creating: pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1'
NO_SECRET = 'MountVolume.SetUp failed for volume "key" : secret "eval-llm" not found'


def seen(job: JobView, *pods: PodView, warning: str = "") -> Waiting | None:
    return waiting(job, list(pods), {"job-1": warning, "pod-1": warning} if warning else {})


class TestPendingPods:
    @pytest.mark.parametrize(
        ("fields", "warning", "reason", "words"),
        [
            ({"waiting_reason": "ErrImagePull", "waiting_message": "not found"}, "", "ImagePullBackOff", "not found"),
            ({"unschedulable": "0/3 nodes"}, "", "Unschedulable", "0/3 nodes"),
            ({"waiting_reason": "ContainerCreating"}, "", "PodNotStarted", "ContainerCreating"),
            ({"waiting_reason": "ContainerCreating"}, NO_SECRET, "SecretMissing", NO_SECRET),
            ({}, "references non-existent secret key: token", "SecretMissing", "secret key: token"),
            ({}, 'configmap "q" not found', "ConfigMapMissing", "q"),
            ({}, "failed to set up sandbox", "PodNotStarted", "failed to set up sandbox"),
            ({"waiting_reason": "CreateContainerConfigError", "waiting_message": "run as non-root"}, "",
             "PodNotStarted", "run as non-root"),
        ],
    )  # fmt: skip
    def test_reasons(self, fields: dict[str, Any], warning: str, reason: str, words: str) -> None:
        found = seen(job_view(), pod_view(**fields), warning=warning)
        assert found is not None
        assert (found.reason, found.since) == (reason, NOW)
        assert words in found.message

    def test_the_newest_counts(self) -> None:
        found = seen(job_view(), pod_view(uid="b", created=later(50)), pod_view(uid="a"))
        assert found is not None
        assert found.since == later(50)


class TestWithoutPod:
    """The Job controller may create none, or none again: a quota and a policy refuse pods to it, not to us."""

    @pytest.mark.parametrize(
        ("fields", "since"),
        [
            ({}, 0),
            ({"counted_at": later(90)}, 90),  # its pod was evicted
            ({"counted_at": later(90), "failed_pods": 1}, 100),
            ({"counted_at": later(90), "failed_pods": 3}, 130),
        ],
    )
    def test_it_waits_since_it_might_have_a_pod(self, fields: dict[str, Any], since: float) -> None:
        found = seen(job_view(podless=True, **fields))
        assert found is not None
        assert (found.reason, found.since) == ("PodNotStarted", later(since))

    @pytest.mark.parametrize(
        ("warning", "reason"),
        [
            (REFUSED, "QuotaExceeded"),
            ('Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"', "AdmissionDenied"),
            ('admission webhook "w" denied the request: no', "AdmissionDenied"),
            ("Error creating: Internal error", "PodNotStarted"),
        ],
    )  # fmt: skip
    def test_the_warning_about_the_job_says_why(self, warning: str, reason: str) -> None:
        found = seen(job_view(podless=True), warning=warning)
        assert found is not None
        assert (found.reason, found.message) == (reason, warning)

    @pytest.mark.parametrize(
        "fields",
        [
            {"ready": 1},
            {"suspended": True, "podless": True},
            {"podless": True, "started_at": None},
            {"podless": False},
        ],
        ids=["ready", "suspended", "resumed a moment ago", "a silent node, or a pod that has just ended"],
    )
    def test_a_job_that_does_not_wait(self, fields: dict[str, Any]) -> None:
        assert seen(job_view(**fields)) is None

    def test_an_ended_pod_that_is_not_counted_yet_is_no_reason_to_wait(self) -> None:
        ended = pod_view(phase="Failed")
        assert seen(job_view(podless=True), ended) is None
        assert seen(job_view(podless=True, failed_pods=1), ended) is not None

    def test_a_disrupted_pod_is_never_counted(self) -> None:
        assert seen(job_view(podless=True), pod_view(phase="Failed", disrupted=True)) is not None

    @pytest.mark.parametrize(("failed", "seconds"), [(0, 0), (1, 10), (2, 20), (6, 320), (7, 600), (50, 600)])
    def test_the_job_controller_waits_longer_after_each_failure(self, failed: int, seconds: float) -> None:
        assert retry_delay(failed).total_seconds() == seconds


class TestGoing:
    def test_a_pod_that_does_not_end_is_told_with_its_node(self) -> None:
        pod = pod_view(phase="Running", node="gpu-7", ends_by=later(60))
        found = seen(job_view(terminating=1), pod)
        assert found is not None
        assert (found.reason, found.since, found.in_order) == ("PodStuckTerminating", later(60), True)
        assert "node gpu-7 may be lost" in found.message
        assert "delete the Job" in found.message

    def test_a_running_pod_of_a_silent_node_is_not_waited_for(self) -> None:
        assert seen(job_view(), pod_view(phase="Running")) is None


def test_a_place_in_kueues_queue_is_in_order() -> None:
    found = seen(job_view(suspended=True, queue="gpu", podless=True, started_at=None))
    assert found is not None
    assert (found.reason, found.in_order) == ("QueuedByKueue", True)
    assert "queue gpu; `kubectl get workloads`" in found.message
    told = seen(job_view(suspended=True, queue="gpu", podless=True, started_at=None), warning="1 GPU more")
    assert told is not None
    assert told.message == "suspended by Kueue in queue gpu: 1 GPU more"
