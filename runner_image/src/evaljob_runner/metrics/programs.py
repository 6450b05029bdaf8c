"""Running what a model wrote against a dataset's tests (docs/code-execution.md)."""

from collections.abc import Mapping

from evaljob.names import Reason
from evaljob.scoring import ExecutionLimits, Metric
from evaljob_runner import templates
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Columns, Definition, Verdict, as_text
from evaljob_runner.sandbox import room
from evaljob_runner.sandbox.probe import UnavailableError, probe
from evaljob_runner.sandbox.run import BusyError, Limits, SandboxError, UnusableTestsError, execute

ANSWER = "answer"
"""What the template `program` calls the extracted answer."""


class Execution:
    """A metric that executes, ready to do so.

    Args:
        metric: with `program` and `tests`.

    Raises:
        Fatal: BadConfiguration, for a bad template.
    """

    def __init__(self, metric: Metric) -> None:
        limits = metric.limits or ExecutionLimits()
        self._key = metric.key
        self._program = templates.text(f"metrics.{metric.key}.program", metric.program or "")
        self._tests = templates.text(f"metrics.{metric.key}.tests", metric.tests or "")
        if ANSWER in self._tests.variables:
            raise Fatal(Reason.BAD_CONFIGURATION, f"metrics: {metric.key}: tests must not see the answer")
        self.columns = (self._program.variables - {ANSWER}) | self._tests.variables
        self.memory = limits.memory_bytes
        self._limits = Limits(limits.wall_seconds, limits.memory_bytes)

    def confine(self) -> str:
        """By what programs are confined here.

        Raises:
            Fatal: SandboxUnavailable, or BadConfiguration where a program could make the kernel end the container.
            Retry: when the machine is too busy to tell.
        """
        left, needed = room.free(), room.PROCESSES * self.memory
        if left < needed:
            raise Fatal(
                Reason.BAD_CONFIGURATION,
                f"metrics: {self._key}: limits.memory is {self.memory // 2**20}Mi for each of two processes, and "
                f"{left // 2**20}Mi are left: lower it, or raise runner.resources.limits.memory",
            )
        try:
            return probe()
        except UnavailableError as error:
            raise Fatal(Reason.SANDBOX_UNAVAILABLE, f"metrics: {self._key}: {error}") from error
        except BusyError as error:
            raise Retry(Reason.DEPENDENCY_UNAVAILABLE, f"metrics: {self._key}: {error}") from error

    def check(self, columns: Columns, where: str) -> None:
        """Refuse a document that does not fit the templates.

        Raises:
            Fatal: BadData.
        """
        self._rendered("", columns, where)

    def verdict(self, answer: Json, columns: Columns, where: str) -> Verdict:
        """Run a program and its tests.

        Args:
            answer: what the model wrote.
            columns: of the document.
            where: names the document in messages.

        Raises:
            Fatal: BadData, for tests that can judge no program.
            Retry: when the processes cannot be started.
        """
        program, tests = self._rendered(as_text(answer), columns, where)
        try:
            found = execute(program, tests, self._limits)
        except UnusableTestsError as error:
            raise Fatal(Reason.BAD_DATA, f"{self._tests.name}: {error} ({where})") from error
        except SandboxError as error:
            raise Retry(Reason.DEPENDENCY_UNAVAILABLE, str(error)) from error
        return Verdict(float(found.passed), found.explanation or None)

    def _rendered(self, answer: str, columns: Columns, where: str) -> tuple[str, str]:
        return (
            self._program.render({**columns, ANSWER: answer}, where),
            self._tests.render(columns, where),
        )


METRICS: Mapping[str, Definition] = {"code_exec": Definition(execute=Execution)}
