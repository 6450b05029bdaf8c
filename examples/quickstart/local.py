"""The quickstart without a cluster: a process per partition on this machine."""

import os
import subprocess

from examples.quickstart import data
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import Timeline


def run(cache: Cache, timeline: Timeline) -> int:
    """Run examples/quickstart.yaml with `evaljob run`; its exit code."""
    folder = data.prepare(cache, timeline)
    with timeline.stage("environment"):
        python = data.environment(".venv-local", "runner-cpu.txt")
    command = [str(python), "-m", "evaljob_cli", "run", str(data.EVALJOB)]
    command += ["--out", str(cache.root / "quickstart-local")]
    for claim in ("models", "data"):
        command += ["--mount", f"{claim}={folder / claim}"]
    with timeline.stage("evaluation"):
        return subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        ).returncode
