"""A cluster that the user names, of whatever kind: images that its nodes can pull, and a claim for the data.

Nothing is built or loaded there, and no node is touched.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.cluster import tools
from tests.cluster.shell import ClusterError, CommandError

NEEDED = ("operator", "runner")


@dataclass(frozen=True)
class Named:
    """What the user names.

    Attributes:
        context: Of the user's kubeconfig.
        images: References by name: the operator's image, the runner's for transformers, and what else was asked for.
        namespace: Where the pods run.
        claim: A PersistentVolumeClaim there.
    """

    context: str
    images: Mapping[str, str]
    namespace: str
    claim: str

    def refuse_unusable(self, kubectl: Callable[..., str], path: str, contents: str) -> None:
        """Before anything is changed: the tools, the way there, and the claim.

        Args:
            kubectl: Runs it against the cluster.
            path: PATH on which kubectl and helm should be.
            contents: What the claim is for, in words.

        Raises:
            ClusterError: With the reason.
        """
        missing = [tool for tool in ("kubectl", "helm") if not tools.usable(tool, path)]
        if missing:
            raise ClusterError(f"install {' and '.join(missing)}: kubectl 1.31 or newer, helm 3.14 or newer")
        try:
            kubectl("get", "--raw", "/readyz")
        except CommandError as error:
            raise ClusterError(f"CONTEXT={self.context}: kubectl does not get there: {error}") from error
        try:
            kubectl("get", "pvc", self.claim, "-n", self.namespace)
        except CommandError as error:
            raise ClusterError(
                f"DATA_CLAIM={self.claim}: not in the namespace {self.namespace}: create both, {contents}: {error}"
            ) from error


def given(
    context: str, images: str, claim: str, *, namespace: str, contents: str, possible: tuple[str, ...] = ()
) -> Named:
    """Read the three arguments of a command line.

    Args:
        context: Of the user's kubeconfig.
        images: `NAME=REFERENCE`, comma-separated.
        claim: The claim's name.
        namespace: Where it must be.
        contents: What it is for, in words.
        possible: Names of images that may be given beside those that must.

    Raises:
        ClusterError: When one is missing or cannot be read.
    """
    parts = [part.partition("=") for part in images.split(",") if part]
    refs = {name: ref for name, _, ref in parts}
    if not all(refs.get(name) for name in NEEDED):
        wanted = ",".join(f"{name}=REFERENCE" for name in NEEDED)
        raise ClusterError(f"IMAGES={images}: give both, as your cluster pulls them: IMAGES={wanted}")
    for name, ref in refs.items():
        if not ref or name not in (*NEEDED, *possible):
            raise ClusterError(
                f"IMAGES={images}: {name}={ref}: expected NAME=REFERENCE with one of the names "
                f"{', '.join((*NEEDED, *possible))}"
            )
    if not claim:
        raise ClusterError(f"DATA_CLAIM: missing; a claim in the namespace {namespace}, {contents}")
    return Named(context, refs, namespace, claim)
