"""What the end-to-end tests stand on: a cluster with the operator installed, and the data of the tests.

A cluster of their own (`tests.e2e.own`), or one that the user names (`tests.e2e.named`): tests that take hold of
nodes, or change what belongs to the whole cluster, need the first and are skipped on the second.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import run
from tests.e2e import servers
from tests.kube import Kubectl, Manifest

NAMESPACE = servers.NAMESPACE
OPERATOR_NAMESPACE = "evaljob-system"
RELEASE = "evaljob"
CRD = "evaljobs.evaljob.dev"
TINY = REPOSITORY / "tests" / "tiny"


@dataclass(frozen=True)
class World(ABC):
    """A cluster with the operator installed.

    Attributes:
        kubectl: The way there.
        images: References by name, as in `tests.cluster.images.RECIPES`.
    """

    kubectl: Kubectl
    images: Mapping[str, str]

    @property
    def torch_node(self) -> str | None:
        """The one node that holds the images with torch; None: all do."""
        return None

    def fitted(self, manifest: Manifest) -> Manifest:
        """A manifest of the tests as this cluster wants it."""
        return manifest

    @abstractmethod
    def volume(self, claim: str) -> servers.Volume:
        """One of the claims `models`, `data` and `output`, for a pod."""

    @abstractmethod
    def log_lines(self, evaljob: str) -> list[str]:
        """All lines of the sample logs under a path of the claim `output`."""

    @abstractmethod
    def forget(self, evaljob: str) -> None:
        """Remove its sample logs."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the cluster as it was found."""

    def apply(self, manifest: Manifest) -> None:
        """Apply a manifest of the tests."""
        self.kubectl.apply(self.fitted(manifest))

    def samples(self, evaljob: str) -> list[dict[str, Any]]:
        """Every line of an EvalJob's sample logs, over all attempts."""
        return [json.loads(line) for line in self.log_lines(evaljob)]

    def each_sample_once(self, evaljob: str, expected: int) -> None:
        """Every sample was computed exactly once, over all attempts of all partitions."""
        answers = [s for s in self.samples(evaljob) if "outcome" in s]
        seen = Counter((s["inferenceDigest"], s["id"]) for s in answers)
        assert set(seen.values()) == {1}
        assert len(seen) == expected

    def start_servers(self) -> None:
        """The stub servers, and `transformers serve` where its image is there; its tests wait for it."""
        if "serving" in self.images:
            # First, as it takes longest to get ready.
            served = self.volume("models")
            image, packages = self.images["runner-cpu"], self.images["serving"]
            self.apply(servers.transformers_serve(image, packages, served, self.torch_node))
        self.apply(servers.stubs(self.images["runner"], self.torch_node))
        for mode in servers.STUB_MODES:
            servers.wait(self.kubectl, f"stub-{mode}")


def fill(folder: Path) -> None:
    """The folder of the claims, made anew: the tiny model, one with a NaN, the tiny datasets, lm-eval tasks."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TINY / "data", folder / "data")
    shutil.copytree(REPOSITORY / "tests" / "lmeval_tasks", folder / "data" / "tasks")
    for name in ("gsm", "mc", "kind"):
        _split(folder / "data" / f"{name}.jsonl", folder / "data" / "split" / name)
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    broken = folder / "models" / "nan"
    shutil.copytree(TINY / "model", broken)
    spoil(broken / "model.safetensors")


def _split(table: Path, folder: Path) -> None:
    """A table with a column `split` as a folder with a file for each."""
    folder.mkdir(parents=True)
    for text in table.read_text().splitlines(keepends=True):
        with (folder / f"{json.loads(text).get('split', 'test')}.jsonl").open("a") as file:
            file.write(text)


def spoil(weights: Path) -> None:
    """Put NaN in place of every number of a safetensors file's first tensor."""
    content = bytearray(weights.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    start, end = next(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
    content[8 + length + start : 8 + length + end] = b"\x00\x00\xc0\x7f" * ((end - start) // 4)
    weights.write_bytes(content)


def namespace(name: str) -> Manifest:
    """A namespace in which only restricted pods run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def helm(kubectl: Kubectl, *args: str | Path, stdin: str | None = None) -> str:
    """Run helm against the operator's namespace of the cluster that kubectl leads to."""
    where = ("--kube-context", kubectl.context, "--namespace", OPERATOR_NAMESPACE)
    file = ("--kubeconfig", kubectl.kubeconfig) if kubectl.kubeconfig else ()
    return run("helm", *file, *where, *args, stdin=stdin, env={"PATH": kubectl.path})


def install(kubectl: Kubectl, images: Mapping[str, str], pull_policy: str) -> None:
    """The chart, for the tests' namespace."""
    repository, _, tag = images["operator"].rpartition(":")
    runners = {"transformers": "runner-cpu", "openai": "runner", "lmEval": "runner-lm-eval"}
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": pull_policy},
        "runner": {
            "images": {key: images[name] for key, name in runners.items() if name in images},
            "allowedMetadata": ["example.com/"],
        },
        "watchNamespaces": [NAMESPACE],
        # All that a careful installation switches on: every other test must pass with it.
        "security": {"admissionPolicy": True, "networkPolicies": True},
        "kueue": {"enabled": True},
    }
    chart = REPOSITORY / "charts" / "evaljob"
    options = ("--wait", "--timeout", "120s", "--values", "-")
    helm(kubectl, "upgrade", "--install", RELEASE, chart, *options, stdin=json.dumps(values))
