"""Plan + partition -> the objects of a run: the plan's ConfigMap and one Job per partition.

Order of power in a pod: defaults < chart < user < forced security fields; then the finished pod is checked.
"""

from typing import Any

from evaljob import podsecurity
from evaljob.fields import SecretKeyRef
from evaljob.names import (
    ANNOTATION_RESULT,
    API_VERSION,
    KIND,
    KUEUE_PREFIX,
    LABEL_DATASET,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_NAME,
    LABEL_SHARD,
    MANAGED_BY,
    plan_name,
    shard_label,
    summary_name,
)
from evaljob.packing import Packed
from evaljob.plan import RUN_KEY, Partition, Plan, dataset_key, model_key, to_data
from evaljob.podfields import Resources, RunnerPod, pod_fields
from evaljob.spec import EvalJob, Model, sources

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
_HUB_GIB = 64
S3_DIR = "/etc/evaljob/s3"
OUTPUT_DIR = "/mnt/output"
ATTEMPT_FILE = "attempt"
"""The pod's own uid beside the plan's files: which attempt this is."""
EXIT_NEVER_AGAIN = 78
"""EX_CONFIG of sysexits.h: trying again cannot help."""

Manifest = dict[str, Any]


def owner_reference(evaljob: EvalJob) -> Manifest:
    """Ties an object's life to its EvalJob's."""
    meta = evaljob.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _config_map(evaljob: EvalJob, name: str, data: dict[str, str], **more: Any) -> Manifest:  # noqa: ANN401 - fields
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": evaljob.metadata.namespace,
            "labels": {LABEL_NAME: evaljob.metadata.name, LABEL_MANAGED_BY: MANAGED_BY},
            "ownerReferences": [owner_reference(evaljob)],
        },
        "data": data,
        **more,
    }


def plan_config_map(evaljob: EvalJob, plan: Plan) -> Manifest:
    """The frozen plan."""
    name = plan_name(evaljob.metadata.name, evaljob.metadata.uid)
    return _config_map(evaljob, name, to_data(plan), immutable=True)


def summary_config_map(evaljob: EvalJob, packed: Packed) -> Manifest:
    """The results, as files."""
    binary = {"binaryData": packed.binary} if packed.binary else {}
    return _config_map(evaljob, summary_name(evaljob.metadata.name), packed.data, **binary)


def labels(plan: Plan, partition: Partition) -> dict[str, str]:
    """Which partition of which EvalJob an object belongs to."""
    return {
        LABEL_NAME: plan.run.name,
        LABEL_MODEL: partition.model,
        LABEL_DATASET: partition.dataset,
        LABEL_SHARD: shard_label(partition.shard, partition.shards),
        LABEL_MANAGED_BY: MANAGED_BY,
    }


def job(evaljob: EvalJob, plan: Plan, partition: Partition) -> Manifest:
    """The Job of one partition.

    Raises:
        RuntimeError: when the finished pod is not restricted; a defect of this program, never of the user.
    """
    own = labels(plan, partition)
    queue = {k: v for k, v in evaljob.metadata.labels.items() if k.startswith(KUEUE_PREFIX)}
    pod = podsecurity.secured(_pod(plan, partition))
    if found := podsecurity.violations(pod):
        raise RuntimeError(f"refusing to create the pod of {partition}: {'; '.join(found)}")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": plan.job_name(partition),
            "namespace": evaljob.metadata.namespace,
            "labels": own | queue,
            "ownerReferences": [owner_reference(evaljob)],
        },
        "spec": {
            "backoffLimit": plan.run.backoff_limit,
            "podFailurePolicy": _pod_failure_policy(),
            "template": {"metadata": _pod_metadata(plan.model(partition.model).runner, own), "spec": pod},
        },
    }


def _pod_failure_policy() -> Manifest:
    """Disruptions are free; a runner that says "never again" is believed."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "runner", "operator": "In", "values": [EXIT_NEVER_AGAIN]},
            },
        ]
    }


def _pod_metadata(runner: RunnerPod, own: dict[str, str]) -> Manifest:
    """The user's labels and annotations under ours.

    Autoscalers must not move a loaded model; a mesh's sidecar would keep the Job from ever completing.
    """
    forced = {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
    }
    return {"labels": runner.labels | own, "annotations": runner.annotations | forced}


def _pod(plan: Plan, partition: Partition) -> Manifest:
    """The pod before the forced security fields."""
    model = plan.model(partition.model)
    runner = model.runner
    volumes = [
        *_scratch(runner),
        _plan_volume(plan, partition),
        *_claims(plan, partition),
        *_key_volume(model),
        *_judge_key_volumes(plan, partition),
    ]
    volumes += _hub_volumes(plan, partition)
    if credentials := _bucket_secret(plan, partition):
        volumes.append(_secret("s3", S3_DIR, credentials))
    volumes += _chosen_volumes(runner)
    return {
        # The runner's soft deadline comes a grace period earlier, so that it can still close its log.
        "activeDeadlineSeconds": plan.run.partition_deadline_seconds + plan.run.grace_period_seconds,
        "terminationGracePeriodSeconds": plan.run.grace_period_seconds,
        "containers": [_container(plan, partition, [mount for _, mount in volumes])],
        "volumes": [volume for volume, _ in volumes],
        **pod_fields(runner),
    }


def _given(**fields: Any) -> Manifest:  # noqa: ANN401 - values of pod fields, as the API takes them
    """Only the fields that say something."""
    return {k: v for k, v in fields.items() if v}


def _container(plan: Plan, partition: Partition, mounts: list[Manifest]) -> Manifest:
    runner = plan.model(partition.model).runner
    return {
        "name": "runner",
        "image": runner.image,
        "args": arguments(plan, partition),
        "env": [
            *_environment(runner.resources),
            *_hub_environment(plan, partition),
            *_bucket_environment(plan, partition),
            *(e.model_dump() for e in runner.env),
        ],
        "resources": _given(limits=runner.resources.limits, requests=runner.resources.requests),
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
        **_given(imagePullPolicy=runner.image_pull_policy),
    }


def arguments(plan: Plan, partition: Partition) -> list[str]:
    """The runner's command line: what `kubectl describe` shows is what a user can type."""
    model = plan.model(partition.model)
    args = ["--plan", PLAN_DIR, "--model", partition.model, "--dataset", partition.dataset]
    args += ["--shard", f"{partition.shard}/{partition.shards}", "--out", OUTPUT_DIR]
    for claim in claims(plan, partition):
        args += ["--mount", f"{claim}={SOURCE_DIR}/{claim}"]
    for name in config_maps(plan, partition):
        args += ["--config-map", f"{name}={CONFIG_DIR}/{name}"]
    if model.openai and model.openai.api_key_secret_ref:
        args += ["--api-key-file", f"{KEY_DIR}/{model.openai.api_key_secret_ref.key}"]
    for name, ref in judge_keys(plan, partition).items():
        args += ["--judge-key-file", f"{name}={JUDGE_KEY_DIR}/{name}/{ref.key}"]
    return args


