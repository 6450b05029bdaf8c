"""kube, pause and kind, built from Go modules.

kube is every Kubernetes program of a node, kubectl and helm in one file; the name it is called by chooses.
About 330 CPU seconds from empty caches, once; the Go caches (3.6 GB) are dropped afterwards.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import digest
from tests.cluster.paths import HERE, Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, run, say, works

PACKAGES = ("./kube", "./pause", "sigs.k8s.io/kind")
# Compile time is what counts here: without debug data and inlining (-l) it takes a third less CPU.
BUILD_FLAGS = ("-trimpath", "-tags=grpcnotrace", "-gcflags=all=-dwarf=false -l")
TOOLS_IN_KUBE = ("kubectl", "helm")
_PROGRESS_SECONDS = 10.0
_KEEP = 2


def kubernetes_version(go_mod: str) -> str:
    """The version of Kubernetes, e.g. `v1.36.3`, from the text of go.mod."""
    return _required(r"^\s*k8s\.io/kubernetes (v[\d.]+)$", go_mod)


def key() -> str:
    """The digest of what the binaries are made of."""
    sources = [HERE / name for name in ("go.mod", "go.sum", "kube", "pause")]
    return digest.of([*sources, *PACKAGES, *BUILD_FLAGS], HERE)


def ensure(cache: Cache, timeline: Timeline) -> Path:
    """The folder with kube, kind, pause, and kubectl and helm as links to kube; built if the cache has none.

    Raises:
        ClusterError: If Go is missing or too old, or the build fails twice.
    """
    folder = cache.cluster / f"bin-{key()}"
    if folder.exists():
        return folder
    _require_go()
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with timeline.stage("go build"):
        try:
            _build(cache, fresh)
        except CommandError as failure:  # seen once: "resource temporarily unavailable" beside other builds
            say(f"    {failure}\n    once more")
            _build(cache, fresh)
        shutil.rmtree(cache.cluster / "go")
    for tool in TOOLS_IN_KUBE:
        (fresh / tool).symlink_to("kube")
    fresh.rename(folder)
    prune(cache, "bin-*")
    return folder


def prune(cache: Cache, pattern: str) -> None:
    """Drop what older versions of these sources left in the cache, but for the last before this one."""
    found = sorted(cache.cluster.glob(pattern), key=lambda path: path.stat().st_mtime)
    for path in found[:-_KEEP]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_go() -> None:
    wanted = _required(r"^go ([\d.]+)$", (HERE / "go.mod").read_text())
    fix = f"install Go {wanted} or newer and put `go` on PATH"
    if not works("go", "version"):
        raise ClusterError(f"Go is missing: {fix}")
    found = _required(r"go([\d.]+)", run("go", "env", "GOVERSION"))
    if _numbers(found) < _numbers(wanted):
        raise ClusterError(f"Go {found} is too old: {fix}")


def _build(cache: Cache, folder: Path) -> None:
    env = {
        "GOCACHE": str(cache.cluster / "go" / "build"),
        "GOMODCACHE": str(cache.cluster / "go" / "mod"),
        "GOFLAGS": "-mod=readonly -buildvcs=false -modcacherw",  # writable, so that it can be deleted
        "CGO_ENABLED": "0",  # static: any image can hold it
        "GOGC": "off",  # the largest process, the link, stays below 2.5 GB
    }
    say("    downloading Go modules")
    wanted = run("go", "list", "-deps", BUILD_FLAGS[1], *PACKAGES, env=env, cwd=HERE).splitlines()
    command = ["go", "build", "-v", *BUILD_FLAGS, f"-ldflags={_link_flags()}", "-o", f"{folder}/", *PACKAGES]
    _follow(command, env, _progress(len(wanted)))


def _follow(command: list[str], env: dict[str, str], each_line: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command, env={**os.environ, **env}, cwd=HERE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr or ():
            lines.append(line)
            each_line(line)
    if process.returncode:
        raise CommandError("go build failed:\n" + "".join(lines[-15:]))


def _progress(total: int) -> Callable[[str], None]:
    """Count the packages that `go build -v` names; every ten seconds say how many."""
    started = time.monotonic()
    done, said = 0, started

    def count(line: str) -> None:
        nonlocal done, said
        done += not line.startswith("go: ")
        if time.monotonic() - said >= _PROGRESS_SECONDS:
            said = time.monotonic()
            say(f"    go build: {done} of {total} packages, {said - started:.0f} s")

    return count


def _link_flags() -> str:
    """Without these every program calls itself v0.0.0-master, which kubeadm refuses."""
    version = kubernetes_version((HERE / "go.mod").read_text())
    major, minor, _ = version.removeprefix("v").split(".")
    base = "k8s.io/component-base/version"
    values = {
        f"{base}.gitVersion": version,
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        f"{base}.gitTreeState": "clean",
        f"{base}.gitCommit": version,
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }
    return "-s -w " + " ".join(f"-X {name}={value}" for name, value in values.items())


def _required(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ClusterError(f"nothing matches {pattern!r} in {text[:200]!r}")
    return found[1]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".") if number]
