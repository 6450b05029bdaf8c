"""Small valid values for tests: every test names only what it is about."""

import dataclasses
import datetime as dt
from typing import Any

from evaljob import framing, result
from evaljob.plan import Partition, Plan
from evaljob.planning import Settings, make_plan
from evaljob.result import MetricInfo, Outcomes, PartitionResult, SubsetResult
from evaljob.spec import EvalJob, parse_evaljob
from evaljob.stats import Stat
from evaljob.views import JobView, PodView

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)
DATE = NOW.date()
UID = "11111111-2222-4333-8444-555555555555"
DIGEST = "d" * 64
SETTINGS = Settings(images={"vllm": "runner-vllm:1", "transformers": "runner:1", "openai": "runner-openai:1"})
Document = dict[str, Any]

TASK: Document = {
    "requestType": "Generate",
    "prompt": "{{ q }}",
    "target": "{{ a }}",
    "metrics": [{"name": "exact_match", "primary": True}],
}
ROLLING: Document = {
    "requestType": "LogLikelihoodRolling",
    "target": "{{ a }}",
    "metrics": [{"name": "bits_per_byte", "primary": True}],
}
LOG_LIKELIHOOD: Document = {
    **TASK,
    "requestType": "LogLikelihood",
    "choices": {"values": ["A", "B"]},
    "metrics": [{"name": "acc", "primary": True}],
}
CHAT: Document = {
    **{k: v for k, v in TASK.items() if k != "prompt"},
    "requestType": "Chat",
    "messages": "{{ m }}",
}


def later(seconds: float) -> dt.datetime:
    """That many seconds after the tests' fixed clock."""
    return NOW + dt.timedelta(seconds=seconds)


def model(name: str = "m", **more: object) -> Document:
    source = {"source": f"pvc://models/{name}", "dtype": "float32"}
    return {"name": name, "promptFormat": "Chat", "transformers": source, **more}


def vllm(name: str = "v", engine: Document | None = None, **more: object) -> Document:
    fields = {"source": f"pvc://models/{name}", "dtype": "bfloat16", **(engine or {})}
    return {"name": name, "promptFormat": "Chat", "vllm": fields, **more}


def endpoint(name: str = "served", secret: str | None = None, **more: object) -> Document:
    openai: Document = {"url": "http://llm/v1", "model": "served"}
    if secret:
        openai["apiKeySecretRef"] = {"name": secret, "key": "token"}
    return {"name": name, "promptFormat": "Chat", "openai": openai, **more}


def dataset(name: str = "d", task: Document | None = None, **more: object) -> Document:
    return {"name": name, "taskSpec": task or TASK, "source": f"pvc://data/{name}.jsonl", **more}


def document(
    models: list[Document] | None = None, datasets: list[Document] | None = None, **spec: object
) -> Document:
    """An EvalJob as a user writes it."""
    return {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": "nightly", "namespace": "evals", "uid": UID, "generation": 1},
        "spec": {"models": models or [model()], "datasets": datasets or [dataset()], **spec},
    }


def evaljob(
    models: list[Document] | None = None, datasets: list[Document] | None = None, **spec: object
) -> EvalJob:
    return parse_evaljob(document(models, datasets, **spec))


def plan(of: EvalJob | None = None, settings: Settings = SETTINGS) -> Plan:
    return make_plan(of or evaljob(), {}, settings, DATE)


BINARY = MetricInfo(key="exact_match", primary=True)


def scored(
    partition: Partition,
    *subsets: SubsetResult,
    metrics: tuple[MetricInfo, ...] = (BINARY,),
    attempt: str = "pod-1",
    **more: Any,  # noqa: ANN401 - fields of a result
) -> PartitionResult:
    """A complete result; by default 3 of 4 samples are right."""
    subsets = subsets or (SubsetResult(name="", size=4, expected=4, stats=(Stat(4, 3, 3),)),)
    n = sum(s.expected for s in subsets)
    values: Document = {"outcomes": Outcomes(expected=n, completed=n, answered=n), "inference_digest": DIGEST}
    return PartitionResult(
        **dataclasses.asdict(partition),
        attempt=attempt,
        prompt_digest="p" * 64,
        metrics=metrics,
        subsets=subsets,
        device="cpu",
        **(values | more),
    )


def job_view(name: str = "job", **more: Any) -> JobView:  # noqa: ANN401 - fields of a JobView
    """A Job of ours that has just been made."""
    values: Document = {
        "uid": "job-1",
        "version": "7",
        "owner": UID,
        "created": NOW,
        "started_at": NOW,
        "counted_at": None,
        "finished": None,
        "finished_at": None,
        "reason": "",
        "message": "",
        "suspended": False,
        "queue": "",
        "ready": 0,
        "terminating": 0,
        "failed_pods": 0,
        "podless": False,
        "record": None,
        "deleting": False,
    }
    return JobView(name=name, **(values | more))


def pod_view(**more: Any) -> PodView:  # noqa: ANN401 - fields of a PodView
    """A pod of that Job, not started."""
    values: Document = {
        "uid": "pod-1",
        "name": "pod",
        "job_uid": "job-1",
        "node": "",
        "phase": "Pending",
        "reason": "",
        "status_message": "",
        "created": NOW,
        "ends_by": None,
        "disrupted": False,
        "memory_limit": "",
        "exit_code": None,
        "terminated_reason": "",
        "message": "",
        "waiting_reason": "",
        "waiting_message": "",
        "unschedulable": "",
    }
    return PodView(**(values | more))


def failure_text(reason: str = "BadData", message: str = "line 3") -> str:
    return framing.encode(result.failure(reason, message))
