"""Plan and partition -> Job."""

from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from evaljob import jobs, podfields
from evaljob.names import plan_name
from evaljob.packing import Packed
from evaljob.plan import from_data
from evaljob.spec import parse_evaljob
from tests.unit import builders
from tests.unit.builders import UID, dataset, document, endpoint, evaljob, model


def made(doc: dict[str, Any] | None = None, number: int = 0) -> dict[str, Any]:
    of = parse_evaljob(doc or document())
    plan = builders.plan(of)
    return jobs.job(of, plan, plan.partitions[number])


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def volume(job: dict[str, Any], name: str) -> dict[str, Any]:
    return next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == name)


def test_a_job_belongs_to_its_evaljob() -> None:
    job = made()
    assert job["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "evaljob.dev/v1alpha1",
            "kind": "EvalJob",
            "name": "nightly",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    labels = {"name": "nightly", "model": "m", "dataset": "d", "shard": "0-of-1"}
    expected = {f"evaljob.dev/{k}": v for k, v in labels.items()} | {
        "app.kubernetes.io/managed-by": "evaljob"
    }
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"] == expected


def test_only_kueues_labels_are_copied() -> None:
    doc = document()
    doc["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu", "team": "x"}
    job = made(doc)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert "team" not in job["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]


def test_a_job_has_no_time_to_live() -> None:
    """The Job is the record."""
    assert "ttlSecondsAfterFinished" not in made()["spec"]


def test_disruptions_are_free_and_78_is_final() -> None:
    rules = made()["spec"]["podFailurePolicy"]["rules"]
    assert [r["action"] for r in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [78]


def test_the_pod_outlives_the_runners_own_deadline_by_the_grace_period() -> None:
    pod = made(document(partitionDeadlineSeconds=100))["spec"]["template"]["spec"]
    assert (pod["activeDeadlineSeconds"], pod["terminationGracePeriodSeconds"]) == (160, 60)


def test_arguments_are_what_a_user_would_type() -> None:
    job = made(document(datasets=[dataset(shards=2)]), number=1)
    assert " ".join(container(job)["args"]) == (
        "--plan /etc/evaljob/plan --model m --dataset d --shard 1/2 --out /mnt/output "
        "--mount models=/mnt/source/models --mount data=/mnt/source/data"
    )


def test_a_claim_named_twice_is_mounted_once_and_read_only() -> None:
    job = made(document(datasets=[dataset(source="pvc://models/data.jsonl")]))
    mounts = [m for m in container(job)["volumeMounts"] if m["mountPath"].startswith("/mnt/source")]
    assert mounts == [{"name": "source-0", "mountPath": "/mnt/source/models", "readOnly": True}]
    assert volume(job, "source-0")["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_a_config_map_is_mounted_as_a_folder() -> None:
    job = made(document(datasets=[dataset(source="configmap://questions/q.jsonl")]))
    assert "--config-map questions=/mnt/config/questions" in " ".join(container(job)["args"])
    assert volume(job, "config-0")["configMap"] == {"name": "questions"}


def test_inline_data_needs_no_volume() -> None:
    spec = {"name": "d", "taskSpec": builders.TASK, "inline": {"jsonl": "{}"}}
    names = {v["name"] for v in made(document([endpoint()], [spec]))["spec"]["template"]["spec"]["volumes"]}
    assert names == {"tmp", "shm", "plan", "output"}


def test_a_key_is_a_file_and_never_an_environment_variable() -> None:
    job = made(document([endpoint(secret="eval-llm")]))
    assert "--api-key-file /etc/evaljob/key/token" in " ".join(container(job)["args"])
    items = [{"key": "token", "path": "token"}]
    assert volume(job, "key")["secret"] == {"secretName": "eval-llm", "items": items}
    assert [e["name"] for e in container(job)["env"]] == ["OMP_NUM_THREADS"]


def test_a_judges_key_is_a_file_of_the_pods_that_it_scores_for() -> None:
    """A key each, beside the model's own; a judge without one, and a pod without a judge, need none."""

    def judge(name: str, secret: str | None) -> dict[str, Any]:
        return {k: v for k, v in endpoint(name, secret).items() if k != "promptFormat"}

    rubric = {"prompt": "{{ answer }}", "extract": "x", "labels": {"C": 1}}
    metrics = [
        {"name": "llm_judge", "alias": name, "judge": {"name": name, **rubric}, "primary": name == "a"}
        for name in ("a", "b", "free")
    ]
    judged = {**builders.TASK, "extract": {"x": [{"strip": {}}]}, "metrics": metrics}
    judges = [judge("a", "eval-a"), judge("b", "eval-b"), judge("free", None)]
    datasets = [dataset("judged", judged), dataset("other")]
    job = made(document([endpoint(secret="eval-llm")], datasets, judges=judges))
    args = " ".join(container(job)["args"])
    assert "--api-key-file /etc/evaljob/key/token" in args
    assert (
        "--judge-key-file a=/etc/evaljob/judge/a/token --judge-key-file b=/etc/evaljob/judge/b/token" in args
    )
    assert "free" not in args
    mounts = {m["name"]: m for m in container(job)["volumeMounts"]}
    assert mounts["judge-1"] == {"name": "judge-1", "mountPath": "/etc/evaljob/judge/b", "readOnly": True}
    items = [{"key": "token", "path": "token"}]
    assert volume(job, "judge-1")["secret"] == {"secretName": "eval-b", "items": items}
    assert [e["name"] for e in container(job)["env"]] == ["OMP_NUM_THREADS"]
    other = made(document([endpoint()], datasets, judges=judges), number=1)
    assert "judge" not in str(container(other)["volumeMounts"])


HUB: dict[str, Any] = {
    "hub": {"tokenSecretRef": {"name": "eval-hf", "key": "token"}},
    "modelCache": {"claimName": "cache"},
}


def test_a_hub_is_reached_by_the_variables_of_its_own_library() -> None:
    """So that the same runner, started in a user's shell, uses the user's cache and token."""
    job = made(document(datasets=[dataset(source="hf://org/set@main")], **HUB))
    variables = {e["name"]: e.get("value") for e in container(job)["env"]}
    assert variables["HF_HOME"] == "/mnt/hub"
    assert variables["HF_TOKEN_PATH"] == "/etc/evaljob/hub/token"
    mounts = {m["name"]: m for m in container(job)["volumeMounts"]}
    assert mounts["hub"] == {"name": "hub", "mountPath": "/mnt/hub"}
    assert mounts["hub-token"] == {"name": "hub-token", "mountPath": "/etc/evaljob/hub", "readOnly": True}
    assert volume(job, "hub")["persistentVolumeClaim"] == {"claimName": "cache"}
    items = [{"key": "token", "path": "token"}]
    assert volume(job, "hub-token")["secret"] == {"secretName": "eval-hf", "items": items}
    assert "hf:" not in " ".join(container(job)["args"])


def test_without_a_cache_claim_a_pod_has_room_of_its_own() -> None:
    source = {"source": "hf://org/model@v1", "dtype": "float32"}
    job = made(document([model(transformers=source)]))
    assert volume(job, "hub") == {"name": "hub", "emptyDir": {"sizeLimit": "64Gi"}}
    variables = {e["name"]: e.get("value") for e in container(job)["env"]}
    assert variables["EVALJOB_HUB_ROOM"] == str(64 * 2**30)
    assert "HF_TOKEN_PATH" not in variables


def test_a_pod_that_asks_no_hub_gets_neither_cache_nor_token() -> None:
    job = made(document(**HUB))
    assert {"hub", "hub-token"}.isdisjoint(v["name"] for v in job["spec"]["template"]["spec"]["volumes"])
    assert [e["name"] for e in container(job)["env"]] == ["OMP_NUM_THREADS"]


def test_a_bucket_is_reached_by_the_variables_of_its_own_library() -> None:
    secret: dict[str, Any] = {"s3": {"credentialsSecretRef": {"name": "eval-s3", "key": "credentials"}}}
    job = made(document(datasets=[dataset(source="s3://evals/set")], **secret))
    (variable,) = [e for e in container(job)["env"] if e["name"].startswith("AWS_")]
    assert variable == {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/etc/evaljob/s3/credentials"}
    assert volume(job, "s3")["secret"]["secretName"] == "eval-s3"
    assert "s3" not in {v["name"] for v in made(document(**secret))["spec"]["template"]["spec"]["volumes"]}


def test_a_pod_sees_three_keys_of_the_plan_and_its_own_uid() -> None:
    sources = volume(made(), "plan")["projected"]["sources"]
    assert [i["key"] for i in sources[0]["configMap"]["items"]] == [
        "run.json",
        "model.m.json",
        "dataset.d.json",
    ]
    assert sources[1]["downwardAPI"]["items"] == [
        {"path": "attempt", "fieldRef": {"fieldPath": "metadata.uid"}}
    ]


@pytest.mark.parametrize(
    ("limits", "bound"), [({"cpu": 2}, "limits.cpu"), ({"nvidia.com/gpu": 1}, "requests.cpu")]
)
def test_threads_follow_the_cpus_that_the_pod_has(limits: dict[str, int], bound: str) -> None:
    job = made(document([model(runner={"resources": {"limits": limits}})]))
    (threads,) = container(job)["env"]
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == bound


@pytest.mark.parametrize(
    ("spec", "source", "sub_path"),
    [
        ({}, {"emptyDir": {"sizeLimit": "4Gi"}}, None),
        ({"output": {"claimName": "logs"}}, {"persistentVolumeClaim": {"claimName": "logs"}}, "nightly"),
    ],
)
def test_output(spec: dict[str, Any], source: dict[str, Any], sub_path: str | None) -> None:
    job = made(document(**spec))
    assert volume(job, "output") == {"name": "output", **source}
    (mount,) = [m for m in container(job)["volumeMounts"] if m["name"] == "output"]
    assert mount.get("subPath") == sub_path


LABELS = {"matchLabels": {"evaljob.dev/name": "nightly"}}
AS_THEY_ARE: dict[str, Any] = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100", "h200"]}]}
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": LABELS},
                }
            ]
        },
    },
    "hostUsers": False,
    "imagePullSecrets": [{"name": "pull"}],
    "nodeSelector": {"gpu": "h100"},
    "priorityClassName": "low",
    "runtimeClassName": "gvisor",
    "schedulerName": "volcano",
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": LABELS,
        }
    ],
}


