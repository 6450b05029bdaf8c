"""Plan + partition -> the objects of a run: the plan's ConfigMap and one Job per partition.

Order of power in a pod: defaults < chart < user < forced security fields; then the finished pod is checked.
"""

from typing import Any

from evaljob import mounts, podsecurity
from evaljob.mounts import (
    CONFIG_DIR,
    HUB_DIR,
    HUB_GIB,
    HUB_ROOM,
    HUB_TOKEN_DIR,
    JUDGE_KEY_DIR,
    KEY_DIR,
    OUTPUT_DIR,
    PLAN_DIR,
    S3_DIR,
    SOURCE_DIR,
    Manifest,
    bucket_secret,
    claims,
    config_maps,
    judge_keys,
    uses_hub,
)
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
from evaljob.plan import Partition, Plan, to_data
from evaljob.podfields import Resources, RunnerPod, pod_fields
from evaljob.spec import EvalJob

EXIT_NEVER_AGAIN = 78
"""EX_CONFIG of sysexits.h: trying again cannot help."""


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
    runner = plan.model(partition.model).runner
    volumes = mounts.volumes(plan, partition)
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


def _container(plan: Plan, partition: Partition, mounted: list[Manifest]) -> Manifest:
    runner = plan.model(partition.model).runner
    return {
        "name": "runner",
        "image": plan.image(partition),
        "args": arguments(plan, partition),
        "env": [
            *_environment(runner.resources),
            *_hub_environment(plan, partition),
            *_bucket_environment(plan, partition),
            *(e.model_dump() for e in runner.env),
        ],
        "resources": _given(limits=runner.resources.limits, requests=runner.resources.requests),
        "terminationMessagePolicy": "File",
        "volumeMounts": mounted,
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


def _environment(resources: Resources) -> list[Manifest]:
    """OpenMP threads = the CPU limit: a cgroup quota is invisible to torch, and spinning threads are slow."""
    bound = "limits.cpu" if "cpu" in resources.limits else "requests.cpu"
    threads = {"resourceFieldRef": {"containerName": "runner", "resource": bound, "divisor": "1"}}
    return [{"name": "OMP_NUM_THREADS", "valueFrom": threads}]


def _hub_environment(plan: Plan, partition: Partition) -> list[Manifest]:
    """huggingface_hub's own variables; locally the user's own shell has them, or their defaults do."""
    if not uses_hub(plan, partition):
        return []
    hub = plan.run.hub
    token = {"HF_TOKEN_PATH": f"{HUB_TOKEN_DIR}/{hub.token_secret_ref.key}"} if hub else {}
    room = {} if plan.run.model_cache else {HUB_ROOM: str(HUB_GIB * 2**30)}
    return [{"name": name, "value": value} for name, value in ({"HF_HOME": HUB_DIR} | room | token).items()]


def _bucket_environment(plan: Plan, partition: Partition) -> list[Manifest]:
    """The AWS SDK's own variable."""
    ref = bucket_secret(plan, partition)
    return [{"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{S3_DIR}/{ref.key}"}] if ref else []


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
