"""Any cluster of the user's: images that its nodes can pull and a claim that holds the data are given.

Nothing is built, loaded or written outside the namespaces of the quickstart, and no node is touched.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from examples.quickstart import data
from examples.quickstart.target import NAMESPACE, OPERATOR_NAMESPACE, RELEASE, Target, evaluate, install, show
from tests.cluster import tools
from tests.cluster.kind import GPU
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say

IMAGES = ("operator", "runner")
_GPU_LIMIT = f"{GPU}: 1, "
_OUTPUT = "  output: {claimName: eval-logs}\n"


@dataclass(frozen=True)
class Given:
    """What the user names.

    Attributes:
        context: Of the user's kubeconfig.
        images: References of the operator's image and of the runner's for transformers.
        claim: A PersistentVolumeClaim in the namespace `evals` with what `python -m examples.prepare DIR` makes.
    """

    context: str
    images: Mapping[str, str]
    claim: str


def given(context: str, images: str, claim: str) -> Given:
    """Read the three arguments.

    Raises:
        ClusterError: When one is missing or cannot be read.
    """
    parts = [part.partition("=") for part in images.split(",") if part]
    refs = {name: ref for name, _, ref in parts}
    if set(refs) != set(IMAGES) or not all(refs.values()):
        raise ClusterError(
            f"IMAGES={images}: give both, as your cluster pulls them: IMAGES=operator=REFERENCE,runner=REFERENCE"
        )
    if not claim:
        raise ClusterError(
            f"DATA_CLAIM: missing; a claim in the namespace {NAMESPACE} with the folders models/ and data/ that "
            "`python -m examples.prepare DIR` makes"
        )
    return Given(context, refs, claim)


def manifest(text: str, claim: str, *, gpus: bool) -> str:
    """The quickstart's EvalJob with its sources on one claim, without sample logs: the claim may be read-only.

    Args:
        text: examples/quickstart.yaml.
        claim: What holds `models` and `data`.
        gpus: Whether the cluster has any; without, none is asked for.
    """
    for folder in ("models", "data"):
        text = text.replace(f"pvc://{folder}/", f"pvc://{claim}/{folder}/")
    text = text.replace(_OUTPUT, "")
    return text if gpus else text.replace(_GPU_LIMIT, "")


def run(cache: Cache, timeline: Timeline, wanted: Given) -> int:
    """Evaluate on the user's cluster; 0 when every partition succeeded."""
    target = Target(None, wanted.context, tools.path_with(cache.tools, os.environ))
    _refuse_unusable(target, wanted)
    with timeline.stage("environment"):
        python = data.environment(".venv", "dev.txt")
    with timeline.stage("install"):
        install(target, wanted.images["operator"], wanted.images["runner"], pull_policy="IfNotPresent")
    with timeline.stage("evaluation"):
        gpus = _has_gpus(target)
        if not gpus:
            say(f"    no node has {GPU}: the pods ask for none")
        evaluate(target, manifest(data.EVALJOB.read_text(), wanted.claim, gpus=gpus))
    return show(target, python)


def _refuse_unusable(target: Target, wanted: Given) -> None:
    """Before anything is changed: the tools, the way there, the claim, and an installation that is not ours."""
    missing = [tool for tool in ("kubectl", "helm") if not tools.usable(tool, target.path)]
    if missing:
        raise ClusterError(f"install {' and '.join(missing)}: kubectl 1.31 or newer, helm 3.14 or newer")
    try:
        target.kubectl("get", "--raw", "/readyz")
    except CommandError as error:
        raise ClusterError(f"CONTEXT={wanted.context}: kubectl does not get there: {error}") from error
    try:
        target.kubectl("get", "pvc", wanted.claim, "-n", NAMESPACE)
    except CommandError as error:
        raise ClusterError(
            f"DATA_CLAIM={wanted.claim}: not in the namespace {NAMESPACE}: create both, and copy the folders "
            f"models/ and data/ onto it that `python -m examples.prepare DIR` makes: {error}"
        ) from error
    _refuse_other_release(target)


def _refuse_other_release(target: Target) -> None:
    """A release that runs other namespaces' EvalJobs is somebody's, and would be replaced."""
    try:
        values = (
            json.loads(target.helm("get", "values", RELEASE, "-n", OPERATOR_NAMESPACE, "-o", "json")) or {}
        )
    except CommandError:
        return  # there is none
    if values.get("watchNamespaces") != [NAMESPACE]:
        raise ClusterError(
            f"the release {RELEASE} in {OPERATOR_NAMESPACE} watches {values.get('watchNamespaces')}: the quickstart "
            "would replace it; use another cluster, or apply examples/quickstart.yaml to a namespace it watches"
        )


def _has_gpus(target: Target) -> bool:
    listed = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    return any(node["status"]["allocatable"].get(GPU, "0") != "0" for node in listed)