@pytest.mark.parametrize("field", AS_THEY_ARE)
def test_a_pod_field_arrives_as_it_is(field: str) -> None:
    job = made(document([model(runner={field: AS_THEY_ARE[field]})]))
    assert job["spec"]["template"]["spec"][field] == AS_THEY_ARE[field]


def test_every_pod_field_of_the_list_is_tested() -> None:
    assert {to_camel(f) for f in podfields.AS_THEY_ARE} | {"tolerations"} == AS_THEY_ARE.keys() | {
        "securityContext"
    }


def test_the_container_s_fields_of_a_user_arrive() -> None:
    runner = {
        "image": "mine:2",
        "imagePullPolicy": "Never",
        "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}},
    }
    job = made(document([model(runner=runner)]))
    for field in ("image", "imagePullPolicy"):
        assert container(job)[field] == runner[field]
    assert container(job)["env"][1:] == runner["env"]
    assert container(job)["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "8Gi"}


def test_users_and_groups_are_the_user_s_and_the_rest_is_forced() -> None:
    ids = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000]}
    chosen = {**ids, "fsGroupChangePolicy": "OnRootMismatch"}
    job = made(document([model(runner={"securityContext": chosen})]))
    forced = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert job["spec"]["template"]["spec"]["securityContext"] == forced | chosen


