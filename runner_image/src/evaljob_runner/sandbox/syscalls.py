"""What a program may ask of the kernel: enough for CPython to compute, read its library and start threads.

An allow-list, so that a system call of a later kernel is refused too. Not on it, on purpose: sockets, exec, fork,
signals to others, ptrace, everything that makes, changes or removes a file, memfd, namespaces, mounts, keys, bpf,
io_uring.
"""

# Number of each call on x86_64 and aarch64; None where the architecture has not got it (linux/unistd.h).
# A test compares with libseccomp's tables.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96),
    "membarrier": (324, 283),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "sysinfo": (99, 179),
}
CLONE = (56, 220)
"""Allowed for threads only."""
PRLIMIT64 = (302, 261)
"""Allowed for the process itself only: the runner has the same user."""
FCNTL = (72, 25)
"""Allowed for `FCNTL_COMMANDS` only."""
FCNTL_COMMANDS = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC. Others make the kernel signal whom the caller names (F_SETOWN
with O_ASYNC of F_SETFL), lock and lease files, or take memory for pipes."""
CLONE3 = (435, 435)
"""ENOSYS, so that the C library falls back to clone: a filter cannot look into clone3's structure."""
IOCTL = (16, 29)
"""ENOTTY: Python only asks whether a file is a terminal."""


AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""By `uname -m`: AUDIT_ARCH_*, which the filter compares, so that 32-bit calls cannot slip in by other numbers."""
COLUMN = {"x86_64": 0, "aarch64": 1}
"""By `uname -m`: which number of each pair above."""
