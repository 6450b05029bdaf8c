"""What a runner's pod has mounted, and where: the plan, sources, keys, room to write, and what its user adds."""

from typing import Any

from evaljob import spec
from evaljob.fields import SecretKeyRef
from evaljob.names import plan_name
from evaljob.plan import RUN_KEY, Partition, Plan, dataset_key, model_key
from evaljob.podfields import RunnerPod
from evaljob.spec import Model, sources

PLAN_DIR = "/etc/evaljob/plan"
KEY_DIR = "/etc/evaljob/key"
JUDGE_KEY_DIR = "/etc/evaljob/judge"
"""Of the judges' keys, a folder each."""
HUB_TOKEN_DIR = "/etc/evaljob/hub"  # noqa: S105 - a folder
SOURCE_DIR = "/mnt/source"
CONFIG_DIR = "/mnt/config"
HUB_DIR = "/mnt/hub"
HUB_ROOM = "EVALJOB_HUB_ROOM"
"""Environment variable of a runner: bytes that HF_HOME may hold, where that is no claim."""
HUB_GIB = 64
S3_DIR = "/etc/evaljob/s3"
OUTPUT_DIR = "/mnt/output"
ATTEMPT_FILE = "attempt"
"""The pod's own uid beside the plan's files: which attempt this is."""
_USERS = {"persistent_volume_claim", "config_map", "secret"}
"""What a volume of the user's own can be."""

Manifest = dict[str, Any]
VolumeAndMount = tuple[Manifest, Manifest]


def volumes(plan: Plan, partition: Partition) -> list[VolumeAndMount]:
    """Everything that a partition's pod has mounted."""
    model = plan.model(partition.model)
    found = [
        *_scratch(model.runner),
        _plan_volume(plan, partition),
        *_claims(plan, partition),
        *_key_volume(model),
        *_judge_key_volumes(plan, partition),
        *_hub_volumes(plan, partition),
    ]
    if credentials := bucket_secret(plan, partition):
        found.append(_secret("s3", S3_DIR, credentials))
    return [*found, *_chosen_volumes(model.runner)]


def _sources(plan: Plan, partition: Partition) -> list[tuple[str, str]]:
    """(scheme, name) of everything that the partition reads, in order and once each."""
    uris = sources(plan.model(partition.model), plan.dataset(partition.dataset).dataset)
    pairs = [(scheme, rest.split("/")[0]) for scheme, _, rest in (u.partition("://") for u in uris)]
    return list(dict.fromkeys(pairs))


def claims(plan: Plan, partition: Partition) -> list[str]:
    """The PersistentVolumeClaims that the partition reads."""
    return [name for scheme, name in _sources(plan, partition) if scheme == "pvc"]


def config_maps(plan: Plan, partition: Partition) -> list[str]:
    """The ConfigMaps that the partition reads."""
    return [name for scheme, name in _sources(plan, partition) if scheme == "configmap"]


def judge_keys(plan: Plan, partition: Partition) -> dict[str, SecretKeyRef]:
    """The keys of the judges that score the partition, by judge; some have none."""
    found = {judge.name: judge.openai.api_key_secret_ref for judge in plan.dataset(partition.dataset).judges}
    return {name: ref for name, ref in found.items() if ref}


def uses_hub(plan: Plan, partition: Partition) -> bool:
    """Whether anything that the partition reads is of a hub."""
    return spec.uses_hub(plan.model(partition.model), plan.dataset(partition.dataset).dataset)


def bucket_secret(plan: Plan, partition: Partition) -> SecretKeyRef | None:
    """The credentials of the bucket that the partition reads, if it reads one and has any."""
    uses = any(scheme == "s3" for scheme, _ in _sources(plan, partition))
    return plan.run.s3.credentials_secret_ref if plan.run.s3 and uses else None


def _volume(name: str, path: str, source: Manifest, **mount: Any) -> VolumeAndMount:  # noqa: ANN401 - mount fields
    return {"name": name, **source}, {"name": name, "mountPath": path, **mount}


