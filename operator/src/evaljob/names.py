"""Every name that users, the API server and other programs see: group, labels, reasons, object names."""

import base64
import hashlib
from enum import StrEnum

GROUP = "evaljob.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "EvalJob"
PLURAL = "evaljobs"
SHORT_NAMES = ("ej",)
CATEGORIES = ("eval",)

LABEL_NAME = f"{GROUP}/name"
LABEL_MODEL = f"{GROUP}/model"
LABEL_DATASET = f"{GROUP}/dataset"
LABEL_SHARD = f"{GROUP}/shard"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "evaljob"
ANNOTATION_RESULT = f"{GROUP}/result"
ANNOTATION_RETRY = f"{GROUP}/retry-failed"
ANNOTATION_END = f"{GROUP}/end"
"""Of the last summary: the resourceVersion of the EvalJob whose end it tells."""
KUEUE_PREFIX = "kueue.x-k8s.io/"
LABEL_QUEUE = f"{KUEUE_PREFIX}queue-name"

JOB_NAME_MAX = 63
"""A Job's name becomes a label value of its pods, so 63 and not 253 characters."""
_HASH_LENGTH = 10


class Condition(StrEnum):
    """Condition types of an EvalJob."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    FINISHED = "Finished"
    COMPLETE = "Complete"
    FAILED = "Failed"
    RESUMABLE = "Resumable"


class State(StrEnum):
    """`status.state`: one word for the column of `kubectl get`, derived, never read back."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Reasons of conditions and failures: stable, PascalCase, safe to match in scripts."""

    # of the EvalJob
    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    UNSUPPORTED_FIELD = "UnsupportedField"
    INCOMPATIBLE_PAIR = "IncompatiblePair"
    PLAN_TOO_LARGE = "PlanTooLarge"
    NAME_COLLISION = "NameCollision"
    PERMISSION_DENIED = "PermissionDenied"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    NOT_SUSPENDED = "NotSuspended"
    ALL_SUCCEEDED = "AllPartitionsSucceeded"
    PARTITIONS_FAILED = "PartitionsFailed"
    SUMMARY_TOO_LARGE = "SummaryTooLarge"
    OUTPUT_CLAIM = "OutputClaim"
    NO_OUTPUT = "NoOutput"
    RETRIED = "Retried"
    RETRY_REFUSED = "RetryRefused"
    # of a partition, seen by the operator
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    UNSCHEDULABLE = "Unschedulable"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    CONFIG_MAP_MISSING = "ConfigMapMissing"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_DENIED = "AdmissionDenied"
    QUEUED_BY_KUEUE = "QueuedByKueue"
    SUSPENDED_BY_OTHERS = "SuspendedByOthers"
    POD_STUCK_TERMINATING = "PodStuckTerminating"
    POD_NOT_STARTED = "PodNotStarted"
    OOM_KILLED = "OOMKilled"
    EPHEMERAL_STORAGE = "EphemeralStorage"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INVALID_RESULT = "InvalidResult"
    RESULTS_LOST = "ResultsLost"
    SHARDS_DISAGREE = "ShardsDisagree"
    RUNNER_FAILED = "RunnerFailed"
    # of a partition, said by the runner
    BAD_CONFIGURATION = "BadConfiguration"
    BAD_DATA = "BadData"
    EMPTY_DATASET = "EmptyDataset"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_DOES_NOT_FIT = "ModelDoesNotFit"
    ENGINE_FAILED = "EngineFailed"
    GPU_ERROR = "GPUError"
    OUTPUT_FULL = "OutputFull"
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    UNSUPPORTED_REQUEST = "UnsupportedRequest"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    UNAUTHORIZED = "Unauthorized"
    ENDPOINT_NOT_FOUND = "EndpointNotFound"
    RESULT_TOO_LARGE = "ResultTooLarge"
    INTERRUPTED = "Interrupted"
    DEPENDENCY_UNAVAILABLE = "DependencyUnavailable"
    SAMPLES_LEFT = "SamplesLeft"
    INVALID_NUMBER = "InvalidNumber"


def plan_name(evaljob: str, uid: str) -> str:
    """The ConfigMap that freezes the plan of the EvalJob with that name and uid.

    The hash of the uid keeps an EvalJob that was deleted and made again from its predecessor's plan, which
    kubelets still remember under its name: they never ask again for an immutable ConfigMap in use.
    """
    return f"{evaljob}-plan-{_digest(uid)}"


def summary_name(evaljob: str) -> str:
    """The ConfigMap that holds the summary."""
    return f"{evaljob}-summary"


def shard_label(shard: int, shards: int) -> str:
    """`0-of-2`: a slash is not allowed in a label value."""
    return f"{shard}-of-{shards}"


def job_name(*, evaljob: str, uid: str, model: str, dataset: str, shard: int, shards: int) -> str:
    """The name of a partition's Job: readable, at most 63 characters, injective and stable.

    The readable part is cut to fit; ten base32 characters (50 bits) of a SHA-256 over the EvalJob's uid, the
    model, the dataset and the shard make it unique, so that a deleted and re-created EvalJob of the same name
    never meets the Jobs of its predecessor.
    """
    parts = [evaljob, model, dataset] + ([str(shard)] if shards > 1 else [])
    readable = "-".join(parts)[: JOB_NAME_MAX - _HASH_LENGTH - 1].rstrip("-")
    return f"{readable}-{_digest(uid, model, dataset, f'{shard}/{shards}')}"


def _digest(*identity: str) -> str:
    """Ten base32 characters, 50 bits, of a SHA-256."""
    sha = hashlib.sha256("\0".join(identity).encode())
    return base64.b32encode(sha.digest()[:_HASH_LENGTH]).decode().lower()[:_HASH_LENGTH]
