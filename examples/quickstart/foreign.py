"""Any cluster of the user's: images that its nodes can pull and a claim that holds the data are given.

Nothing is built, loaded or written outside the namespaces of the quickstart, and no node is touched.
"""

import json
import os

from examples.quickstart import data
from examples.quickstart.target import NAMESPACE, OPERATOR_NAMESPACE, RELEASE, Target, evaluate, install, show
from tests.cluster import named, tools
from tests.cluster.kind import GPU
from tests.cluster.named import Named
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say

_CONTENTS = "and copy the folders models/ and data/ onto it that `python -m examples.prepare DIR` makes"
_GPU_LIMIT = f"{GPU}: 1, "
_OUTPUT = "  output: {claimName: eval-logs}\n"


def given(context: str, images: str, claim: str) -> Named:
    """The cluster that the arguments name.

    Raises:
        ClusterError: When one is missing or cannot be read.
    """
    return named.given(context, images, claim, namespace=NAMESPACE, contents=_CONTENTS)


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


def run(cache: Cache, timeline: Timeline, wanted: Named) -> int:
    """Evaluate on the user's cluster; 0 when every partition succeeded."""
    target = Target(None, wanted.context, tools.path_with(cache.tools, os.environ))
    wanted.refuse_unusable(target.kubectl, target.path, _CONTENTS)
    _refuse_other_release(target)
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
