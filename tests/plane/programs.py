"""Programs as child processes: started, watched, ended by their own id."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


class Program:
    """One child process and its log.

    Args:
        argv: program and arguments.
        log: the file that gets its output; runs are appended.
        env: variables added to this process' own.
    """

    def __init__(self, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._argv = argv
        self._env = {**os.environ, **(env or {})}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """`kill -9`, as a node that loses power."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float = 10) -> None:
        """Ask it to end, and insist after a while."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory now, or the most there ever was."""
    key = "VmHWM:" if peak else "VmRSS:"
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(key))


def wait_until_listening(program: Program, port: int, seconds: float) -> None:
    """Wait for a program's port.

    Raises:
        RuntimeError: it ended, or does not listen in time; with the end of its log.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and program.running:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"port {port} of {program.log.stem}: nobody listens\n{program.tail()}")
