"""A cluster that the user names: a claim holds the data and the sample logs, and nothing of the tests stays.

What is needed from outside is done by a pod that stays up, with the rights of a runner: it holds the claim.
"""

import base64
import contextlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaljob import podsecurity
from tests.cluster import tools
from tests.cluster.kind import GPU
from tests.cluster.named import Named, given
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, CommandError
from tests.e2e import servers
from tests.e2e import world as worlds
from tests.e2e.servers import Volume
from tests.e2e.world import CRD, NAMESPACE, OPERATOR_NAMESPACE, RELEASE, World
from tests.kube import Kubectl, Manifest

FOLDER = "evaljob-e2e"
"""On the claim: the models and data of the tests."""
OPTIONAL = ("serving", "runner-lm-eval")
CONTENTS = "which all nodes can mount for writing; the tests put their own data onto it, and remove it"
_KEEPER = "keeper"
_HOURS = 6
_UNPACK = f"""
import base64, io, sys, tarfile
tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read()))).extractall("/srv/{FOLDER}")
"""
_LINES = """
import pathlib, sys
for path in sorted(pathlib.Path("/srv", sys.argv[1]).rglob("*.jsonl")):
    sys.stdout.write(path.read_text())
"""
_FORGET = """
import pathlib, shutil, sys
shutil.rmtree(pathlib.Path("/srv", sys.argv[1]), ignore_errors=True)
"""


def from_options(context: str, images: str, claim: str) -> Named:
    """The cluster that the options of the tests name.

    Raises:
        ClusterError: When one is missing or cannot be read.
    """
    return given(context, images, claim, namespace=NAMESPACE, contents=CONTENTS, possible=OPTIONAL)


@dataclass(frozen=True)
class NamedWorld(World):
    """A cluster that may hold other things.

    Attributes:
        claim: What holds everything.
    """

    claim: str

    def fitted(self, manifest: Manifest) -> Manifest:
        """With all sources and logs on the one claim, images pulled where they are missing, and no GPU held."""
        found: Manifest = fitted(manifest, self.claim)
        return found

    def volume(self, claim: str) -> Volume:
        """See World."""
        return Volume(self.claim, f"{FOLDER}/{claim}")

    def log_lines(self, evaljob: str) -> list[str]:
        """See World."""
        return self._ask(_LINES, evaljob).splitlines()

    def forget(self, evaljob: str) -> None:
        """See World."""
        self._ask(_FORGET, evaljob)

    def set_up(self) -> None:
        """Put the data of the tests onto the claim, and install."""
        self.kubectl.apply(worlds.namespace(OPERATOR_NAMESPACE))
        self.apply(keeper(self.images["runner"], self.claim))
        servers.wait(self.kubectl, _KEEPER)
        self._ask(_UNPACK, stdin=base64.b64encode(_packed()).decode())
        worlds.install(self.kubectl, self.images, "IfNotPresent")
        self.start_servers()

    def remove(self) -> None:
        """All but the namespace of the tests and the claim, which are the user's; also what was set up in part."""
        with contextlib.suppress(CommandError):  # no keeper, no data
            self.forget(FOLDER)
        here, gone = ("-n", NAMESPACE), ("--ignore-not-found", "--wait")
        mine = ",".join(f"{key}={value}" for key, value in servers.PART_OF.items())
        self.kubectl.run("delete", "pods,services,configmaps", "-l", mine, *here, *gone)
        # With the CRD go all EvalJobs, and what they own; there were none before.
        self.kubectl.run("delete", "crd", CRD, *gone)
        worlds.helm(self.kubectl, "uninstall", RELEASE, "--ignore-not-found", "--wait")
        self.kubectl.run("delete", "namespace", OPERATOR_NAMESPACE, *gone)

    def _ask(self, script: str, *args: str, stdin: str = "") -> str:
        where = ("exec", "-i", "-n", NAMESPACE, _KEEPER, "--")
        return self.kubectl.run(*where, "python", "-c", script, *args, stdin=stdin)


def reach(wanted: Named, cache: Cache, environ: Mapping[str, str]) -> NamedWorld:
    """The cluster, on which nothing has been changed yet.

    Raises:
        ClusterError: When it cannot be used, or has an evaljob of somebody else.
    """
    kubectl = Kubectl(wanted.context, None, tools.path_with(cache.tools, environ), named=True)
    wanted.refuse_unusable(kubectl.run, kubectl.path, CONTENTS)
    refuse_installed(kubectl)
    # Any Python will do for the stub servers, and the runner for transformers has the backend for servers too.
    return NamedWorld(kubectl, {**wanted.images, "runner-cpu": wanted.images["runner"]}, wanted.claim)


def refuse_installed(kubectl: Kubectl) -> None:
    """Installing, and removing at the end, would touch the EvalJobs of others.

    Raises:
        ClusterError: When the CRD is there, and not by an earlier run of these tests.
    """
    if not kubectl.run("get", "crd", CRD, "--ignore-not-found"):
        return
    try:
        values = json.loads(worlds.helm(kubectl, "get", "values", RELEASE, "-o", "json")) or {}
    except CommandError:
        values = {}
    if values.get("watchNamespaces") != [NAMESPACE]:
        raise ClusterError(
            f"CONTEXT={kubectl.context}: evaljob is installed there, and these tests would replace it and delete its "
            "CRD at their end; use another cluster, or `make quickstart`, which leaves what it finds"
        )


def fitted(found: Any, claim: str) -> Any:  # noqa: ANN401 - JSON
    """What a manifest becomes on a cluster that was not made for it.

    Args:
        found: The manifest, or a part of it.
        claim: What holds the claims of the tests as folders.
    """
    match found:
        case list():
            return [fitted(each, claim) for each in found]
        case {"claimName": "output"}:
            return {**found, "claimName": claim}
        case dict():
            kept = {k: fitted(v, claim) for k, v in found.items() if (k, v) != (GPU, 1)}
            return kept | ({"imagePullPolicy": "IfNotPresent"} if "imagePullPolicy" in kept else {})
        case str() if found.startswith("pvc://"):
            return found.replace("pvc://", f"pvc://{claim}/{FOLDER}/", 1)
        case _:
            return found


def _packed() -> bytes:
    with tempfile.TemporaryDirectory() as folder, io.BytesIO() as file:
        worlds.fill(Path(folder, "all"))
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            archive.add(Path(folder, "all"), ".")
        return file.getvalue()


def keeper(image: str, claim: str) -> Manifest:
    """A pod that holds the claim, with the rights of a runner; it ends by itself if nobody removes it."""
    container = {
        "name": "keeper",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import time; time.sleep(86400)"],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "10m"}},
        "volumeMounts": [{"name": "srv", "mountPath": "/srv"}],
    }
    spec = podsecurity.secured(
        {
            "activeDeadlineSeconds": _HOURS * 3600,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": "srv", "persistentVolumeClaim": {"claimName": claim}}],
        }
    )
    return servers.labelled("v1", "Pod", _KEEPER, spec=spec)
