"""What becomes of the pods of the scenarios, told by the names of their datasets."""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Callable

from evaljob import framing, result
from evaljob.plan import Partition
from tests.plane.client import Json
from tests.plane.kubelet import Fate, at_once, partition_of, scores

SLOW = 4.0
"""Seconds that a `slow` partition runs: time to do something to it."""


def framed(payload: bytes, kind: str = "j") -> str:
    """A message with a right length and checksum around anything."""
    return f"evaljob/1 {kind} {len(payload)} {zlib.crc32(payload):08x} {payload.decode('ascii')}"


def garbage() -> str:
    """What a crash leaves."""
    return "Segmentation fault \x1b[31m (core dumped)"


def nan(pod: Json) -> str:
    """A result with a number that is none."""
    found = scores(partition_of(pod), pod["metadata"]["uid"]).model_dump(mode="json")
    found["seconds"]["infer"] = float("nan")
    return framed(json.dumps(found).encode())


def wrong(pod: Json) -> str:
    """A valid result of another partition."""
    other = Partition(model="m0", dataset="other", shard=0, shards=1)
    return framing.encode(scores(other, pod["metadata"]["uid"]))


def bomb() -> str:
    """Two megabytes of zeros in three kilobytes."""
    return framed(base64.b85encode(zlib.compress(b"\0" * (1 << 21), 9)), "z")


class Fates:
    """Fates by dataset; remembers how many pods each Job has had."""

    def __init__(self) -> None:
        self._attempts: Counter[str] = Counter()

    def __call__(self, pod: Json) -> Fate:
        """The fate of one pod."""
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        self._attempts[job] += 1
        kind = partition_of(pod).dataset.rstrip("0123456789")
        return self._kinds().get(kind, at_once)(pod)

    def _kinds(self) -> dict[str, Callable[[Json], Fate]]:
        return {
            "slow": lambda pod: self._good(pod, SLOW),
            "long": lambda pod: self._good(pod, 4 * SLOW),
            "endless": lambda pod: self._good(pod, 3600.0),
            "silent": lambda _: Fate(0.05, 0.1, 0, ""),
            "garbage": lambda _: Fate(0.05, 0.1, 0, garbage()),
            "nan": lambda pod: Fate(0.05, 0.1, 0, nan(pod)),
            "bomb": lambda _: Fate(0.05, 0.1, 0, bomb()),
            "wrong": lambda pod: Fate(0.05, 0.1, 0, wrong(pod)),
            "oom": lambda _: Fate(0.05, 0.1, 137, "", reason="OOMKilled"),
            "evicted": self._evicted,
            "mended": self._mended,
        }

    def _good(self, pod: Json, seconds: float) -> Fate:
        return Fate(0.05, seconds, 0, framing.encode(scores(partition_of(pod), pod["metadata"]["uid"])))

    def _evicted(self, pod: Json) -> Fate:
        """The first pod is drained from its node, the second one succeeds."""
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        if self._attempts[job] == 1:
            return Fate(0.05, 0.1, 143, "", reason="Error", disrupted=True)
        return at_once(pod)

    def _mended(self, pod: Json) -> Fate:
        """The first pod fails for good; by the time of the next one somebody has mended what was wrong."""
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        if self._attempts[job] > 1:
            return at_once(pod)
        failure = result.failure("BadData", "line 3 is broken", pod["metadata"]["uid"])
        return Fate(0.05, 0.1, 78, framing.encode(failure))
