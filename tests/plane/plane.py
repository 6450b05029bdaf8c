"""etcd + API server + controllers, from nothing to serving in a few seconds, in one temporary folder.

The same multi-call binary as the nodes of the test cluster (tests/cluster/kube). No kubelet and no Docker: pods are
played by tests.plane.kubelet. Users are tokens of a file; the operator has exactly the rights of the chart.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import Timeline, run
from tests.kube import Kubectl
from tests.plane.programs import Program, free_port, wait_until_listening

CONTEXT = "evaljob-bare"
OPERATOR = "system:serviceaccount:evaljob-system:evaljob"
"""The user that the chart's RoleBindings name."""
ADMIN = "admin"
PLAIN = "plain"
"""Another administrator, whose requests are counted apart."""
IMAGES = {"transformers": "none", "openai": "none"}
_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "helm",
)
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": [OPERATOR, PLAIN]}, {"level": "None"}],
}


@dataclass(frozen=True)
class Options:
    """What a plane is for.

    Attributes:
        fsync: Let etcd wait for the disk, as it does in production.
        scheduler: Bind pods to nodes; without it pods need none.
    """

    fsync: bool = False
    scheduler: bool = False


class Plane:
    """A running control plane."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self._options = options
        self._tokens = {user: secrets.token_hex(16) for user in (ADMIN, PLAIN, OPERATOR)}
        self._bin = folder / "bin"
        self.audit_log = folder / "audit.log"
        self._etcd_port, self._port = free_port(), free_port()
        self.etcd, self.apiserver = self._etcd(), self._apiserver()
        self._others = [self._controllers(), *([self._scheduler()] if options.scheduler else [])]

    @property
    def server(self) -> str:
        """The address of the API server."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca(self) -> Path:
        """The certificate it shows."""
        return self.folder / "certs" / "apiserver.crt"

    def token(self, user: str) -> str:
        """What proves to be that user."""
        return self._tokens[user]

    def kubeconfig(self, user: str, server: str | None = None) -> Path:
        """A kubeconfig for one user; `server` puts a proxy in between."""
        cluster: dict[str, Any] = {"server": server or self.server}
        if cluster["server"].startswith("https"):
            cluster["certificate-authority"] = str(self.ca)
        name = f"{user.rpartition(':')[2]}-{cluster['server'].rpartition(':')[2]}"
        path = self.folder / f"kubeconfig-{name}"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": CONTEXT,
                    "clusters": [{"name": CONTEXT, "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": self._tokens[user]}}],
                    "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
                }
            )
        )
        return path

    @property
    def kubectl(self) -> Kubectl:
        """A kubectl with the rights of an administrator."""
        return Kubectl(CONTEXT, self.kubeconfig(ADMIN), f"{self._bin}:{os.environ.get('PATH', '')}")

    def start(self, binary: Path) -> None:
        """Start everything and wait until it serves."""
        self._bin.mkdir()
        for name in _PROGRAMS:
            (self._bin / name).symlink_to(binary)
        rows = [f'{token},{user},{user},"{_groups(user)}"' for user, token in self._tokens.items()]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        run(self._bin / "kubeadm", "init", "phase", "certs", "sa", "--cert-dir", self.folder)
        self.etcd.start()
        wait_until_listening(self.etcd, self._etcd_port, 30)
        self.start_apiserver()
        self.kubeconfig(ADMIN)
        for program in self._others:
            program.start()

    def start_apiserver(self) -> None:
        """Start the API server, or start it again, and wait until it is ready."""
        self.apiserver.start()
        wait_until_listening(self.apiserver, self._port, 60)
        end = time.monotonic() + 60
        while not self._ready():
            if time.monotonic() > end or not self.apiserver.running:
                raise RuntimeError(f"the API server is not ready\n{self.apiserver.tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End all processes, the writers first."""
        for program in (*reversed(self._others), self.apiserver, self.etcd):
            program.stop()

    def install(self, namespaces: Sequence[str], *, policy: bool = False) -> None:
        """The chart's CRD, the namespaces, and the operator's rights in them; no Deployment.

        Args:
            namespaces: to be made and watched.
            policy: also the admission policy, which comes into force moments later.
        """
        security = {"admissionPolicy": policy}
        values = {"watchNamespaces": list(namespaces), "runner": {"images": IMAGES}, "security": security}
        chart = str(REPOSITORY / "charts" / "evaljob")
        names = ("crd", "rbac", "serviceaccount", *(["admissionpolicy"] if policy else []))
        templates = [f"--show-only=templates/{name}.yaml" for name in names]
        kubectl = self.kubectl
        env = {"PATH": kubectl.path}
        rendered = run(
            "helm", "template", "evaljob", chart, "-n", "evaljob-system", *templates, "--values", "-",
            stdin=json.dumps(values), env=env,
        )  # fmt: skip
        named = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in ("evaljob-system", *namespaces)
        ]
        kubectl.apply({"apiVersion": "v1", "kind": "List", "items": named})
        kubectl.run("apply", "--server-side", "-f", "-", stdin=rendered)
        kubectl.wait("crd/evaljobs.evaljob.dev", "condition=Established")

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca))
        headers = {"Authorization": f"Bearer {self._tokens[ADMIN]}"}
        request = urllib.request.Request(f"{self.server}/readyz", headers=headers)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:  # noqa: S310 - same
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _program(self, name: str, *flags: str) -> Program:
        # A fifth of the processor time would go into Go's garbage collection, for memory that is there.
        return Program([str(self._bin / name), *flags], self.folder / f"{name}.log", {"GOGC": "400"})

    def _etcd(self) -> Program:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        return self._program(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--quota-backend-bytes=8589934592",
            *([] if self._options.fsync else ["--unsafe-no-fsync"]),
        )

    def _apiserver(self) -> Program:
        return self._program(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://evaljob.local",
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self.audit_log}",
        )

    def _controllers(self) -> Program:
        """Those that a Job's life needs; their limits do not matter less than the two cores do."""
        names = (
            "job",
            "garbage-collector",
            "namespace",
            "serviceaccount",
            "resourcequota",
            "ttl-after-finished",
        )
        return self._program(
            "kube-controller-manager",
            f"--kubeconfig={self.folder / f'kubeconfig-{ADMIN}-{self._port}'}",
            f"--controllers={','.join(f'{name}-controller' for name in names)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=300",
            "--kube-api-burst=500",
            "--concurrent-job-syncs=50",
        )

    def _scheduler(self) -> Program:
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {
                "kubeconfig": str(self.folder / f"kubeconfig-{ADMIN}-{self._port}"),
                "qps": 300,
                "burst": 500,
            },
        }
        path = self.folder / "scheduler.json"
        path.write_text(json.dumps(config))
        return self._program("kube-scheduler", f"--config={path}", "--secure-port=0")


def _groups(user: str) -> str:
    return (
        "system:masters"
        if user in (ADMIN, PLAIN)
        else "system:serviceaccounts,system:serviceaccounts:evaljob-system"
    )


@contextlib.contextmanager
def plane(options: Options) -> Iterator[Plane]:
    """A control plane for the time of the block. EVALJOB_KEEP_PLANE=DIR keeps its folder there, for its logs."""
    cache = Cache.from_env(os.environ)
    with cache.lock():  # the tests with a cluster run beside these and may be building it
        binary = binaries.ensure(cache, Timeline()) / "kube"
    kept = os.environ.get("EVALJOB_KEEP_PLANE")
    folder = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="evaljob-plane-"))
    folder.mkdir(parents=True, exist_ok=True)
    made = Plane(folder, options)
    # A SIGTERM must not leave the processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        made.start(binary)
        yield made
    finally:
        made.stop()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
