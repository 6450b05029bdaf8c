"""Landlock, seccomp and prctl by their system calls: what a process without privileges can give up for good.

Own code, because the libraries fall short: `landlock` (a pre-release) has no network rules, `pyseccomp` needs
libseccomp in every image. Standard library only: the confined processes import this.
Sources: Landlock's and seccomp's pages in the kernel's documentation (userspace-api), landlock(7), seccomp(2).
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from evaljob_runner.sandbox.syscalls import (
    ALLOWED,
    AUDIT,
    CLONE,
    CLONE3,
    COLUMN,
    FCNTL,
    FCNTL_COMMANDS,
    IOCTL,
    PRLIMIT64,
)

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_QUERY = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# Rights that each ABI added to those of ABI 1 (bits 0 to 12): REFER, TRUNCATE, IOCTL_DEV.
_FILE_BITS = {1: 13, 2: 14, 3: 15, 5: 16}
_TCP_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER = 2
_SIGKILL = 9
_RET_KILL_PROCESS, _RET_ERRNO, _RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 0, 4, 16, 24
_CLONE_THREAD = 0x00010000


def landlock_abi() -> int:
    """The version of Landlock that the kernel offers; 0 for none."""
    return max(_call(_CREATE_RULESET, None, 0, _ABI_QUERY), 0)


def has_seccomp_filter() -> bool:
    """Whether filters can be installed: the kernel answers a null filter with EFAULT if so."""
    _LIBC.prctl(_SET_SECCOMP, _FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def hide() -> None:
    """Close this process to others of its user: no ptrace, no /proc/<pid>/mem, environ or fd."""
    _prctl(_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends, however it ends."""
    _prctl(_SET_PDEATHSIG, _SIGKILL)


def restrict_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    """From here on, read only beneath `readable`, write only to `writable` files, and use no TCP port.

    What does not exist is left out. Cannot be undone; threads and children inherit it.

    Raises:
        OSError: when the kernel refuses.
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)
    abi = landlock_abi()
    handled = (1 << max(bits for version, bits in _FILE_BITS.items() if version <= abi)) - 1 if abi else 0
    fields = [handled]
    if abi >= 4:
        fields.append(_TCP_BIND_AND_CONNECT)
    if abi >= 6:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _checked(_call(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        _checked(_call(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib takes five milliseconds to import
            rights &= ~_READ_DIR
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, where), 0))
    finally:
        os.close(where)


def restrict_calls() -> None:
    """From here on, only the system calls of `syscalls`. Cannot be undone; threads inherit it.

    Raises:
        OSError: when the kernel refuses, or the architecture is not known.
    """
    machine = os.uname().machine
    if machine not in AUDIT:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    code = call_filter(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, padding, a pointer.
    program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(program, len(program)))


def call_filter(machine: str) -> bytes:
    """The allow-list as a classic BPF program, one test after the other."""
    column = COLUMN[machine]
    found = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, AUDIT[machine], skip=1),
        _instruction(_RETURN, _RET_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    for pair in ALLOWED.values():
        number = pair[column]
        found += _answer(number, _RET_ALLOW) if number is not None else []
    found += _answer(IOCTL[column], _RET_ERRNO | errno.ENOTTY)
    found += _answer(CLONE3[column], _RET_ERRNO | errno.ENOSYS)
    found += _if_argument(PRLIMIT64[column], _FIRST_ARGUMENT_AT, _EQUAL, 0)
    found += _if_argument(CLONE[column], _FIRST_ARGUMENT_AT, _ANY_BIT, _CLONE_THREAD)
    found += _if_argument(FCNTL[column], _SECOND_ARGUMENT_AT, _EQUAL, *FCNTL_COMMANDS)
    return b"".join([*found, _instruction(_RETURN, _RET_ERRNO | errno.EPERM)])


def _answer(number: int, answer: int) -> list[bytes]:
    return [_instruction(_EQUAL, number, otherwise=1), _instruction(_RETURN, answer)]


def _if_argument(number: int, where: int, test: int, *operands: int) -> list[bytes]:
    """Allow a call if an argument passes the test with one of the operands, else refuse it.

    Only its lower half is looked at, as the kernel does with each argument asked for here.
    """
    count = len(operands)
    tests = [_instruction(test, operand, skip=count - i) for i, operand in enumerate(operands)]
    return [
        _instruction(_EQUAL, number, otherwise=count + 3),
        _instruction(_LOAD, where),
        *tests,
        _instruction(_RETURN, _RET_ERRNO | errno.EPERM),
        _instruction(_RETURN, _RET_ALLOW),
    ]


def _instruction(code: int, operand: int, skip: int = 0, otherwise: int = 0) -> bytes:
    """A struct sock_filter: code, how many to skip if true and if false, operand."""
    return struct.pack("=HBBI", code, skip, otherwise, operand)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """A system call; integers as wide as registers, which a variadic C function does not do by itself."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_LIBC.syscall(ctypes.c_long(number), *wide))


def _prctl(option: int, argument: int, pointer: object = None) -> None:
    _checked(_LIBC.prctl(option, argument, pointer, 0, 0))


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
