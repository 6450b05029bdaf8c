"""What local engines share about a checkpoint."""

from collections.abc import Collection, Iterable

from evaljob.names import Reason
from evaljob_runner.errors import Fatal


def all_ends(*named: int | Iterable[int] | None) -> list[int]:
    """Every token that a checkpoint calls an end, from the places where it may say so."""
    found: set[int] = set()
    for ids in named:
        found |= set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
    return sorted(found)


def refuse_missing(names: Collection[str]) -> None:
    """Refuse weights that an engine would fill with whatever is in memory, and only warn.

    Raises:
        Fatal: BadConfiguration.
    """
    if names:
        example = min(names)
        raise Fatal(
            Reason.BAD_CONFIGURATION, f"the checkpoint lacks {len(names)} weights, for example {example}"
        )
