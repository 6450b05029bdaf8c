"""Entry of both confined processes: give up everything, then play one role. Standard library only."""

import json
import os
import resource
import sys
from typing import Any

from evaljob_runner.sandbox import kernel
from evaljob_runner.sandbox.candidate import Candidate
from evaljob_runner.sandbox.checker import check
from evaljob_runner.sandbox.wire import ClosedError, Json, Pipe

CONFINED = {"confined": True}
OPEN_FILES = 64
# Shared libraries that modules of the standard library load, and time zones.
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_READABLE_FILES = ("/etc/ld.so.cache", "/dev/urandom")


def start(arguments: str) -> None:
    """Play a role and end.

    Args:
        arguments: a JSON object: `role` (candidate or checker), the runner's `parent` process id, `memory` in bytes,
            `cpuSeconds`, the file descriptors `reading` and `writing` of the pipe between the two, and of the
            checker `verdict`. The source to run comes on standard input.
    """
    given = json.loads(arguments)
    del sys.argv[1:]
    pipe = Pipe(given["reading"], given["writing"])
    try:
        source = _source()
        if problem := _confined(given):
            _fail(problem, pipe, given)
        elif given["role"] == "candidate":
            pipe.send(CONFINED)
            Candidate(source).serve(pipe)
        else:
            _check(source, pipe, given)
    except ClosedError:
        pass
    os._exit(0)


def _source() -> str:
    text = sys.stdin.buffer.read().decode()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return text


def _confined(given: dict[str, Any]) -> str | None:
    """Confine this process; what failed, or None."""
    if os.getppid() != given["parent"]:
        return "the runner is gone"
    try:
        confine(given["memory"], given["cpuSeconds"])
    except (OSError, ValueError) as error:
        return f"{given['role']}: {error}"
    return None


def confine(memory: int, cpu_seconds: int) -> None:
    """Give up files, network, other processes and most system calls, for good.

    Args:
        memory: bytes of address space.
        cpu_seconds: CPU time after which the kernel kills the process.

    Raises:
        OSError, ValueError: when the kernel refuses a part of it.
    """
    # Processes are not limited by number (RLIMIT_NPROC counts the runner's threads too, and not for root): the
    # filter refuses to make any. Threads are bounded by the address space that their stacks take.
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))
    _go_first()
    kernel.die_with_parent()
    kernel.hide()
    standard_library = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib takes milliseconds to import
    kernel.restrict_files((standard_library, *_LIBRARIES, *_READABLE_FILES), (os.devnull,))
    kernel.restrict_calls()


def _go_first() -> None:
    """Where memory runs out, the kernel ends this process rather than the runner."""
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib takes milliseconds to import
        file.write("1000")


def _check(source: str, pipe: Pipe, given: dict[str, Any]) -> None:
    """Tell the runner when both processes are confined, then the verdict."""
    other = pipe.receive()
    _say(given, other)
    if other == CONFINED:
        _say(given, check(source, pipe))


def _fail(problem: str, pipe: Pipe, given: dict[str, Any]) -> None:
    message = {"failed": problem}
    if given["role"] == "candidate":
        pipe.send(message)
    else:
        _say(given, message)


def _say(given: dict[str, Any], message: Json) -> None:
    """A line for the runner. Nothing of the program can reach this file descriptor."""
    os.write(given["verdict"], json.dumps(message).encode() + b"\n")
