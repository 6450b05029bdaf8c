"""A process that is of no use any more ends by itself, and says why."""

import subprocess
import sys

import pytest

_BLOCKED = """
import asyncio, time
from evaljob_operator import vigil

async def main():
    task = asyncio.create_task(vigil.keep(lambda: (), time.monotonic, blocked=0.3))
    await asyncio.sleep(0.1)
    time.sleep(60)  # a loop that never comes round

asyncio.run(main())
"""
_STALE = """
import asyncio, itertools
from evaljob_operator import vigil

vigil.INTERVAL = 0.0
silent, answered, clock = [("evals", "jobs", 200.0)], float("inf"), itertools.count(0.0, 10.0)
asyncio.run(vigil.keep(lambda: silent, lambda: answered, clock.__next__))
"""


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [(_BLOCKED, 1, ("Timeout", "in main")), (_STALE, 70, ("evals/jobs: nothing heard",))],
    ids=["a loop that stands still", "a watch that is silent for good"],
)
def test_it_ends_by_itself(program: str, code: int, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == code, done.stderr
    assert [word for word in words if word not in done.stderr] == []
