"""EvalJobs of the end-to-end tests, and the handle to watch one."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from tests.e2e import servers
from tests.e2e.world import NAMESPACE, TINY, World

Manifest = dict[str, Any]
SLOW = servers.url("stub-slow")
SMALL = {"resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}}
"""The runner of a served model, without a GPU."""


def tiny(name: str, prompt_format: str, node: str | None, **fields: object) -> Manifest:
    """The tiny model as a transformers model that asks for one GPU and computes on the CPU."""
    return {
        "name": name,
        "promptFormat": prompt_format,
        "transformers": {"source": "pvc://models/tiny", "dtype": "float32", "device": "CPU"},
        "runner": {
            "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
            "resources": {
                "limits": {"nvidia.com/gpu": 1, "cpu": 1, "memory": "2Gi"},
                "requests": {"cpu": "100m"},
            },
        },
        **fields,
    }


def endpoint(name: str, url: str, **fields: object) -> Manifest:
    """A model behind an OpenAI-compatible server; its pods hold a simulated GPU so that tests can see it freed."""
    limits = {"nvidia.com/gpu": 1, "memory": "256Mi"}
    return {
        "name": name,
        "promptFormat": "Chat",
        "openai": {"url": url, "model": "stub", "maxConcurrency": 1},
        "runner": {"resources": {"limits": limits, "requests": {"cpu": "50m", "memory": "64Mi"}}},
        **fields,
    }


def dataset(name: str, **fields: object) -> Manifest:
    """A dataset of tests/tiny with its task written out."""
    task = yaml.safe_load((TINY / "tasks" / f"{name}.yaml").read_text())
    return {"name": name, "taskSpec": task, "source": f"pvc://data/{name}.jsonl", **fields}


def questions(name: str, count: int) -> Manifest:
    """`count` questions in the EvalJob itself, for the stub server."""
    lines = "\n".join(
        json.dumps({"question": f"Question {i} of {name}", "answer": "42"}) for i in range(count)
    )
    task = {
        "requestType": "Generate",
        "prompt": "{{ question }}",
        "target": "{{ answer }}",
        "generation": {"maxTokens": 8},
        "metrics": [{"name": "contains", "primary": True}],
    }
    return {"name": name, "taskSpec": task, "inline": {"jsonl": lines}}


def evaljob(name: str, models: list[Manifest], datasets: list[Manifest], **spec: object) -> Manifest:
    """An EvalJob whose runners use the images on the nodes, never a registry."""
    return {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "models": models,
            "datasets": datasets,
            "runner": {"imagePullPolicy": "Never"},
            "output": {"claimName": "output"},
            **spec,
        },
    }


@dataclass(frozen=True)
class Handle:
    """One EvalJob on the cluster."""

    world: World
    name: str

    def get(self, kind: str) -> list[Manifest]:
        """All objects of a kind that carry the EvalJob's label."""
        label = f"evaljob.dev/name={self.name}"
        items: list[Manifest] = self.world.kubectl.get_json("get", kind, "-n", NAMESPACE, "-l", label)[
            "items"
        ]
        return items

    def body(self) -> Manifest:
        """The EvalJob as it is now."""
        found: Manifest = self.world.kubectl.get_json("get", "evaljob", self.name, "-n", NAMESPACE)
        return found

    def status(self) -> Manifest:
        """Its status; empty before the operator has seen it."""
        status: Manifest = self.body().get("status") or {}
        return status

    def summary(self) -> Manifest:
        """The decoded summary.json."""
        data = self.world.kubectl.get_json("get", "configmap", f"{self.name}-summary", "-n", NAMESPACE)[
            "data"
        ]
        decoded: Manifest = json.loads(data["summary.json"])
        return decoded

    def cell(self, model: str, dataset: str) -> Manifest:
        """One cell of the summary."""
        cells: list[Manifest] = self.summary()["cells"]
        return next(c for c in cells if (c["model"], c["dataset"]) == (model, dataset))

    def matches_reference(self, model: str, key: str) -> None:
        """Compare a cell with tests/tiny/scores.json, made by a loop that knows nothing of this project.

        Args:
            model: of the cell.
            key: dataset and prompt format, as in that file.
        """
        topics = json.loads((TINY / "scores.json").read_text())[key]
        right, n = (sum(v[i] for v in topics.values()) for i in (0, 1))
        scores = self.cell(model, key.partition("/")[0])["parts"][0]["scores"]
        whole = next(s for s in scores if s["primary"])
        assert (whole["n"], whole["expected"]) == (n, n), key
        assert whole["value"] == right / n, key

    def patch(self, **spec: object) -> None:
        """Change fields of the spec."""
        body = json.dumps({"spec": spec})
        self.world.kubectl.run("patch", "evaljob", self.name, "-n", NAMESPACE, "--type=merge", "-p", body)

    def retry_failed(self, value: str) -> None:
        """Ask for what has failed to be run again; returns when that has begun."""
        ask = f"evaljob.dev/retry-failed={value}"
        self.world.kubectl.run("annotate", "evaljob", self.name, ask, "-n", NAMESPACE)
        self.until(lambda: self.status().get("retried") == value, 60)

    def finished(self, seconds: int = 240) -> Manifest:
        """Wait for the end, as users do; the status then."""
        what = f"evaljob/{self.name}"
        self.world.kubectl.wait(what, "condition=Finished", "-n", NAMESPACE, seconds=seconds)
        return self.status()

    def until(self, what: Callable[[], object], seconds: float = 120) -> None:
        """Poll a few times a second until `what` is true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"{self.name}: not within {seconds} s; status {self.status()}"
            time.sleep(0.3)

    def done(self) -> int:
        """How many partitions have ended."""
        counts = self.status().get("partitions") or {}
        return int(counts.get("succeeded", 0)) + int(counts.get("failed", 0))
