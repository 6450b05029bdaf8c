"""Programs that try to cheat or to break out, and what must become of them.

Run as a script, wherever `evaljob_runner` is installed, it prints one JSON line: what went otherwise. Tests run it
on this machine; the end-to-end tests run the same file in a restricted pod.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from textwrap import dedent

from evaljob_runner.sandbox import kernel
from evaljob_runner.sandbox.run import Limits, Verdict, execute

LIMITS = Limits(wall_seconds=10, memory=256 * 2**20)
SHORT = Limits(wall_seconds=1, memory=256 * 2**20)
DOUBLES = "assert double(2) == 4"
"""The tests that a forgery has to pass without doubling anything."""


@dataclass(frozen=True)
class Attack:
    """A program and the tests it meets."""

    name: str
    program: str
    checks: str
    passes: bool
    """What the verdict must be."""
    limits: Limits = LIMITS


def _forgery(name: str, program: str, checks: str = DOUBLES, limits: Limits = LIMITS) -> Attack:
    return Attack(name, dedent(program), dedent(checks), passes=False, limits=limits)


def _honest(name: str, program: str, checks: str = DOUBLES) -> Attack:
    return Attack(name, dedent(program), dedent(checks), passes=True)


_ATTEMPT = """
import ctypes, fcntl, os, resource, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
runner = os.getppid()

def call(x86_64, aarch64, *args):
    number = {"x86_64": x86_64, "aarch64": aarch64}[os.uname().machine]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *args)]
    if libc.syscall(*wide) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def shell(command):
    if os.system(command) != 0:
        raise OSError("refused")

def attempt():
    try:
        %s
    except (OSError, MemoryError, ValueError, ImportError) as error:
        return f"refused: {error}"
    return "it worked"
