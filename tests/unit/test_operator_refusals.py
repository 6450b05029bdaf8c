"""What an answer to a creation means."""

import pytest

from evaljob.observe import Observation, Observed, Phase
from evaljob_operator.api import ApiError, ConflictError, ForbiddenError, InvalidError
from evaljob_operator.refusals import Refusals, refusal
from tests.unit import builders
from tests.unit.builders import NOW, dataset, later, model


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ForbiddenError(403, "Forbidden", 'User "x" cannot create resource "jobs"'), "PermissionDenied"),
        (ForbiddenError(403, "Forbidden", 'jobs "x" is forbidden: exceeded quota: jobs'), "QuotaExceeded"),
        (ForbiddenError(403, "Forbidden", "jobs are not for you"), "AdmissionDenied"),
        (ForbiddenError(403, "Forbidden", "terminated", "NamespaceTerminating"), None),
        (ApiError(400, "BadRequest", 'admission webhook "w" denied the request: no'), "AdmissionDenied"),
        (InvalidError(422, "Invalid", "ValidatingAdmissionPolicy 'p' denied request: no"), "AdmissionDenied"),
        (
            InvalidError(422, "Invalid", "spec.template.spec.containers[0].image: Required value"),
            "InvalidSpec",
        ),
        (ConflictError(409, "Conflict", "changed"), None),
        (ApiError(500, "InternalError", 'failed calling webhook "w": connection refused'), "AdmissionDenied"),
        (ApiError(500, "InternalError", "etcdserver: request timed out"), None),
    ],
)
def test_only_what_is_said_about_the_object_is_a_refusal(error: ApiError, reason: str | None) -> None:
    assert refusal(error) == reason


def test_one_refusal_stands_for_a_model_until_a_job_of_it_is_taken() -> None:
    plan = builders.plan(builders.evaljob([model("a"), model("b")], [dataset(shards=2)]))
    absent = Observed(tuple(Observation(p, Phase.ABSENT) for p in plan.partitions))
    first, second, other, _ = plan.partitions
    refusals = Refusals()
    refusals.take({first: ForbiddenError(403, "Forbidden", "exceeded quota"), other: None}, NOW)
    waits = [o.waiting.reason if o.waiting else None for o in refusals.overlay(absent).observations]
    assert waits == ["QuotaExceeded", "QuotaExceeded", None, None]
    refusals.take({second: ForbiddenError(403, "Forbidden", "exceeded quota: 2")}, later(15))
    (wait,) = {o.waiting for o in refusals.overlay(absent).observations[:2]}
    assert wait is not None
    assert (wait.since, wait.tried_at, wait.message) == (NOW, later(15), "exceeded quota: 2")
    refusals.take({second: None}, NOW)
    assert refusals.overlay(absent) == absent


def test_a_job_that_is_invalid_fails_its_partition_alone() -> None:
    plan = builders.plan(builders.evaljob(datasets=[dataset(shards=2)]))
    first, second = plan.partitions
    refusals = Refusals()
    refusals.take({first: InvalidError(422, "Invalid", "image: Required value"), second: None}, NOW)
    seen = refusals.overlay(Observed(tuple(Observation(p, Phase.ABSENT) for p in plan.partitions)))
    assert [o.phase for o in seen.observations] == [Phase.FAILED, Phase.ABSENT]
