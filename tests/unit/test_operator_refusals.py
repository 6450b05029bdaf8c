"""What an answer to a creation means."""

import pytest

from evaljob_operator.api import ApiError, ConflictError, ForbiddenError, InvalidError
from evaljob_operator.refusals import refusal


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
