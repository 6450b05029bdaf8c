"""How a partition may end without a result. The message names the field, the value and the fix."""

from evaljob.names import Reason


class Stop(Exception):  # noqa: N818 - an end that may be nobody's error
    """An end without a result.

    Args:
        reason: what went wrong, for scripts.
        message: what went wrong, for people.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fatal(Stop):
    """Trying again cannot help: exit code 78."""


class Retry(Stop):
    """Another attempt can go on from here: exit code 75."""