"""


def _refused(name: str, action: str) -> Attack:
    """An action that must end in an error; a program of ours that tells the truth about it."""
    return _honest(name, _ATTEMPT % action, "answer = attempt()\nassert answer.startswith('refused'), answer")


FORGERIES = (
    _forgery("ends before the tests", "import os\nos._exit(0)"),
    _forgery("ends with success before the tests", "raise SystemExit(0)"),
    _forgery("ends in a test", "import os\ndef double(x): os._exit(0)"),
    _forgery(
        "ends in a test that forgives everything",
        "import os\ndef double(x): os._exit(0)",
        """
        try:
            double(2)
        except:
            pass
        """,
    ),
    _forgery(
        "exits in a test that forgives exceptions",
        "def double(x): raise SystemExit(0)",
        """
        try:
            double(2)
        except Exception:
            pass
        """,
    ),
    _forgery(
        "says that it passed",
        """
        print("PASSED", {"passed": True}, flush=True)
        def double(x): return 5
        """,
    ),
    _forgery(
        "writes a verdict to every open file",
        r"""
        import os
        for number in range(64):
            try:
                os.write(number, b'{"confined": true}\n{"passed": true, "explanation": ""}\n')
            except OSError:
                pass
        """,
    ),
    _forgery(
        "sends answers that nobody asked for",
        r"""
        import os
        for number in range(64):
            try:
                os.write(number, b'{"value": null}\n{"value": true}\n' * 100)
            except OSError:
                pass
        """,
    ),
    _forgery(
        "takes assert and comparison apart",
        """
        import builtins, operator
        builtins.AssertionError = builtins.BaseException = SystemExit
        operator.eq = lambda a, b: True
        builtins.__build_class__ = None
        def double(x): return 5
        """,
    ),
    _forgery(
        "equals everything",
        """
        class All:
            def __eq__(self, other): return True
        def double(x): return All()
        """,
    ),
    _forgery(
        "is a number that equals everything",
        """
        class All(int):
            def __eq__(self, other): return True
            __hash__ = None
        def double(x): return All(5)
        """,
    ),
    _forgery(
        "claims to be a number",
        """
        class All:
            __class__ = int
            def __eq__(self, other): return True
        def double(x): return All()
        """,
    ),
    _forgery(
        "replaces built-in functions",
        """
        def abs(x): return 0
        def double(x): return 5
        """,
        "assert abs(double(2) - 4) < 1",
    ),
    _forgery(
        "brings its own tests",
        """
        def check(candidate): pass
        def double(x): return 5
        """,
        """
        def check(candidate):
            assert candidate(2) == 4
        check(double)
        """,
    ),
    _forgery(
        "brings its own module",
        """
        import sys
        class math:
            floor = staticmethod(lambda x: 4)
        sys.modules["math"] = math
        def double(x): return 5.0
        """,
        """
        import math
        assert math.floor(double(2)) == 4
        """,
    ),
    _forgery(
        "ends the loop of the tests",
        "def double(x): raise StopIteration",
        "assert all(map(double, [2, 3]))",
    ),
    _forgery(
        "ends the loop of the tests by a class of its own",
        """
        class Stop(StopIteration): pass
        def double(x): raise Stop
        """,
        "assert list(map(double, [2])) == []",
    ),
    _forgery(
        "answers from atexit",
        """
        import atexit, os
        atexit.register(os._exit, 0)
        def double(x): return 5
        """,
    ),
    _forgery(
        "traces the harness",
        """
        import sys
        def tracer(frame, event, arg):
            for name in list(frame.f_locals):
                frame.f_locals[name] = True
            return tracer
        sys.settrace(tracer)
        frame = sys._getframe()
        while frame:
            frame.f_trace = tracer
            frame = frame.f_back
        def double(x): return 5
        """,
    ),
    _forgery(
        "rewrites the harness that it finds in memory",
        """
        import gc, sys
        for thing in gc.get_objects():
            if type(thing).__name__ in ("Candidate", "Pipe"):
                type(thing).send = lambda self, message: None
        for name, module in list(sys.modules.items()):
            if "sandbox" in name:
                for key in list(vars(module)):
                    setattr(module, key, lambda *a, **k: True)
        def double(x): return 5
        """,
        limits=SHORT,
    ),
    _forgery(
        "sends a handle of nothing",
        """
        import gc
        harness = next(o for o in gc.get_objects() if type(o).__name__ == "Candidate")
        harness._encoded = lambda value: {"handle": 10**9}
        def double(x): return 5
        """,
    ),
    _forgery("answers too much", "def double(x): return 'x' * 10**8"),
    _forgery(
        "answers too deep",
        """
        def double(x):
            value = []
            for _ in range(10**5):
                value = [value]
            return value
        """,
    ),
    _forgery(
        "answers without end",
        """
        def double(x):
            while True:
                yield 4
        """,
        "assert list(double(2)) == [4]",
        SHORT,
    ),
    _forgery("never answers", "while True: pass", limits=SHORT),
    _forgery("sleeps", "import time\ntime.sleep(3600)", limits=SHORT),
    _forgery(
        "overflows the stack",
        """
        import sys
        sys.setrecursionlimit(10**9)
        def double(x): return double(x)
        """,
        limits=SHORT,
    ),
    _forgery("crashes", "import ctypes\nctypes.string_at(0)"),
    _forgery("takes all memory", "held = [bytearray(2**20) for _ in range(10**6)]"),
    _forgery("is no program", "def double(x: return"),
    _forgery("holds a null byte", "x = '\0'"),
    _forgery(
        "multiplies",
        """
        import os
        while True:
            os.fork()
        """,
    ),
    _forgery(
        "starts threads without end",
        """
        import threading, time
        while True:
            threading.Thread(target=time.sleep, args=(60,)).start()
        """,
    ),
)
"""Programs that never double anything: none may pass, and none may disturb the runner."""

BREAKOUTS = (
    _refused("a socket", "socket.socket()"),
    _refused("a Unix socket", "socket.socket(socket.AF_UNIX)"),
    _refused("a socket pair", "socket.socketpair()"),
    _refused("fork", "os.fork()"),
    _refused("a subprocess", "subprocess.run(['/bin/true'])"),
    _refused("exec", "os.execv('/bin/true', ['true'])"),
    _refused("posix_spawn", "os.posix_spawn('/bin/true', ['true'], {})"),
    _refused("a shell", "shell('true')"),
    _refused("a signal to the runner", "os.kill(runner, 9)"),
    _refused("a signal to all", "os.kill(-1, 9)"),
    _refused("a signal to its group", "os.killpg(0, 9)"),
    _refused("a signal to the runner from a file", "fcntl.fcntl(0, fcntl.F_SETOWN, runner)"),
    _refused("a signal to the runner by a thread's id", "fcntl.fcntl(0, 15, struct.pack('ii', 1, runner))"),
    _refused("a signal from a file, by a wide number", "call(72, 25, 0, 2**32 + fcntl.F_SETOWN, runner)"),
    _refused("another signal from a file", "fcntl.fcntl(0, 10, 9)"),
    _refused("signals from a file", "fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)"),
    _refused("signals from a file by ioctl", "fcntl.ioctl(0, 0x5452, struct.pack('i', 1))"),
    _refused("the owner of a file by ioctl", "fcntl.ioctl(0, 0x8901, struct.pack('i', runner))"),
    _refused(
        "signals from a folder", "fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), fcntl.F_NOTIFY, 1)"
    ),
    _refused("a larger pipe", "fcntl.fcntl(os.pipe()[0], 1031, 2**20)"),
    _refused("a signal by prctl", "call(157, 167, 1, 9, 0, 0, 0)"),
    _refused("a signal by a timer", "call(222, 107, 0, 0, ctypes.create_string_buffer(8))"),
    _refused("a file of the system", "open('/etc/passwd').read()"),
    _refused("the root folder", "os.listdir('/')"),
    _refused("its own harness", "open(sys.modules['evaljob_runner.sandbox.candidate'].__file__).read()"),
    _refused("the runner's code", "import evaljob_runner.samples"),
    _refused("the runner's packages", "import pydantic"),
    _refused("the runner's environment", "open(f'/proc/{runner}/environ').read()"),
    _refused("the runner's command line", "open(f'/proc/{runner}/cmdline').read()"),
    _refused("the runner's memory", "open(f'/proc/{runner}/mem', 'rb')"),
    _refused("the runner's files", "os.listdir(f'/proc/{runner}/fd')"),
    _refused("its own memory as a file", "open('/proc/self/mem', 'r+b')"),
    _refused("a list of processes", "os.listdir('/proc')"),
    _refused("a new file", "open('/tmp/x', 'w')"),
    _refused("a new file in shared memory", "open('/dev/shm/x', 'w')"),
    _refused("a new file where it is", "open('x', 'w')"),
    _refused("a file without a name", "os.memfd_create('x')"),
    _refused("a folder", "os.mkdir('/tmp/x')"),
    _refused("a link", "os.symlink('/etc', '/tmp/x')"),
    _refused("removing a file", "os.unlink('/tmp/x')"),
    _refused("another working folder", "os.chdir('/tmp')"),
    _refused("more memory than its limit", "bytearray(2**32)"),
    _refused("a higher limit", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    _refused("more open files than its limit", "held = [open(os.devnull) for _ in range(100)]"),
    _refused("the runner's limits", "resource.prlimit(runner, resource.RLIMIT_CPU)"),
    _refused("the runner's priority", "os.setpriority(os.PRIO_PROCESS, runner, 19)"),
    _refused("ptrace", "call(101, 117, 16, runner, 0, 0)"),
    _refused("process_vm_readv", "call(310, 270, runner, 0, 0, 0, 0, 0)"),
    _refused("pidfd_open", "call(434, 434, runner, 0)"),
    _refused("io_uring", "call(425, 425, 8, ctypes.create_string_buffer(120))"),
    _refused("bpf", "call(321, 280, 0, 0, 0)"),
    _refused("a user namespace", "call(272, 97, 0x10000000)"),
    _refused("clone without a thread", "call(56, 220, 17, 0, 0, 0, 0)"),
    _refused("clone3", "call(435, 435, 0, 0)"),
    _refused("a call by its number of x32", "call(0x40000000 + 41, 0x40000000 + 198, 2, 1, 0)"),
    _refused("being traceable again", "call(157, 167, 4, 1, 0, 0, 0)"),
    _honest(
        "no environment",
        """
        import os
        def environment(): return dict(os.environ)
        """,
        "assert set(environment()) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, environment()",
    ),
    _honest(
        "no open files but its five",
        """
        import os
        def is_open(number):
            try:
                os.fstat(number)
            except OSError:
                return False
            return True
        def count(): return sum(map(is_open, range(64)))
        """,
        "assert count() == 5, count()",
    ),
)
"""What a process without privileges could still do, one by one: each must be refused."""

HONEST = (
    _honest("a function", "def double(x): return 2 * x"),
    _honest(
        "a change in place",
        """
        def double(numbers):
            for i, x in enumerate(numbers):
                numbers[i] = 2 * x
        """,
        """
        numbers = [1, 2]
        double(numbers)
        assert numbers == [2, 4]
        """,
    ),
    _honest(
        "plain types",
        "def same(x): return x",
        r"""
        import datetime, decimal, fractions
        values = [None, True, 2**80, -1.5, "é\n\ud800", b"\x00", bytearray(b"a"), (1, (2,)), {1, 2}, frozenset("a")]
        values += [{(1, 2): [3]}, {"int": 1}, 1j, range(3), float("inf"), decimal.Decimal("1.10")]
        values += [fractions.Fraction(1, 3), datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3)]
        values += [datetime.time(4), datetime.timedelta(1, 2), [[]], ""]
        for value in values:
            assert same(value) == value and type(same(value)) is type(value), value
        """,
    ),
    _honest(
        "subclasses of plain types",
        """
        from collections import Counter, OrderedDict, namedtuple
        from enum import IntEnum
        Point, Color = namedtuple("Point", "x y"), IntEnum("Color", "RED")
        def make(): return [Counter("aab"), OrderedDict(a=1), Point(1, 2), Color.RED]
        """,
        "assert make() == [{'a': 2, 'b': 1}, {'a': 1}, (1, 2), 1]",
    ),
    _honest(
        "classes",
        """
        class Node:
            def __init__(self, value): self.value, self.next, self.seen = value, None, {}
            def __eq__(self, other): return self.value == other.value
            def __len__(self): return 7
            def __getitem__(self, key): return self.seen[key]
            def __setitem__(self, key, value): self.seen[key] = value
            def __str__(self): return "node"
        def total(node): return node.value + total(node.next) if node else 0
        """,
        """
        node = Node(1)
        node.next = Node(2)
        node["a"] = 5
        assert total(node) == 3 and node.next.value == 2 and node["a"] == 5
        assert node == Node(1) and node != Node(2) and node != 1
        assert len(node) == 7 and str(node) == "node" and node in {node} and total(None) == 0
        """,
    ),
    _honest(
        "generators",
        "def count(n): yield from range(n)",
        "assert list(count(3)) == [0, 1, 2] and next(count(2)) == 0 and 3 in count(4)",
    ),
    _honest(
        "exceptions",
        """
        class Own(ValueError): pass
        def fail(kind): raise {"v": ValueError, "o": Own, "k": KeyError}[kind]("why")
        """,
        """
        for kind, expected in [("v", ValueError), ("o", ValueError), ("k", KeyError)]:
            try:
                fail(kind)
            except expected as error:
                assert "why" in str(error)
            else:
                assert False
        """,
    ),
    _honest(
        "helpers, constants and imports of the program",
        """
        import math, os.path
        LIMIT = 10
        def area(r): return math.pi * r * r
        def double(x): return 2 * x
        """,
        "assert math.isclose(area(double(1)), 4 * math.pi) and LIMIT == 10 and os.path.sep == '/'",
    ),
    _honest(
        "threads, hashes, databases, time zones",
        """
        import hashlib, sqlite3, threading, zoneinfo
        def work():
            found = []
            thread = threading.Thread(target=lambda: found.append(hashlib.sha256(b"").hexdigest()[:4]))
            thread.start()
            thread.join()
            return found + sqlite3.connect(":memory:").execute("select 1").fetchall()
        """,
        "assert work() == ['e3b0', (1,)]",
    ),
    _honest(
        "what looks its module up",
        """
        from __future__ import annotations
        import enum, functools, sys, typing
        from dataclasses import dataclass, field
        @dataclass(order=True)
        class Item:
            value: int
            tags: typing.List[str] = field(default_factory=list)
        class Color(enum.Enum):
            RED = 1
        @functools.lru_cache(None)
        def depth(n: int) -> int: return 0 if n == 0 else 1 + depth(n - 1)
        def work(): return [max(Item(1), Item(2)).value, Color.RED.value, depth(300), len(sys.argv)]
        def hints(): return [t.__name__ for t in typing.get_type_hints(depth).values()]
        """,
        "assert work() == [2, 1, 300, 1] and hints() == ['int', 'int']",
    ),
    _honest(
        "a main block",
        """
        def double(x): return 2 * x
        if __name__ == "__main__":
            input()
        """,
    ),
    _honest(
        "much output",
        """
        import sys
        def double(x):
            print("x" * 10**7)
            sys.stderr.write("y" * 10**7)
            return 2 * x
        """,
    ),
    _honest(
        "the null device",
        """
        import contextlib, io, os
        def double(x):
            with open(os.devnull, "w") as file, contextlib.redirect_stdout(io.StringIO()):
                print("x", file=file)
            return 2 * x
        """,
    ),
    _honest(
        "copies of a file descriptor",
        """
        import fcntl, os
        def double(x):
            copy = fcntl.fcntl(os.dup(0), fcntl.F_DUPFD, 20)
            os.set_inheritable(copy, True)
            with os.fdopen(copy) as file:
                return 2 * x if os.get_blocking(copy) and file.read() == "" else None
        """,
    ),
    _honest(
        "an order of sets that is always the same",
        "def first(): return list({'a', 'b', 'c', 'd', 'e', 'f'})",
        "assert first() == list({'a', 'b', 'c', 'd', 'e', 'f'})",
    ),
)
"""What tests and programs usually do: all of it must work across the two processes."""

ALL = (*HONEST, *FORGERIES, *BREAKOUTS)


def verdicts() -> Iterator[tuple[Attack, Verdict]]:
    """All attacks with their verdicts, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield from zip(ALL, pool.map(lambda a: execute(a.program, a.checks, a.limits), ALL), strict=True)


def main() -> None:
    """Run everything and print what went otherwise, with what this place offers."""
    otherwise = {
        attack.name: verdict.explanation or "passed"
        for attack, verdict in verdicts()
        if verdict.passed is not attack.passes
    }
    facts = {"landlock": kernel.landlock_abi(), "seccomp": kernel.has_seccomp_filter(), "uid": os.getuid()}
    print(json.dumps({"attacks": len(ALL), "otherwise": otherwise, **facts}))
    sys.exit(bool(otherwise))


if __name__ == "__main__":
    main()
