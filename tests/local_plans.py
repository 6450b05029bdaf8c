"""Plans of toy EvalJobs for tests of local runs."""

import datetime as dt
from typing import Any

from evaljob.plan import Plan
from evaljob.planning import Settings
from evaljob.spec import EvalJob, parse_evaljob
from evaljob_cli.inputs import durable, identified, resolve

TASK: dict[str, Any] = {
    "requestType": "Generate",
    "prompt": "{{ q }}",
    "target": "{{ a }}",
    "metrics": [{"name": "exact_match", "primary": True}],
}


def model(**more: object) -> dict[str, Any]:
    transformers = {"source": "pvc://models/m", "dtype": "float32", "device": "CPU"}
    return {"name": "m", "promptFormat": "Text", "transformers": transformers, **more}


def evaljob(*datasets: str, models: list[dict[str, Any]] | None = None, **spec: object) -> EvalJob:
    inline = {"jsonl": '{"q": "1", "a": "2"}'}
    document = {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": "toy"},
        "spec": {
            "models": models or [model()],
            "datasets": [{"name": d, "taskSpec": TASK, "inline": inline} for d in datasets],
            **spec,
        },
    }
    return identified(parse_evaljob(document))


def plan_of(job: EvalJob, grace: int = 5) -> Plan:
    return resolve(durable(job), Settings(grace_period_seconds=grace), dt.date(2025, 1, 1))
