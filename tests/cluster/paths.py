"""Where things are: this package's own files, and the cache folder outside the repository."""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


@dataclass(frozen=True)
class Cache:
    """The folder that keeps binaries, image archives and the state of running clusters.

    Attributes:
        root: `${EVALJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/evaljob}`.
    """

    root: Path

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Cache":
        """The cache folder that the environment names; it is created."""
        named = environ.get("EVALJOB_CACHE")
        parent = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "/root")) / ".cache")
        cache = cls(Path(named) if named else Path(parent) / "evaljob")
        cache.cluster.mkdir(parents=True, exist_ok=True)
        return cache

    @property
    def cluster(self) -> Path:
        """What this package alone owns."""
        return self.root / "cluster"

    @property
    def data(self) -> Path:
        """The folder that nodes mount when the caller names none."""
        return self.root / "data"

    @property
    def tools(self) -> Path:
        """The folder to put on PATH: kind, and kubectl and helm where the machine has none."""
        return self.cluster / "tools"

    @property
    def dockerd_pid(self) -> Path:
        """The process id of the Docker Engine, if this package started it."""
        return self.cluster / "dockerd.pid"

    def kubeconfig(self, name: str) -> Path:
        """The credentials of one cluster; `~/.kube/config` is never touched."""
        return self.cluster / "clusters" / name / "kubeconfig"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time build or change what the cache holds."""
        with (self.cluster / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
