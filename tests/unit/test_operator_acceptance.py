"""What a dry run of an EvalJob's Jobs says before the first of them is made."""

import pytest

from evaljob import plan as plans
from evaljob.spec import InvalidSpecError
from evaljob_operator.acceptance import rehearsed
from evaljob_operator.api import AlreadyExistsError, ApiError, ForbiddenError, InvalidError
from tests.unit import builders
from tests.unit.builders import dataset, model
from tests.unit.fakeapi import FakeApi

EVALJOB = builders.evaljob([model("a"), model("b")], [dataset("x"), dataset("y", shards=2)])
PLAN = builders.plan(EVALJOB)
TRY = "DRY RUN /apis/batch/v1/namespaces/evals/jobs"


async def warnings(api: FakeApi) -> tuple[str, ...]:
    return (await rehearsed(api, EVALJOB, PLAN)).warnings


async def test_one_job_per_model_is_tried_and_none_is_made() -> None:
    api = FakeApi()
    assert await rehearsed(api, EVALJOB, PLAN) == PLAN
    first = [next(p for p in PLAN.partitions if p.model == name) for name in ("a", "b")]
    assert api.dry_runs == [PLAN.job_name(p) for p in first]
    assert (api.writes, api.objects) == ([], {})


async def test_a_model_whose_pairs_are_all_excluded_is_not_tried() -> None:
    spec = {"exclude": [{"model": "b", "dataset": d} for d in ("x", "y")]}
    of = builders.evaljob([model("a"), model("b")], [dataset("x"), dataset("y")], **spec)
    api = FakeApi()
    await rehearsed(api, of, builders.plan(of))
    assert len(api.dry_runs) == 1


async def test_a_job_that_can_never_be_created_refuses_the_evaljob_in_the_api_servers_words() -> None:
    api = FakeApi()
    api.faults = [(TRY, InvalidError(422, "Invalid", "cpu: must be less than or equal to limit"))]
    with pytest.raises(InvalidSpecError, match=r"spec.models\[a\]: .* less than or equal to limit"):
        await rehearsed(api, EVALJOB, PLAN)


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        (ForbiddenError(403, "Forbidden", "exceeded quota: few"), "QuotaExceeded: exceeded quota: few"),
        (ApiError(400, "BadRequest", 'admission webhook "w" denied the request: no'),
         'AdmissionDenied: admission webhook "w" denied the request: no'),
    ],
)  # fmt: skip
async def test_what_may_pass_later_is_a_warning(error: ApiError, warning: str) -> None:
    api = FakeApi()
    api.faults = [(TRY, error)]
    assert await warnings(api) == (warning,)


@pytest.mark.parametrize(
    "error",
    [
        ApiError(400, "BadRequest", 'admission webhook "w" does not support dry run'),
        AlreadyExistsError(409, "AlreadyExists", "there"),
    ],
)
async def test_what_says_nothing_about_the_job_is_ignored(error: ApiError) -> None:
    api = FakeApi()
    api.faults = [(TRY, error)]
    assert await warnings(api) == ()


@pytest.mark.parametrize(
    "error",
    [
        ForbiddenError(403, "Forbidden", 'User "x" cannot create resource "jobs"'),
        ApiError(500, "InternalError", "etcdserver: request timed out"),
    ],
)
async def test_without_an_answer_nothing_is_accepted(error: ApiError) -> None:
    api = FakeApi()
    api.faults = [(TRY, error)]
    with pytest.raises(ApiError):
        await rehearsed(api, EVALJOB, PLAN)


async def test_a_policy_that_expires_jobs_is_told() -> None:
    api = FakeApi()
    api.mutation = {"spec": {"ttlSecondsAfterFinished": 60}}
    (warning,) = await warnings(api)
    assert "deletes Jobs 60 s after their end" in warning


async def test_warnings_are_bounded_and_told_once() -> None:
    api = FakeApi()
    api.warnings = ("w" * 1000, *(f"{i}" for i in range(9)))
    found = await warnings(api)
    assert found == ("w" * 300, "0", "1", "2", "3")


def test_warnings_stay_with_the_plan() -> None:
    warned = PLAN.model_copy(update={"warnings": ("careful",)})
    assert plans.from_data(plans.to_data(warned)) == warned
