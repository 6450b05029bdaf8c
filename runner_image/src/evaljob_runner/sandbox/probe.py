"""Whether this place can confine a program, asked before anything is loaded. There is no weaker sandbox."""

import os

from evaljob_runner.sandbox import kernel, syscalls
from evaljob_runner.sandbox.run import BusyError, Limits, SandboxError, execute

_LIMITS = Limits(wall_seconds=60, memory=256 * 2**20)
_PROGRAM = """
import os, socket
def what_works():
    found = []
    for action in (os.fork, socket.socket, lambda: os.listdir("/"), lambda: open("/tmp/x", "w")):
        try:
            action()
        except OSError:
            continue
        found.append(str(action))
    return found
"""
_CHECKS = "assert what_works() == [], what_works()"


class UnavailableError(Exception):
    """This place cannot confine a program; the message holds the fix."""


def probe() -> str:
    """What confines programs here, for the record: `landlock 7, seccomp`.

    Raises:
        UnavailableError: when a part is missing, or a program is not confined as promised.
        BusyError: when its processes did not start, and may start later.
    """
    machine, abi = os.uname().machine, kernel.landlock_abi()
    if machine not in syscalls.AUDIT:
        raise UnavailableError(
            f"no table of system calls for {machine}, only for {', '.join(syscalls.AUDIT)}: pick other "
            "nodes by runner.nodeSelector"
        )
    if not abi:
        raise UnavailableError(
            "the kernel offers no Landlock (Linux >= 5.13 with landlock among its lsm= and a container runtime that "
            "allows it): pick other nodes by runner.nodeSelector"
        )
    if not kernel.has_seccomp_filter():
        raise UnavailableError(
            "the kernel offers no seccomp filters: pick other nodes by runner.nodeSelector"
        )
    try:
        verdict = execute(_PROGRAM, _CHECKS, _LIMITS)
    except BusyError:
        raise
    except SandboxError as error:
        raise UnavailableError(f"{error}: pick other nodes by runner.nodeSelector") from error
    if not verdict.passed:
        raise UnavailableError(f"a program was not confined: {verdict.explanation}")
    return f"landlock {abi}, seccomp"
