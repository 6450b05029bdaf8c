"""What an EvalJob comes to before it runs: its partitions, what is excluded, the objects of a cluster."""

import datetime as dt
import json
from typing import Any

import yaml

from evaljob import jobs, lmeval
from evaljob.backends import BACKENDS
from evaljob.plan import Plan
from evaljob.planning import Settings
from evaljob.spec import EvalJob
from evaljob_cli.inputs import resolve

PLACEHOLDER_IMAGES = {name: f"set-by-the-chart/{name}" for name in (*BACKENDS, lmeval.IMAGE)}
"""On a cluster the chart's values say which images run; a file alone does not know."""


def as_rows(plan: Plan) -> list[list[str]]:
    """Job, model, dataset, shard and task of every partition."""
    return [
        [plan.job_name(p), p.model, p.dataset, f"{p.shard}/{p.shards}", plan.dataset(p.dataset).task_name]
        for p in plan.partitions
    ]


def as_document(evaljob: EvalJob, plan: Plan) -> dict[str, Any]:
    """The partitions for programs."""
    keys = ("job", "model", "dataset", "shard", "task")
    return {
        "name": plan.run.name,
        "partitions": [dict(zip(keys, row, strict=True)) for row in as_rows(plan)],
        "excluded": [pair.model_dump() for pair in evaljob.spec.exclude],
    }


def manifests(evaljob: EvalJob, date: dt.date) -> dict[str, Any]:
    """A List of the objects that the operator would create, in the order in which it creates them."""
    plan = resolve(evaljob, Settings(images=PLACEHOLDER_IMAGES), date)
    items = [jobs.plan_config_map(evaljob, plan), *(jobs.job(evaljob, plan, p) for p in plan.partitions)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def formatted(document: dict[str, Any], output: str) -> str:
    """A document as `json` or `yaml`."""
    if output == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    # Through JSON, so that parts which objects share are written out and not as YAML anchors.
    plain = json.loads(json.dumps(document))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()
