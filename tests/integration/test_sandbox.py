"""Generated programs in their sandbox: real processes, real attacks. tests/e2e runs the same attacks in a pod."""

import ctypes
import errno
import os
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evaljob_runner.samples import Score
from evaljob_runner.sandbox import kernel, run, syscalls
from evaljob_runner.sandbox.probe import probe
from evaljob_runner.sandbox.run import UnusableTestsError, Verdict, execute
from tests import attacks
from tests.attacks import ALL, LIMITS, Attack


@pytest.fixture(scope="module")
def verdicts() -> Mapping[str, Verdict]:
    return {attack.name: verdict for attack, verdict in attacks.verdicts()}


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_programs_pass_only_by_what_they_compute(attack: Attack, verdicts: Mapping[str, Verdict]) -> None:
    assert verdicts[attack.name].passed is attack.passes, verdicts[attack.name].explanation


def test_names_of_attacks_are_unique() -> None:
    assert len({attack.name for attack in ALL}) == len(ALL)


def open_files() -> list[str]:
    return [path.name for path in Path("/proc/self/fd").iterdir()]


def test_nothing_of_an_execution_stays() -> None:
    files = open_files()
    for program in ("import time\ntime.sleep(60)", "import os\nos._exit(0)", "def double(x): return 4"):
        execute(program, attacks.DOUBLES, attacks.SHORT)
    assert open_files() == files
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ("assert double(2) ==", "do not compile"),
        ("assert double(lambda: 2) == 4", "pass a function to the program"),
        ("try: double(object())\nexcept Exception: pass", "pass a object"),
    ],
)
def test_tests_that_can_judge_no_program_are_an_error_and_no_score(checks: str, words: str) -> None:
    with pytest.raises(UnusableTestsError, match=words):
        execute("def double(x): return 2 * x", checks, LIMITS)


def test_this_place_can_confine_programs_and_says_by_what() -> None:
    assert probe() == f"landlock {kernel.landlock_abi()}, seccomp"


_WITHOUT = """
import sys
from evaljob_runner.sandbox import kernel
from evaljob_runner.sandbox.probe import UnavailableError, probe
from evaljob_runner.sandbox.run import *
kernel.call_filter = lambda machine: FILTER
kernel.restrict_calls()
try:
    print(probe())
except UnavailableError as error:
    print("refused:", error)
try:
    print(execute("def double(x): return 2 * x", "assert double(2) == 4", Limits(5, 2**28)))
except SandboxError as error:
    print("not run:", error)
"""


@pytest.mark.parametrize("call", [444, 446], ids=["no Landlock", "Landlock that does not restrict"])
def test_where_a_program_cannot_be_confined_none_runs(call: int) -> None:
    """A container runtime may forbid Landlock's system calls: seccomp makes such a place here."""
    load, equal, answer = 0x20, 0x15, 0x06
    parts = [(load, 0, 0, 0), (equal, 0, 1, call), (answer, 0, 0, 0x00050001), (answer, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("=HBBI", *part) for part in parts)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.replace("FILTER", repr(code))],
        capture_output=True,
        text=True,
        check=True,
    )
    refused, not_run = done.stdout.splitlines()
    assert refused.startswith("refused:")
    assert "pick other nodes by runner.nodeSelector" in refused
    assert not_run.startswith("not run: cannot confine a process: ")
    assert "Operation not permitted" in not_run


def test_processes_die_with_the_runner_and_before_it_where_memory_runs_out() -> None:
    """SIGKILL: nobody cleans up."""
    code = (
        "from tests import attacks; from evaljob_runner.sandbox.run import *; print('started', flush=True); "
    )
    code += "execute('import time; time.sleep(600)', '', Limits(600, 2**28))"
    top = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=top, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"started\n"
        while len(children := _children(runner.pid)) < 2 or not all(map(_goes_first, children)):
            time.sleep(0.01)
        runner.kill()
        runner.wait()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < until, f"{children} outlived the runner"
        time.sleep(0.01)


def _goes_first(pid: int) -> bool:
    return Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_of_system_calls_are_those_that_libseccomp_knows(machine: str) -> None:
    """A part of every Debian; the table is for kernels that are not here to be asked."""
    library = ctypes.CDLL("libseccomp.so.2")
    audit, column = syscalls.AUDIT[machine], syscalls.COLUMN[machine]

    def number(name: str) -> int | None:
        found: int = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(audit), name.encode())
        return found if found >= 0 else None

    known = syscalls.ALLOWED | {
        "clone": syscalls.CLONE,
        "clone3": syscalls.CLONE3,
        "fcntl": syscalls.FCNTL,
        "ioctl": syscalls.IOCTL,
        "prlimit64": syscalls.PRLIMIT64,
    }
    assert {name: pair[column] for name, pair in known.items()} == {name: number(name) for name in known}


def test_tests_that_crash_are_no_reason_to_try_for_ever() -> None:
    """A program may be able to bring it about, so it counts as failed."""
    verdict = execute("def double(x): return 4", "import ctypes\nctypes.string_at(0)", LIMITS)
    assert verdict == Verdict(passed=False, explanation="the tests ended without a verdict")


@pytest.mark.parametrize(
    ("program", "checks", "explanation"),
    [
        (r"raise ValueError('no \ud800')", "", "ValueError: no \ufffd"),
        (
            "def f(): raise type('X' * 9000, (BaseException,), {})",
            "try: f()\nexcept: pass",
            "the program: X",
        ),
    ],
    ids=["half a character", "a long name of a class"],
)
def test_what_a_program_raises_can_stand_in_the_log(program: str, checks: str, explanation: str) -> None:
    verdict = execute(program, checks, LIMITS)
    assert not verdict.passed
    score = Score(value=0, explanation=verdict.explanation)
    assert (score.explanation or "").startswith(explanation)
    score.model_dump_json()


class Full:
    """A machine that starts no process the first times, as at a limit of processes and threads."""

    def __init__(self, refusals: int, number: int) -> None:
        self._refusals, self._number = refusals, number
        self._start = subprocess.Popen

    def __call__(self, *args: Any, **more: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - of Popen
        if self._refusals:
            self._refusals -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._start(*args, **more)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.get)
def test_a_program_waits_where_another_left_no_room_for_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Full(2, number))
    assert execute("def double(x): return 2 * x", attacks.DOUBLES, LIMITS) == Verdict(passed=True)


def test_a_program_does_not_wait_for_room_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "START_SECONDS", 0)
    monkeypatch.setattr(subprocess, "Popen", Full(10**6, errno.EAGAIN))
    with pytest.raises(run.BusyError, match="no process could be started for 1 s: Resource temporarily"):
        execute("", "", attacks.SHORT)


def test_what_no_waiting_helps_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", Full(1, errno.EPERM))
    with pytest.raises(run.SandboxError, match="a process cannot be started: Operation not permitted"):
        execute("", "", LIMITS)
