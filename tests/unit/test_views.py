"""What is kept of Jobs and pods."""

from typing import Any

import pytest

from evaljob.views import job_view, pod_view
from tests.unit.builders import NOW, later

TIME = "2026-03-01T12:00:00Z"


def job_object(**status: object) -> dict[str, Any]:
    meta = {"name": "j", "uid": "u", "creationTimestamp": TIME}
    return {"metadata": meta, "spec": {}, "status": status}


class TestJobView:
    def test_a_new_job(self) -> None:
        view = job_view({"metadata": {"name": "j", "uid": "u", "creationTimestamp": TIME}, "spec": {}})
        assert (view.owner, view.finished, view.started_at, view.record, view.podless) == (
            None,
            None,
            None,
            None,
            True,
        )

    def test_only_the_controlling_owner_owns(self) -> None:
        job = job_object()
        job["metadata"]["ownerReferences"] = [{"uid": "a"}, {"uid": "b", "controller": True}]
        assert job_view(job).owner == "b"

    def test_a_condition_that_is_not_true_ends_nothing(self) -> None:
        assert job_view(job_object(conditions=[{"type": "Complete", "status": "False"}])).finished is None

    def test_a_job_on_its_way_to_failure_has_not_failed_yet(self) -> None:
        """FailureTarget comes before its pods have ended."""
        assert job_view(job_object(conditions=[{"type": "FailureTarget", "status": "True"}])).finished is None

    def test_the_start_time_of_before_a_suspension_does_not_count(self) -> None:
        suspended = [{"type": "Suspended", "status": "True"}]
        assert job_view(job_object(startTime=TIME, conditions=suspended)).started_at is None
        resumed = [{"type": "Suspended", "status": "False"}]
        assert job_view(job_object(startTime=TIME, conditions=resumed)).started_at == NOW

    def test_the_field_manager_tells_when_the_status_was_last_changed(self) -> None:
        job = job_object()
        job["metadata"]["managedFields"] = [
            {"manager": "evaljob-operator", "time": "2026-03-01T13:00:00Z"},
            {"subresource": "status", "time": "2026-03-01T12:00:09Z"},
            {"subresource": "status"},
        ]
        assert job_view(job).counted_at == later(9)
        assert job_view(job_object()).counted_at is None

    @pytest.mark.parametrize("count", ["active", "ready", "terminating", "succeeded"])
    def test_a_job_with_a_pod_is_not_podless(self, count: str) -> None:
        assert not job_view(job_object(**{count: 1})).podless

    def test_an_ended_pod_that_is_not_counted_yet_was_a_pod(self) -> None:
        assert not job_view(job_object(uncountedTerminatedPods={"succeeded": ["p"]})).podless
        assert job_view(job_object(uncountedTerminatedPods={})).podless


class TestPodView:
    def test_a_pod_without_status(self) -> None:
        view = pod_view({"metadata": {"name": "p", "uid": "u", "creationTimestamp": TIME}})
        assert (view.phase, view.exit_code, view.message, view.job_uid) == ("", None, "", "")

    def test_a_pod_in_trouble(self) -> None:
        meta = {"name": "p", "uid": "u", "creationTimestamp": TIME, "deletionTimestamp": TIME}
        container = {"name": "runner", "resources": {"limits": {"memory": "2Gi"}}}
        view = pod_view(
            {
                "metadata": meta,
                "spec": {"nodeName": "n1", "containers": [{"name": "sidecar"}, container]},
                "status": {
                    "message": "low on memory",
                    "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            }
        )
        assert (view.node, view.memory_limit, view.status_message) == ("n1", "2Gi", "low on memory")
        assert (view.disrupted, view.ends_by) == (True, NOW)

    @pytest.mark.parametrize(("reason", "words"), [("Unschedulable", "no node"), ("SchedulingGated", "")])
    def test_only_the_scheduler_s_no_is_unschedulable(self, reason: str, words: str) -> None:
        meta = {"name": "p", "uid": "u", "creationTimestamp": TIME}
        said = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "no node"}
        assert pod_view({"metadata": meta, "status": {"conditions": [said]}}).unschedulable == words

    def test_only_the_runner_speaks(self) -> None:
        meta = {"name": "p", "uid": "u", "creationTimestamp": TIME}
        said = {"state": {"terminated": {"exitCode": 0, "message": "x"}}}
        view = pod_view({"metadata": meta, "status": {"containerStatuses": [{"name": "sidecar", **said}]}})
        assert (view.exit_code, view.message) == (None, "")