def _chosen_volumes(runner: RunnerPod) -> list[VolumeAndMount]:
    """The user's own; their names cannot meet ours."""
    return [
        _volume(
            f"volume-{v.name}",
            v.mount_path,
            v.model_dump(by_alias=True, exclude_none=True, include=_USERS),
            readOnly=v.read_only,
            **({"subPath": v.sub_path} if v.sub_path else {}),
        )
        for v in runner.volumes
    ]


def _scratch(runner: RunnerPod) -> list[VolumeAndMount]:
    """The root file system is read-only: caches and shared memory get sized room of their own."""
    shm = runner.shm_size or "2Gi"
    return [
        _volume("tmp", "/tmp", {"emptyDir": {"sizeLimit": "16Gi"}}),  # noqa: S108 - a mount of the pod
        _volume("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": shm}}),  # noqa: S108 - same
    ]


def _plan_volume(plan: Plan, partition: Partition) -> VolumeAndMount:
    keys = (RUN_KEY, model_key(partition.model), dataset_key(partition.dataset))
    name = plan_name(plan.run.name, plan.run.uid)
    parts = [
        {"configMap": {"name": name, "items": [{"key": k, "path": k} for k in keys]}},
        {"downwardAPI": {"items": [{"path": ATTEMPT_FILE, "fieldRef": {"fieldPath": "metadata.uid"}}]}},
    ]
    return _volume("plan", PLAN_DIR, {"projected": {"sources": parts}}, readOnly=True)


def _claims(plan: Plan, partition: Partition) -> list[VolumeAndMount]:
    """Sources read-only, once each; the output claim writable under the EvalJob's name, or scratch without it."""
    found = [
        _volume(
            f"source-{i}",
            f"{SOURCE_DIR}/{c}",
            {"persistentVolumeClaim": {"claimName": c, "readOnly": True}},
            readOnly=True,
        )
        for i, c in enumerate(claims(plan, partition))
    ]
    found += [
        _volume(f"config-{i}", f"{CONFIG_DIR}/{c}", {"configMap": {"name": c}}, readOnly=True)
        for i, c in enumerate(config_maps(plan, partition))
    ]
    if plan.run.output is None:
        return [*found, _volume("output", OUTPUT_DIR, {"emptyDir": {"sizeLimit": "4Gi"}})]
    claim = {"persistentVolumeClaim": {"claimName": plan.run.output.claim_name}}
    return [*found, _volume("output", OUTPUT_DIR, claim, subPath=plan.run.name)]


def _key_volume(model: Model) -> list[VolumeAndMount]:
    ref = model.openai.api_key_secret_ref if model.openai else None
    return [_secret("key", KEY_DIR, ref)] if ref else []


def _judge_key_volumes(plan: Plan, partition: Partition) -> list[VolumeAndMount]:
    keys = judge_keys(plan, partition).items()
    return [_secret(f"judge-{i}", f"{JUDGE_KEY_DIR}/{name}", ref) for i, (name, ref) in enumerate(keys)]


def _hub_volumes(plan: Plan, partition: Partition) -> list[VolumeAndMount]:
    """Room for what `hf://` sources bring, shared between pods or not, and the token."""
    if not uses_hub(plan, partition):
        return []
    cache, hub = plan.run.model_cache, plan.run.hub
    kept = {"persistentVolumeClaim": {"claimName": cache.claim_name}} if cache else None
    room = _volume("hub", HUB_DIR, kept or {"emptyDir": {"sizeLimit": f"{HUB_GIB}Gi"}})
    return [room, _secret("hub-token", HUB_TOKEN_DIR, hub.token_secret_ref)] if hub else [room]


def _secret(name: str, path: str, ref: SecretKeyRef) -> VolumeAndMount:
    secret = {"secret": {"secretName": ref.name, "items": [{"key": ref.key, "path": ref.key}]}}
    return _volume(name, path, secret, readOnly=True)
