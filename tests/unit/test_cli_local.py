"""How a plan is run on this machine: threads, environment, arguments, how many at once."""

from pathlib import Path
from typing import Any

import pytest

from evaljob import jobs
from evaljob.judges import Judge
from evaljob.plan import Partition, Plan
from evaljob.spec import Model
from evaljob.task import Task
from evaljob_cli.inputs import InputError, identified
from evaljob_cli.launch import environment, threads
from evaljob_cli.local import default_parallelism
from evaljob_cli.places import Places, arguments, check
from tests.local_plans import TASK, evaljob, model, plan_of


def planned(**runner: object) -> Model:
    return plan_of(evaljob("good", models=[model(runner=runner)])).models[0]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, 1),
        ({"limits": {"cpu": 4}}, 4),
        ({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}, 2),
        ({"requests": {"cpu": "3"}}, 3),
        ({"limits": {"cpu": "500m"}}, 1),
        ({"limits": {"cpu": "2.1"}}, 3),
    ],
)
def test_threads_are_the_cpu_limit_as_the_pod_would_see_it(resources: dict[str, Any], expected: int) -> None:
    assert threads(planned(resources=resources)) == expected


def test_a_quantity_that_is_no_number_of_cpus_is_refused_with_its_field() -> None:
    with pytest.raises(InputError, match=r"spec\.models\[m\]\.runner\.resources: cpu '2k'"):
        environment({}, planned(resources={"limits": {"cpu": "2k"}}), "/scratch")


@pytest.mark.parametrize(("wanted", "cpus", "expected"), [(10, 8, 4), (10, 1, 1), (3, 8, 3), (1, 8, 1)])
def test_by_default_as_many_at_once_as_the_cpus_carry(wanted: int, cpus: int, expected: int) -> None:
    two_threads = model(runner={"resources": {"limits": {"cpu": 2}}})
    plan = plan_of(evaljob("good", models=[two_threads]))
    assert default_parallelism(plan, wanted, cpus) == expected


@pytest.mark.parametrize(
    ("device", "resource", "expected"),
    [
        ("CPU", "nvidia.com/gpu", 8),
        ("Auto", "nvidia.com/gpu", 1),
        ("CUDA", "nvidia.com/gpu", 1),
        ("Auto", "nvidia.com/mig-1g.5gb", 1),
    ],
)
def test_by_default_one_at_a_time_on_a_gpu(device: str, resource: str, expected: int) -> None:
    transformers = {"source": "pvc://models/m", "dtype": "float32", "device": device}
    gpu = {"resources": {"limits": {resource: 1}}}
    plan = plan_of(evaljob("good", models=[model(transformers=transformers, runner=gpu)]))
    assert default_parallelism(plan, 8, 8) == expected


OPENAI = {
    "name": "o",
    "promptFormat": "Chat",
    "openai": {"url": "http://h/v1", "model": "x", "apiKeySecretRef": {"name": "eval-k", "key": "token"}},
}


def endpoint_plan() -> Plan:
    job = evaljob("good", models=[model(), OPENAI])
    dataset = job.spec.datasets[0].model_copy(update={"inline": None, "source": "configmap://cm/rows.jsonl"})
    spec = job.spec.model_copy(update={"datasets": (dataset,)})
    return plan_of(job.model_copy(update={"spec": spec}))


def test_the_arguments_are_the_jobs_with_local_paths(tmp_path: Path) -> None:
    plan = endpoint_plan()
    places = Places(
        tmp_path,
        {"models": tmp_path / "a", "unused": tmp_path},
        {"cm": tmp_path / "b"},
        {"eval-k/token": tmp_path / "key"},
    )
    local = [arguments(plan, p, places, tmp_path / "plan") for p in plan.partitions]
    cluster = [jobs.arguments(plan, p) for p in plan.partitions]
    changed = [
        (c, x) for cs, xs in zip(cluster, local, strict=True) for c, x in zip(cs, xs, strict=True) if c != x
    ]
    assert dict(changed) == {
        "/etc/evaljob/plan": f"{tmp_path}/plan",
        "/mnt/output": f"{tmp_path}/samples",
        "models=/mnt/source/models": f"models={tmp_path}/a",
        "cm=/mnt/config/cm": f"cm={tmp_path}/b",
        "/etc/evaljob/key/token": f"{tmp_path}/key",
    }


def test_the_keys_of_judges_are_local_files_too(tmp_path: Path) -> None:
    rubric = {"name": "gpt", "prompt": "{{ answer }}", "extract": "x", "labels": {"C": 1}}
    task: dict[str, Any] = TASK | {"extract": {"x": [{"strip": {}}]}}
    task |= {"metrics": [{"name": "llm_judge", "primary": True, "judge": rubric}]}
    judge = {"name": "gpt", "openai": OPENAI["openai"]}
    job = evaljob("judged")
    datasets = (job.spec.datasets[0].model_copy(update={"task_spec": Task.model_validate(task)}),)
    spec = job.spec.model_copy(update={"datasets": datasets, "judges": (Judge.model_validate(judge),)})
    plan = plan_of(job.model_copy(update={"spec": spec}))
    with pytest.raises(InputError, match="--api-key-file eval-k/token=FILE --mount models=DIR"):
        check(plan, Places(tmp_path))
    keys = {"eval-k/token": tmp_path / "key"}
    places = Places(tmp_path, {"models": tmp_path}, api_keys=keys)
    check(plan, places)
    assert f"--judge-key-file gpt={tmp_path}/key" in " ".join(
        arguments(plan, plan.partitions[0], places, tmp_path)
    )


def test_a_place_that_nobody_named_is_refused_with_the_options_to_add(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check(endpoint_plan(), Places(tmp_path))
    assert str(caught.value).endswith(
        "add --api-key-file eval-k/token=FILE --config-map cm=DIR --mount models=DIR"
    )


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ({"parallelism": 3}, True),
        ({"suspend": True}, True),
        ({"seed": 1}, False),
        ({"backoffLimit": 1}, False),
    ],
)
def test_the_local_uid_changes_with_the_spec_but_not_with_how_fast_it_runs(
    spec: dict[str, Any], same: bool
) -> None:
    assert (evaljob("good").metadata.uid == evaljob("good", **spec).metadata.uid) is same


def test_the_local_uid_does_not_change_with_how_answers_are_scored() -> None:
    """A served model's answers count under their uid: they are kept when a metric changes."""
    job = evaljob("good")
    task = job.spec.datasets[0].task_spec
    assert task is not None
    other = task.model_copy(update={"metrics": (task.metrics[0].model_copy(update={"name": "contains"}),)})
    asked = task.model_copy(update={"prompt": "{{ q }}?"})

    def uid(changed: Task) -> str | None:
        dataset = job.spec.datasets[0].model_copy(update={"task_spec": changed})
        spec = job.spec.model_copy(update={"datasets": (dataset,)})
        return identified(job.model_copy(update={"spec": spec})).metadata.uid

    assert uid(other) == job.metadata.uid
    assert uid(asked) != job.metadata.uid


def test_each_partition_has_its_own_job_name_and_folder() -> None:
    plan = plan_of(evaljob("good-1", "good-2"))
    names = {plan.job_name(Partition(model="m", dataset=d, shard=0, shards=1)) for d in ("good-1", "good-2")}
    assert len(names) == 2
