"""A cluster that a context leads to: the chart on it, the EvalJob through it, the table out of it."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import ClusterError, say
from tests.cluster.shell import run as shell

NAMESPACE, OPERATOR_NAMESPACE, RELEASE = "evals", "evaljob-system", "evaljob"
TIME_LIMIT = 1800.0
"""Seconds that the evaluation may take before the quickstart gives up."""


@dataclass(frozen=True)
class Target:
    """The cluster to run on.

    Attributes:
        kubeconfig: Its credentials; none means kubectl's own default.
        context: The context to use.
        path: PATH on which kubectl and helm are.
    """

    kubeconfig: Path | None
    context: str
    path: str

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl against the cluster."""
        return shell("kubectl", *self.where("--context"), *args, env={"PATH": self.path}, stdin=stdin)

    def helm(self, *args: str) -> str:
        """Run helm against the cluster."""
        return shell("helm", *self.where("--kube-context"), *args, env={"PATH": self.path})

    def where(self, flag: str) -> list[str]:
        """The options that lead a tool here; `flag` is its name for a context."""
        file = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [*file, flag, self.context]


def install(target: Target, operator: str, runner: str, *, pull_policy: str) -> None:
    """The chart, with the images of the operator and of the runner for transformers."""
    repository, _, tag = operator.rpartition(":")
    settings = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": pull_policy,
        "runner.images.transformers": runner,
        "watchNamespaces": f"{{{NAMESPACE}}}",
    }
    chart = str(REPOSITORY / "charts" / "evaljob")
    values = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    where = ("--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
    target.helm("upgrade", "--install", RELEASE, chart, *where, *values)


def evaluate(target: Target, manifest: str, forget: Callable[[], object] = lambda: None) -> None:
    """Apply the EvalJob anew and wait for its end, saying how far it is.

    Args:
        target: The cluster.
        manifest: The EvalJob.
        forget: Removes what an earlier run left, when its EvalJob is gone.
    """
    target.kubectl("delete", "evaljob", "quickstart", "-n", NAMESPACE, "--ignore-not-found", "--wait")
    forget()
    target.kubectl("apply", "-f", "-", stdin=manifest)
    wait(lambda: _status(target), limit=TIME_LIMIT)


def _status(target: Target) -> dict[str, object]:
    text = target.kubectl("get", "evaljob", "quickstart", "-n", NAMESPACE, "-o", "json")
    status: dict[str, object] = json.loads(text).get("status") or {}
    return status


def wait(status: Callable[[], dict[str, object]], limit: float) -> None:
    """Until the EvalJob is finished, with a line for each change.

    Raises:
        ClusterError: When it takes longer than `limit` seconds.
    """
    deadline, last = time.monotonic() + limit, ""
    while time.monotonic() < deadline:
        now = status()
        line = f"    {now.get('state', 'Pending')} {now.get('progress', '')} {_counts(now)}"
        if line != last:
            say(line)
            last = line
        if now.get("completionTime"):
            return
        time.sleep(1)
    raise ClusterError(
        f"the evaluation is not finished after {limit:.0f} s: kubectl describe evaljob quickstart"
    )


def _counts(status: dict[str, object]) -> str:
    counts = status.get("partitions")
    return (
        ", ".join(f"{v} {k}" for k, v in counts.items() if k != "total") if isinstance(counts, dict) else ""
    )


def show(target: Target, python: Path) -> int:
    """Print the summary's table, and how to look around; 0 when every partition succeeded."""
    shown = target.kubectl(
        "get", "configmap", "quickstart-summary", "-n", NAMESPACE, "-o", "jsonpath={.data.summary\\.json}"
    )
    subprocess.run(
        [python, "-m", "evaljob_cli", "summary", "-"], input=shown, text=True, check=True, cwd=REPOSITORY
    )
    where = " ".join(target.where("--context"))
    say(f"look around: kubectl {where} -n {NAMESPACE} get evaljobs,jobs,pods")
    return 0 if _status(target).get("state") == "Complete" else 1
