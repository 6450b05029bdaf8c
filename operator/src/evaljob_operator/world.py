"""What every reconciler shares, and how often things may happen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from evaljob.planning import Settings
from evaljob.task import Task
from evaljob_operator.api import Api
from evaljob_operator.informer import Informers
from evaljob_operator.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Timing:
    """Intervals in seconds."""

    between_passes: float = 1.0
    between_statuses: float = 10.0
    """Unless a condition or the state has changed."""
    between_summaries: float = 30.0
    """While running."""
    between_pending_lists: float = 15.0
    waiting: float = 10.0
    """A Job without a running pod for this long has its pending pods looked at."""
    resync: float = 300.0
    retry: float = 2.0
    """While a predecessor's objects are on their way out."""
    backoff: tuple[float, float] = (1.0, 60.0)
    between_workload_lists: float = 60.0


@dataclass(frozen=True, slots=True)
class World:
    """The cluster, the settings, the clocks and the dice."""

    api: Api
    informers: Mapping[str, Informers]
    """By namespace."""
    catalogue: Mapping[str, Task]
    settings: Settings
    now: Callable[[], datetime]
    """The API server's time."""
    monotonic: Callable[[], float]
    random: Callable[[], float]
    """0 to 1, for jitter."""
    timing: Timing = Timing()
    kueue: bool = False
    """Whether Kueue's Workloads may be read."""
    metrics: Metrics = field(default_factory=Metrics)
