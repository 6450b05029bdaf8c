"""kubectl for tests: typed, and unable to reach any cluster but those that tests make."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.shell import CommandError, run

ALLOWED = frozenset({"kind-evaljob-e2e", "kind-evaljob-quickstart", "evaljob-bare"})
Manifest = dict[str, Any]

__all__ = ["ALLOWED", "CommandError", "ForeignContextError", "Kubectl", "Manifest"]


class ForeignContextError(Exception):
    """A context that is not on the allow-list: tests delete things."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One context of one kubeconfig.

    Args:
        context: must be on the allow-list.
        kubeconfig: the file that holds it; None, the user's own, only for a context that the user names.
        path: PATH on which kubectl is found.
        named: the user has named this context for these tests.

    Raises:
        ForeignContextError: for any other context.
    """

    context: str
    kubeconfig: Path | None
    path: str
    named: bool = False

    def __post_init__(self) -> None:
        if self.context not in ALLOWED and not self.named:
            raise ForeignContextError(
                f"context {self.context!r}: tests use only {', '.join(sorted(ALLOWED))}"
            )

    def run(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl; its standard output.

        Raises:
            CommandError: with what kubectl said.
        """
        file = (f"--kubeconfig={self.kubeconfig}",) if self.kubeconfig else ()
        where = (*file, f"--context={self.context}")
        return run("kubectl", *where, *args, env={"PATH": self.path}, stdin=stdin, timeout=timeout)

    def apply(self, manifest: Manifest, *args: str) -> str:
        """Apply one object with strict validation."""
        return self.run("apply", "--validate=strict", "-f", "-", *args, stdin=json.dumps(manifest))

    def get_json(self, *args: str) -> Any:  # noqa: ANN401 - JSON
        """The decoded answer of a command that understands `-o json`."""
        return json.loads(self.run(*args, "-o", "json"))

    def wait(self, what: str, condition: str, *args: str, seconds: int = 60) -> None:
        """Block until `what` (`kind/name`) has the condition."""
        wait = ("wait", f"--for={condition}", what, f"--timeout={seconds}s", *args)
        try:
            self.run(*wait, timeout=seconds + 10)
        except CommandError as error:
            # kubectl gives up on an object so new that it has no conditions at all.
            if "accessor error" not in str(error):
                raise
            time.sleep(0.5)
            self.run(*wait, timeout=seconds + 10)