def judge_keys(plan: Plan, partition: Partition) -> dict[str, SecretKeyRef]:
    """The keys of the judges that score the partition, by judge; some have none."""
    found = {judge.name: judge.openai.api_key_secret_ref for judge in plan.dataset(partition.dataset).judges}
    return {name: ref for name, ref in found.items() if ref}


def _environment(resources: Resources) -> list[Manifest]:
    """OpenMP threads = the CPU limit: a cgroup quota is invisible to torch, and spinning threads are slow."""
    bound = "limits.cpu" if "cpu" in resources.limits else "requests.cpu"
    threads = {"resourceFieldRef": {"containerName": "runner", "resource": bound, "divisor": "1"}}
    return [{"name": "OMP_NUM_THREADS", "valueFrom": threads}]


def _hub_environment(plan: Plan, partition: Partition) -> list[Manifest]:
    """huggingface_hub's own variables; locally the user's own shell has them, or their defaults do."""
    if not _uses_hub(plan, partition):
        return []
    hub = plan.run.hub
    token = {"HF_TOKEN_PATH": f"{HUB_TOKEN_DIR}/{hub.token_secret_ref.key}"} if hub else {}
    room = {} if plan.run.model_cache else {HUB_ROOM: str(_HUB_GIB * 2**30)}
    return [{"name": name, "value": value} for name, value in ({"HF_HOME": HUB_DIR} | room | token).items()]


def _uses_hub(plan: Plan, partition: Partition) -> bool:
    return any(scheme == "hf" for scheme, _ in _sources(plan, partition))


def _bucket_secret(plan: Plan, partition: Partition) -> SecretKeyRef | None:
    uses = any(scheme == "s3" for scheme, _ in _sources(plan, partition))
    return plan.run.s3.credentials_secret_ref if plan.run.s3 and uses else None


def _bucket_environment(plan: Plan, partition: Partition) -> list[Manifest]:
    """The AWS SDK's own variable."""
    ref = _bucket_secret(plan, partition)
    return [{"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{S3_DIR}/{ref.key}"}] if ref else []


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


VolumeAndMount = tuple[Manifest, Manifest]


def _volume(name: str, path: str, source: Manifest, **mount: Any) -> VolumeAndMount:  # noqa: ANN401 - mount fields
    return {"name": name, **source}, {"name": name, "mountPath": path, **mount}


def _chosen_volumes(runner: RunnerPod) -> list[VolumeAndMount]:
    """The user's own; their names cannot meet ours."""
    return [
        _volume(
            f"volume-{v.name}",
            v.mount_path,
            v.model_dump(
                by_alias=True, exclude_none=True, include={"persistent_volume_claim", "config_map", "secret"}
            ),
            readOnly=v.read_only,
            **_given(subPath=v.sub_path),
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
    if not _uses_hub(plan, partition):
        return []
    cache, hub = plan.run.model_cache, plan.run.hub
    kept = {"persistentVolumeClaim": {"claimName": cache.claim_name}} if cache else None
    room = _volume("hub", HUB_DIR, kept or {"emptyDir": {"sizeLimit": f"{_HUB_GIB}Gi"}})
    return [room, _secret("hub-token", HUB_TOKEN_DIR, hub.token_secret_ref)] if hub else [room]


def _secret(name: str, path: str, ref: SecretKeyRef) -> VolumeAndMount:
    secret = {"secret": {"secretName": ref.name, "items": [{"key": ref.key, "path": ref.key}]}}
    return _volume(name, path, secret, readOnly=True)


def record_patch(uid: str, text: str, *, stop_at: str = "") -> Manifest:
    """The one PATCH that makes a Job the record of its partition.

    The uid makes it conditional: a Job made again under the same name answers 422, as the uid is immutable.
    With `stop_at`, a resourceVersion, the Job also ends at once: a one-second deadline makes Kubernetes fail it and
    end its pods, and the Job stays. A Job that has changed since answers 409.
    """
    meta: Manifest = {"uid": uid, "annotations": {ANNOTATION_RESULT: text}}
    if not stop_at:
        return {"metadata": meta}
    return {"metadata": {**meta, "resourceVersion": stop_at}, "spec": {"activeDeadlineSeconds": 1}}
