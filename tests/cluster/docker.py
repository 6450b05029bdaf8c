"""The Docker Engine: found, installed, started; and a client whose BuildKit works.

Where `--privileged` is refused (no CAP_SYS_RESOURCE), kind gets a shim for the client; elsewhere it does not.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import HERE, Cache
from tests.cluster.shell import ClusterError, CommandError, run, say, works

# mmdebstrap makes the base image, zstd packs the cached images: one call to apt for all.
DEBIAN_PACKAGES = ("docker.io", "mmdebstrap", "zstd")
_START_LIMIT = 60.0


@dataclass(frozen=True)
class Docker:
    """A client that reaches the engine.

    Attributes:
        client: Its path.
        folder: A folder that holds nothing but `docker` (the client or the shim), for kind's PATH.
    """

    client: str
    folder: Path

    def __call__(self, *args: str | Path, timeout: float | None = None) -> str:
        """Run `docker ARGS` and return its standard output."""
        return run(self.client, *args, timeout=timeout)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which `docker` is this client, or the shim before it."""
        return {"PATH": f"{self.folder}:{os.environ.get('PATH', '')}", "REAL_DOCKER": self.client}

    def has_image(self, ref: str) -> bool:
        """Whether the engine holds this image."""
        return works(self.client, "image", "inspect", ref)


def ensure(cache: Cache) -> Docker:
    """A client of a running engine; installs Debian's packages and starts the engine where needed.

    Raises:
        ClusterError: If that cannot be done; the message says what to install or start.
    """
    if _client() is None or not (_answers(_client()) or shutil.which("dockerd")):
        install(*DEBIAN_PACKAGES)
    client = _client()
    if client is None:
        raise ClusterError("no docker client with BuildKit; install docker-buildx (or Debian 12's docker.io)")
    if not _answers(client):
        _start(cache, client)
    folder = cache.cluster / "docker"
    folder.mkdir(exist_ok=True)
    return Docker(client, folder)


def install(*packages: str) -> None:
    """Install Debian packages.

    Raises:
        ClusterError: If this is not a Debian machine, or not root's session.
    """
    wanted = " ".join(packages)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(
            f"missing on this machine: {wanted}; install them (as root, on Debian: apt-get install)"
        )
    say(f"    installing {wanted}")
    command = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    if not works(*command, env=quiet):  # a fresh machine has no package lists, an old one stale lists
        run("apt-get", "update", "-qq", env=quiet)
        run(*command, env=quiet)


def give_kind_a_client(docker: Docker, image: str) -> None:
    """Fill the client's folder: with the shim if the engine refuses privileged containers, else the client.

    Args:
        docker: The client.
        image: Any image with a `true` program.
    """
    link = docker.folder / "docker"
    privileged = works(docker.client, "run", "--rm", "--privileged", image, "true")
    target = Path(docker.client) if privileged else HERE / "node" / "docker"
    if link.is_symlink() and link.readlink() == target:
        return
    if not privileged:
        say(
            "    `docker run --privileged` is refused here: kind runs with the shim tests/cluster/node/docker"
        )
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def stop(cache: Cache) -> bool:
    """Stop the engine if this package started it and it runs nothing else; whether it was stopped."""
    if not cache.dockerd_pid.exists():
        return False
    pid = int(cache.dockerd_pid.read_text())
    client = _client()
    if client and _answers(client) and run(client, "ps", "-q").strip():
        say("Docker Engine is left running: it has other containers")
        return False
    if _is_dockerd(pid):
        os.kill(pid, signal.SIGTERM)
        _wait_until(lambda: not _is_dockerd(pid), "Docker Engine does not stop")
    cache.dockerd_pid.unlink()
    return True


def has_buildkit(version: str, *, buildx: bool) -> bool:
    """Whether a client builds with BuildKit: until 22 it is built in, since 23 it needs the buildx plug-in.

    Args:
        version: As `docker version` prints it, e.g. `20.10.24+dfsg1`.
        buildx: Whether the plug-in answers.
    """
    major = re.match(r"\d+", version)
    return buildx or (major is not None and 18 < int(major[0]) < 23)


def find() -> Docker | None:
    """A client of the running engine, without installing or starting anything."""
    client = _client()
    return Docker(client, Path(client).parent) if client and _answers(client) else None


def _client() -> str | None:
    for path in (shutil.which("docker"), "/usr/bin/docker"):
        if path and Path(path).exists():
            # Without a running engine the command fails, after it has printed the client's version.
            done = subprocess.run(
                [path, "version", "--format", "{{.Client.Version}}"],
                capture_output=True,
                text=True,
                check=False,
            )
            if has_buildkit(done.stdout.strip(), buildx=works(path, "buildx", "version")):
                return path
    return None


def _answers(client: str | None) -> bool:
    return client is not None and works(client, "version", "--format", "{{.Server.Version}}")


def _start(cache: Cache, client: str) -> None:
    if os.geteuid() != 0:
        raise ClusterError("Docker Engine is not running; start it, or run this as root")
    log = cache.cluster / "dockerd.log"
    say(f"    Docker Engine is not running: starting dockerd (log {log}; `down --all` stops it)")
    # Not a Popen: the engine outlives this process, and a Popen object that is dropped before warns.
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawnp("dockerd", ["dockerd"], os.environ, file_actions=actions, setsid=True)
    cache.dockerd_pid.write_text(str(pid))
    _wait_until(lambda: _answers(client), f"Docker Engine does not answer; see {log}")


def _is_dockerd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return "(dockerd)" in stat and ") Z " not in stat  # a zombie has ended
    return False


def _wait_until(true: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + _START_LIMIT
    while not true():
        if time.monotonic() > end:
            raise CommandError(f"{complaint} after {_START_LIMIT:g} s")
        time.sleep(0.2)
