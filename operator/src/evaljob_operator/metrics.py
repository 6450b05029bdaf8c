"""What the operator measures about itself, for Prometheus. Labels hold only names from closed lists."""

from collections import Counter as Counted
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from evaljob.decide import SUCCEEDED
from evaljob.names import Reason
from evaljob.result import Seconds
from evaljob.status import PartitionCounts

_PASS_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
_STATES = ("pending", "running", "succeeded", "failed")
_OUTCOMES = frozenset({SUCCEEDED, *(r.value for r in Reason)})


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._passes = Histogram(
            "evaljob_reconcile_seconds",
            "Time of one pass over one EvalJob, requests included.",
            registry=self.registry,
            buckets=_PASS_SECONDS,
        )
        self._requests = Counter(
            "evaljob_api_requests",
            "Requests to the API server; code 0: no answer.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._jobs = Counter("evaljob_jobs_created", "Jobs created.", registry=self.registry)
        self._ends = Counter(
            "evaljob_partitions_recorded",
            "Partitions whose outcome was put on record: Succeeded, or why not.",
            ("outcome",),
            registry=self.registry,
        )

        self._gpus = Counter(
            "evaljob_gpu_seconds",
            "GPUs times seconds of the attempts that succeeded, by phase.",
            ("phase",),
            registry=self.registry,
        )

    def passed(self, seconds: float) -> None:
        """A pass over an EvalJob took so long."""
        self._passes.observe(seconds)

    def requested(self, method: str, path: str, code: int) -> None:
        """The API server has answered a request; may be called from any thread."""
        verb, resource = verb_and_resource(method, path)
        self._requests.labels(verb, resource, str(code)).inc()

    def created(self) -> None:
        """A Job was made."""
        self._jobs.inc()

    def recorded(self, outcome: str) -> None:
        """`Succeeded`, or the reason of a failure, was written onto a Job."""
        # A runner may report any word; each would be a time series for ever.
        self._ends.labels(outcome if outcome in _OUTCOMES else "Other").inc()

    def computed(self, gpus: int, seconds: Seconds) -> None:
        """An attempt with so many GPUs has succeeded, and its time went there."""
        for phase, taken in seconds.model_dump().items():
            self._gpus.labels(phase).inc(gpus * taken)

    def watch(
        self,
        partitions: Callable[[], Iterable[tuple[str, PartitionCounts]]],
        behind: Callable[[], Iterable[str]],
        silences: Callable[[], Iterable[tuple[str, str, float]]],
    ) -> None:
        """Also show, whenever asked, what these say then.

        Args:
            partitions: namespace and counts of each unfinished EvalJob.
            behind: namespace of each EvalJob with a change that no pass has looked at.
            silences: namespace, resource and seconds since a watch was last heard of.
        """
        self.registry.register(_Now(partitions, behind, silences))

    def serve(self, port: int) -> None:
        """Answer GET /metrics on a port, from a thread of its own, until the process ends.

        Raises:
            OSError: when the port is taken.
        """
        start_http_server(port, registry=self.registry)


class _Now(Collector):
    """Gauges that are computed when they are asked for."""

    def __init__(
        self,
        partitions: Callable[[], Iterable[tuple[str, PartitionCounts]]],
        behind: Callable[[], Iterable[str]],
        silences: Callable[[], Iterable[tuple[str, str, float]]],
    ) -> None:
        self._partitions = partitions
        self._behind = behind
        self._silences = silences

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as of now."""
        found = list(self._partitions())
        shown = GaugeMetricFamily(
            "evaljob_partitions", "Partitions of unfinished EvalJobs.", labels=("namespace", "state")
        )
        for namespace in sorted({ns for ns, _ in found}):
            for state in _STATES:
                total = sum(getattr(counts, state) for ns, counts in found if ns == namespace)
                shown.add_metric((namespace, state), total)
        yield shown
        queue = GaugeMetricFamily(
            "evaljob_queue_depth",
            "EvalJobs with a change that no pass has looked at yet.",
            labels=("namespace",),
        )
        for namespace, count in Counted(self._behind()).items():
            queue.add_metric((namespace,), count)
        yield queue
        lag = GaugeMetricFamily(
            "evaljob_watch_silence_seconds",
            "Since a watch was last heard of; bookmarks come every 60 s.",
            labels=("namespace", "resource"),
        )
        for namespace, resource, seconds in self._silences():
            lag.add_metric((namespace, resource), seconds)
        yield lag


def verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """The API's own words for a request, as in RBAC: `list` and `jobs`, `patch` and `evaljobs/status`."""
    parts = path.split("/namespaces/", 1)[-1].split("/")[1:] if "/namespaces/" in path else []
    resource = "/".join(parts[::2]) or "discovery"
    named = len(parts) > 1
    verbs = {"GET": "get" if named or not parts else "list", "POST": "create"}
    verbs["DELETE"] = "delete" if named else "deletecollection"
    return verbs.get(method, method.lower()), resource
