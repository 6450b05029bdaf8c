"""One execution, seen from the runner: start the two processes, wait for the verdict, end them."""

import errno
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from evaljob_runner.sandbox.confined import CONFINED
from evaljob_runner.sandbox.wire import Json
from evaljob_runner.surrogates import replaced

START_SECONDS = 60.0
"""For two small Python processes, on a machine that is very busy."""
_AGAIN_SECONDS = 0.1
_NO_ROOM = (errno.EAGAIN, errno.ENOMEM)
"""More processes and threads than the container may have, or no memory for one."""
# -s -P -S with nothing else in the environment is -I but for the hash seed: a program that depends on the order of
# a set must score the same each time.
_PYTHON = (sys.executable, "-s", "-P", "-S", "-B")
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_SOURCES = str(Path(__file__).parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[2]); from evaljob_runner.sandbox import confined; "
    "del sys.path[0]; confined.start(sys.argv[1])"
)


_Started = subprocess.Popen[bytes]
Ends = dict[str, int | str]
"""A role, and its file descriptors by what they are for."""


@dataclass(frozen=True)
class Limits:
    """What one execution may use."""

    wall_seconds: float
    """From the moment that both processes are confined."""
    memory: int
    """Bytes of address space of each of the two processes."""


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests, and if not, what ended them."""

    passed: bool
    explanation: str = ""


class SandboxError(Exception):
    """The execution never began: no word about the program."""


class BusyError(SandboxError):
    """The processes did not start, and may start later."""


class UnusableTestsError(Exception):
    """The tests can judge no program: they do not compile, or pass what is no data."""


def execute(program: str, tests: str, limits: Limits) -> Verdict:
    """Run a program and let the tests judge it, in two confined processes.

    Args:
        program: what nobody trusts.
        tests: the dataset's own checks; names that they do not define are taken from the program.
        limits: of each process.

    Raises:
        SandboxError: when the processes did not start or could not be confined.
        UnusableTestsError: when the tests are at fault.
    """
    with ExitStack() as stack:
        verdict, said = _pipe(stack)
        asked, asking = _pipe(stack)
        answered, answering = _pipe(stack)
        candidate: Ends = {"role": "candidate", "reading": asked.fileno(), "writing": answering.fileno()}
        checker: Ends = {"role": "checker", "reading": answered.fileno(), "writing": asking.fileno()}
        try:
            stack.enter_context(_process(program, candidate, limits))
            stack.enter_context(_process(tests, checker | {"verdict": said.fileno()}, limits))
        except OSError as error:
            raise SandboxError(f"a process cannot be started: {error.strerror}") from error
        for end in (said, asked, asking, answered, answering):
            end.close()
        return _verdict(verdict, limits.wall_seconds)


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "r")), stack.enter_context(FileIO(writing, "w"))


@contextmanager
def _process(source: str, ends: Ends, limits: Limits) -> Iterator[None]:
    """A confined process in a group of its own, killed on leaving."""
    arguments = ends | {
        "parent": os.getpid(),
        "memory": limits.memory,
        # Only a process that nobody watches any more reaches it.
        "cpuSeconds": math.ceil(limits.wall_seconds) + 2,
    }
    with FileIO(os.memfd_create("source"), "w+") as file:
        file.write(source.encode(errors="replace"))
        file.seek(0)
        process = _when_there_is_room(
            lambda: subprocess.Popen(
                [*_PYTHON, "-c", _BOOT, json.dumps(arguments), _SOURCES],
                env=_ENVIRONMENT,
                cwd="/",
                stdin=file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[end for end in ends.values() if isinstance(end, int)],
                process_group=0,
            ),
            START_SECONDS + limits.wall_seconds,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _when_there_is_room(start: Callable[[], _Started], seconds: float) -> _Started:
    """Start a process; where the container may have no more, or has no memory for one, try again.

    A program that takes all threads or memory is killed at its `wall_seconds`: it must not fail the others.

    Raises:
        OSError: when it cannot be started.
        BusyError: when there was no room in all that time.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return start()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            if time.monotonic() >= until:
                raise BusyError(f"no process could be started for {seconds:g} s: {error.strerror}") from error
        time.sleep(_AGAIN_SECONDS)


def _verdict(pipe: FileIO, wall_seconds: float) -> Verdict:
    try:
        started = _line(pipe, START_SECONDS)
    except TimeoutError as error:
        raise BusyError(f"the processes were not ready within {START_SECONDS:g} s") from error
    if started != CONFINED:
        why = started.get("failed") if isinstance(started, dict) else "the processes ended or never began"
        raise SandboxError(f"cannot confine a process: {why}")
    try:
        said = _line(pipe, wall_seconds)
    except TimeoutError:
        return Verdict(passed=False, explanation=f"not done within {wall_seconds:g} s")
    if said is None:
        return Verdict(passed=False, explanation="the tests ended without a verdict")
    if "unusable" in said:
        raise UnusableTestsError(said["unusable"])
    # An exception's text is the program's: half a character in it could not be logged.
    return Verdict(passed=said["passed"] is True, explanation=replaced(said["explanation"]))


def _line(pipe: FileIO, seconds: float) -> Json:
    """The next message of the checker; None if it ended before.

    Raises:
        TimeoutError: when there is none in time.
    """
    line, until = bytearray(), time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(until - time.monotonic(), 0))
        if not ready:
            raise TimeoutError
        # Byte by byte: two messages may wait, and they are short.
        piece = pipe.read(1)
        if not piece:
            return None
        line += piece
    return json.loads(line)
