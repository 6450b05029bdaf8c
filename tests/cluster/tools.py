"""kubectl, helm and kind: the machine's own where they are new enough, else those built from Go modules."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.nodeimage import NodeImage
from tests.cluster.paths import Cache
from tests.cluster.shell import CommandError, Timeline, run

# The oldest version that will do, and the arguments that print it. kubectl: strict validation of fields, and
# `--subresource`. kind is taken from PATH only for kindest/node: our node image is tried with our kind alone.
_WANTED = {
    "kubectl": ((1, 31), ("version", "--client")),
    "helm": ((3, 14), ("version", "--short")),
    "kind": ((0, 33), ("version",)),
}


def ensure(image: NodeImage, cache: Cache, timeline: Timeline) -> Path:
    """The folder to put before PATH, so that kubectl, helm and kind are there and new enough."""
    # Our own links, which an earlier call may have put on PATH, do not count.
    folders = os.environ.get("PATH", "").split(":")
    path = ":".join(folder for folder in folders if folder != str(cache.tools))
    found = {name for name in _WANTED if usable(name, path)}
    if image.own:
        found.discard("kind")
    cache.tools.mkdir(exist_ok=True)
    for name in found:
        (cache.tools / name).unlink(missing_ok=True)
    missing = _WANTED.keys() - found
    if missing:
        folder = binaries.ensure(cache, timeline)
        for name in missing:
            (cache.tools / name).unlink(missing_ok=True)
            (cache.tools / name).symlink_to(folder / name)
    return cache.tools


def usable(tool: str, path: str) -> bool:
    """Whether kubectl, helm or kind is on a PATH and new enough."""
    return new_enough(tool, _version(tool, path))


def path_with(tools: Path, environ: Mapping[str, str]) -> str:
    """The PATH on which the tools come first."""
    return f"{tools}:{environ.get('PATH', '')}"


def new_enough(tool: str, output: str) -> bool:
    """Whether a tool's own account of its version names one that will do.

    Args:
        tool: kubectl, helm or kind.
        output: What it printed; empty if it is missing.
    """
    found = re.search(r"v(\d+)\.(\d+)", output)
    return found is not None and (int(found[1]), int(found[2])) >= _WANTED[tool][0]


def _version(tool: str, path: str) -> str:
    program = shutil.which(tool, path=path)
    try:
        return run(program, *_WANTED[tool][1]) if program else ""
    except CommandError:
        return ""