@pytest.mark.parametrize(
    ("resource", "taint"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu"),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/gpu"),
        ("nvidia.com/gpu.shared", "nvidia.com/gpu"),
        ("amd.com/gpu", "amd.com/gpu"),
        ("rdma/hca_shared_devices_a", "rdma/hca_shared_devices_a"),
    ],
)
def test_the_taint_of_an_extended_resource_is_tolerated(resource: str, taint: str) -> None:
    runner = {"resources": {"limits": {resource: 1}}, "tolerations": [{"key": "own", "operator": "Exists"}]}
    tolerations = made(document([model(runner=runner)]))["spec"]["template"]["spec"]["tolerations"]
    assert tolerations == [
        {"key": "own", "operator": "Exists"},
        {"key": taint, "operator": "Exists", "effect": "NoSchedule"},
    ]


def test_no_taint_is_tolerated_for_cpus() -> None:
    assert "tolerations" not in made()["spec"]["template"]["spec"]


def test_shared_memory_is_as_large_as_the_user_says() -> None:
    assert volume(made(), "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    job = made(document([model(runner={"shmSize": "64Gi"})]))
    assert volume(job, "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}


@pytest.mark.parametrize(
    ("source", "mount"),
    [
        ({"persistentVolumeClaim": {"claimName": "lora"}}, {}),
        (
            {"persistentVolumeClaim": {"claimName": "lora"}, "readOnly": False, "subPath": "a/b"},
            {"subPath": "a/b"},
        ),
        ({"configMap": {"name": "ca"}}, {}),
        ({"secret": {"secretName": "eval-key"}}, {}),
    ],
)
def test_a_volume_of_the_user_s_own(source: dict[str, Any], mount: dict[str, Any]) -> None:
    job = made(document([model(runner={"volumes": [{"name": "own", "mountPath": "/own", **source}]})]))
    given = {k: v for k, v in source.items() if k not in ("readOnly", "subPath")}
    assert volume(job, "volume-own") == {"name": "volume-own", **given}
    (found,) = [m for m in container(job)["volumeMounts"] if m["name"] == "volume-own"]
    only = source.get("readOnly", True)
    assert found == {"name": "volume-own", "mountPath": "/own", "readOnly": only, **mount}


def test_labels_and_annotations_of_the_user_s_are_under_ours() -> None:
    keys = ("example.com/team", "karpenter.sh/do-not-disrupt", "evaljob.dev/name")
    given = dict.fromkeys(keys, "x")
    of = evaljob([model(runner={"labels": given, "annotations": given})])
    plan = builders.plan(of, builders.SETTINGS.model_copy(update={"allowed_metadata": keys}))
    metadata = jobs.job(of, plan, plan.partitions[0])["spec"]["template"]["metadata"]
    assert (metadata["labels"]["example.com/team"], metadata["labels"]["evaljob.dev/name"]) == (
        "x",
        "nightly",
    )
    assert metadata["annotations"]["example.com/team"] == "x"
    assert metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_the_plans_config_map_is_immutable_and_holds_the_plan() -> None:
    of = evaljob()
    plan = builders.plan(of)
    found = jobs.plan_config_map(of, plan)
    assert (found["metadata"]["name"], found["immutable"]) == (plan_name("nightly", UID), True)
    assert from_data(found["data"]) == plan


def test_the_summarys_config_map_can_be_written_again() -> None:
    found = jobs.summary_config_map(evaljob(), Packed({"summary.md": "x"}, {}))
    assert (found["metadata"]["name"], found["data"]) == ("nightly-summary", {"summary.md": "x"})
    assert not {"immutable", "binaryData"} & found.keys()


def test_a_compressed_summary_is_binary_data() -> None:
    found = jobs.summary_config_map(evaljob(), Packed({"format": "Gzip"}, {"summary.json.gz": "H4sI"}))
    assert found["binaryData"] == {"summary.json.gz": "H4sI"}


def test_a_record_is_one_patch_bound_to_the_jobs_uid() -> None:
    assert jobs.record_patch("u", "text") == {
        "metadata": {"uid": "u", "annotations": {"evaljob.dev/result": "text"}}
    }


def test_a_job_is_ended_only_as_it_was_seen() -> None:
    """A pod may have started meanwhile."""
    patch = jobs.record_patch("u", "text", stop_at="7")
    assert patch["spec"] == {"activeDeadlineSeconds": 1}
    assert (patch["metadata"]["uid"], patch["metadata"]["resourceVersion"]) == ("u", "7")
