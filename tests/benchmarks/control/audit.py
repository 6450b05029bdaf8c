"""Requests by user, counted by the API server itself."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_READS = ("get", "list")
_STREAMS = ("watch",)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one user has asked for in some time."""

    writes: int
    reads: int
    by_kind: dict[str, int]
    """Writes and reads by verb and resource."""


class AuditLog:
    """The log of a plane, read from where it was read last.

    Args:
        path: the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def take(self, user: str) -> Counts:
        """What a user has asked for since the last call."""
        kinds = Counter(f"{verb} {resource}" for verb, resource in self._requests(user))
        reads = sum(n for kind, n in kinds.items() if kind.split()[0] in _READS)
        streams = sum(n for kind, n in kinds.items() if kind.split()[0] in _STREAMS)
        return Counts(kinds.total() - reads - streams, reads, dict(kinds.most_common()))

    def _requests(self, user: str) -> Iterator[tuple[str, str]]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = json.loads(line)
                if event["user"]["username"] == user:
                    ref = event.get("objectRef") or {}
                    name = ref.get("resource", event["requestURI"].split("?")[0])
                    yield event["verb"], name + (f"/{ref['subresource']}" if "subresource" in ref else "")
