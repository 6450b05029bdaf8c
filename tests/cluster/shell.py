"""Run commands, and say what is going on and how long it took."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class ClusterError(RuntimeError):
    """What the user can mend; the message says how."""


class CommandError(ClusterError):
    """A command ended with an error; the message holds the end of its output."""


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command and return its standard output.

    Args:
        command: The program and its arguments.
        env: Variables added to this process' own.
        cwd: The folder to run it in.
        stdin: Text for its standard input.
        timeout: Seconds until it is killed.

    Raises:
        CommandError: If it is missing, takes too long or ends with an error.
    """
    argv = [str(part) for part in command]
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as missing:
        raise CommandError(f"{argv[0]} is not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise CommandError(f"{' '.join(argv[:4])} ... took more than {timeout:g} s") from late
    if done.returncode:
        raise CommandError(_failure(argv, done.returncode, done.stderr or done.stdout))
    return done.stdout


def works(*command: str | Path, env: Mapping[str, str] | None = None, timeout: float | None = None) -> bool:
    """Whether a command ends without an error."""
    with contextlib.suppress(CommandError):
        run(*command, env=env, timeout=timeout)
        return True
    return False


def pipe(source: list[str], sink: list[str], *, stdout: Path | None = None) -> None:
    """Run `source | sink`, where the sink may write a file.

    Raises:
        CommandError: If either ends with an error.
    """
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(stdout.open("wb")) if stdout else subprocess.DEVNULL
        writer = stack.enter_context(subprocess.Popen(source, stdout=subprocess.PIPE))
        reader = stack.enter_context(subprocess.Popen(sink, stdin=writer.stdout, stdout=target))
        if writer.stdout:
            writer.stdout.close()  # so that the source sees a sink that died
    for argv, process in ((source, writer), (sink, reader)):
        if process.returncode:
            raise CommandError(_failure(argv, process.returncode, ""))


def _failure(argv: list[str], code: int, output: str) -> str:
    tail = "\n".join(output.strip().splitlines()[-15:])
    return f"`{' '.join(argv)[:300]}` ended with {code}" + (f":\n{tail}" if tail else "")


def say(text: str) -> None:
    """One line of progress. Standard output is left to results."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Timeline:
    """Seconds by stage, in the order they ended."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> float:
        """Seconds so far by the clock: less than the sum, where stages ran side by side."""
        return round(time.monotonic() - self.started, 1)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Say that a stage begins, and how long it took."""
        say(f"==> {name} ...")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        say(f"    {name}: {self.seconds[name]:.1f} s")
