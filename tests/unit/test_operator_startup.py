"""What must be there before anything is watched; one namespace that is gone does not stop the others."""

import pytest

from evaljob_operator.api import ApiError, ForbiddenError, Json, NotFoundError
from evaljob_operator.startup import StartError, permitted, wait_for_crd
from tests.unit.fakeapi import FakeApi

SERVED: Json = {"resources": [{"name": "evaljobs"}, {"name": "evaljobs/status"}]}
GROUP = "/apis/evaljob.dev/v1alpha1"


async def test_the_crd_is_waited_for() -> None:
    """Helm creates it in the same moment as the operator."""
    api = FakeApi()
    api.faults = [(f"GET {GROUP}", NotFoundError(404, "NotFound", "no such group"))] * 2
    api.objects[GROUP] = SERVED
    await wait_for_crd(api, seconds=0.1, interval=0.001)
    assert len(api.reads) == 3


@pytest.mark.parametrize("served", [None, {"resources": [{"name": "other"}]}])
async def test_without_the_crd_the_start_fails_by_name(served: Json | None) -> None:
    api = FakeApi()
    if served:
        api.objects[GROUP] = served
    with pytest.raises(StartError, match=r"evaljobs\.evaljob\.dev"):
        await wait_for_crd(api, seconds=0.01, interval=0.001)


def refused(namespace: str, group: str = GROUP, plural: str = "evaljobs") -> tuple[str, ApiError]:
    return (
        f"GET {group}/namespaces/{namespace}/{plural}",
        ForbiddenError(403, "Forbidden", f"cannot list {plural}"),
    )


@pytest.mark.parametrize(
    ("group", "plural"), [(GROUP, "evaljobs"), ("/apis/batch/v1", "jobs"), ("/api/v1", "pods")]
)
async def test_a_namespace_without_rights_is_left_out_and_named(
    group: str, plural: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = FakeApi()
    api.faults = [refused("gone", group, plural)]
    assert await permitted(api, ["a", "gone", "b"]) == ["a", "b"]
    assert f"gone is not watched until a restart finds it permitted: 403 Forbidden: cannot list {plural}" in (
        caplog.text
    )


async def test_without_any_namespace_the_start_fails() -> None:
    api = FakeApi()
    api.faults = [refused("a")]
    with pytest.raises(StartError):
        await permitted(api, ["a"])
