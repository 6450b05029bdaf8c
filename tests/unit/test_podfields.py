"""What counts as a GPU: a missing one must be noticed, and what is used of one is counted."""

import pytest

from evaljob.podfields import gpus, is_gpu, wants_gpu


@pytest.mark.parametrize(
    "resource",
    [
        "nvidia.com/gpu",
        "nvidia.com/gpu.shared",
        "nvidia.com/mig-1g.5gb",
        "nvidia.com/mig-1g.10gb.me",
        "nvidia.com/mig-3g.20gb.shared",
        "amd.com/gpu",
        "amd.com/cpx_nps4",
        "amd.com/spx_nps1",
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
        "habana.ai/gaudi",
    ],
)
def test_a_gpu_or_a_slice_of_one(resource: str) -> None:
    assert is_gpu(resource)
    assert wants_gpu({"cpu": 1, resource: "1"})
    assert gpus({resource: 2, "memory": "4Gi"}) == 2


@pytest.mark.parametrize(
    "resource",
    [
        "cpu",
        "gpu",
        "memory",
        "gpu.intel.com/i915_monitoring",
        "gpu.intel.com/xe_monitoring",
        "nvidia.com/gpumem",
        "rdma/hca_shared_devices_a",
        "example.com/gpu-license",
    ],
)
def test_what_is_none(resource: str) -> None:
    assert not is_gpu(resource)
    assert not wants_gpu({resource: 1})
    assert gpus({resource: 1}) == 0


def test_none_is_wanted_where_none_is_left() -> None:
    assert not wants_gpu({"nvidia.com/gpu": 0})
    assert not wants_gpu({"nvidia.com/gpu": "0"})
    assert not wants_gpu({})


def test_amounts_that_are_no_plain_number() -> None:
    assert wants_gpu({"nvidia.com/gpu": "1k"})
    assert gpus({"nvidia.com/gpu": "1k", "amd.com/gpu": "3"}) == 3
