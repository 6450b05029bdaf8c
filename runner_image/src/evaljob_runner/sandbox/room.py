"""How many programs may run at once: as many as there are processors, and memory for the worst of each."""

import os
from collections.abc import Iterable
from pathlib import Path

PROCESSES = 2
"""Of one execution: the program and its tests."""
_CGROUP = Path("/sys/fs/cgroup")
_KIBIBYTE = 1024


def workers(memory: int) -> int:
    """Executions at once, at least one.

    Args:
        memory: bytes that each process of an execution may take.
    """
    processors = int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
    return max(1, min(processors, free() // (PROCESSES * memory)))


def free(cgroup: Path = _CGROUP, machine: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that this container, or machine, has left.

    Args:
        cgroup: where the container's cgroup is mounted (v2, or v1 with its folder `memory`).
        machine: the kernel's report on the whole machine.
    """
    found = [int(line.split()[1]) * _KIBIBYTE for line in _lines(machine) if line.startswith("MemAvailable:")]
    found += _left(cgroup, "memory.max", "memory.current", "inactive_file")
    v1 = cgroup / "memory"
    found += _left(v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return min(found)


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> list[int]:
    """Limit - usage + page cache that the kernel drops first; nothing where there is no limit."""
    numbers = [line for name in (limit, usage) for line in _lines(folder / name)]
    if len(numbers) != 2 or not numbers[0].isdecimal():
        return []
    statistics = dict(line.split() for line in _lines(folder / "memory.stat"))
    return [int(numbers[0]) - int(numbers[1]) + int(statistics.get(reclaimable, 0))]


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return ()
