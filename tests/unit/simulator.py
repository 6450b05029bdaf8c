"""A cluster small enough for property tests: API server, Job controller, kubelet and runner against a clock.

Written from what Kubernetes 1.31+ does, in the order in which it does it: a Job's status lags behind its pods,
an ended pod is first uncounted, then counted, then the Job ends; a resumed Job shows its old start time for a
while; an evicted pod is replaced once it is gone; a deadline does not run while a Job is suspended.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from evaljob import framing, result
from evaljob.names import LABEL_QUEUE
from evaljob.plan import Partition, Plan
from tests.unit.builders import UID, later, scored

Object = dict[str, Any]
NEVER = float("inf")
GRACE = 30.0


@cache
def stamp(seconds: float) -> str:
    """A time as the API writes it: whole seconds."""
    return later(int(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(eq=False)
class Pod:
    uid: str
    fate: str
    created: float
    starts: float
    ends: float
    phase: str = "Pending"
    ready: bool = False
    gone_at: float = NEVER
    """Evicted: when it will be gone."""
    blinks_at: float = NEVER
    """When its node stops or starts to answer."""
    terminated: Object | None = None

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def due(self) -> float:
        """When something happens to it next."""
        if self.over:
            return NEVER
        return min(self.gone_at, self.starts if self.phase == "Pending" else min(self.ends, self.blinks_at))

    def to_object(self, job: "Job") -> Object:
        waiting: Object = {}
        conditions: list[Object] = []
        if self.phase == "Pending" and self.fate == "image":
            waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
        if self.phase == "Pending" and self.fate == "giant":
            unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            conditions = [{**unschedulable, "message": "0/3 nodes are available"}]
        state = {"terminated": self.terminated} if self.terminated else {"waiting": waiting}
        return {
            "metadata": {
                "uid": self.uid,
                "name": f"{job.name}-{self.uid}",
                "labels": {"batch.kubernetes.io/controller-uid": job.uid},
                "creationTimestamp": stamp(self.created),
            },
            "status": {
                "phase": self.phase,
                "conditions": conditions,
                "containerStatuses": [{"name": "runner", "state": state}],
            },
        }


@dataclass(eq=False)
class Job:
    name: str
    uid: str
    partition: Partition
    created: float
    pods: list[Pod] = field(default_factory=list)
    suspend: bool = False
    stopped: bool = False
    record: str | None = None
    gone_at: float = NEVER
    """Deleted: when it will be gone."""
    queue: str = ""
    admitted_at: float = NEVER
    """When Kueue will let it run."""
    sync_at: float = 0.0
    not_before: float = 0.0
    """Back-off after a failed pod."""
    # its status, as the controller last wrote it
    started_at: float | None = None
    suspended: bool = False
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    uncounted: list[Pod] = field(default_factory=list)
    counted: list[Pod] = field(default_factory=list)
    finished: str = ""
    reason: str = ""
    finished_at: float = 0.0
    written_at: float | None = None
    version: int = 1

    def status(self) -> Object:
        conditions: list[Object] = [{"type": "Suspended", "status": "True" if self.suspended else "False"}]
        if self.finished:
            end = {"type": self.finished, "status": "True", "reason": self.reason, "message": self.reason}
            conditions.append({**end, "lastTransitionTime": stamp(self.finished_at)})
        uncounted: Object = {"succeeded": [], "failed": []}
        for pod in self.uncounted:
            uncounted[pod.phase.lower()].append(pod.uid)
        status: Object = {
            "conditions": conditions,
            "active": self.active,
            "ready": self.ready,
            "terminating": self.terminating,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "uncountedTerminatedPods": {k: v for k, v in uncounted.items() if v},
        }
        if self.started_at is not None:
            status["startTime"] = stamp(self.started_at)
        return status

    def to_object(self) -> Object:
        meta: Object = {
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "creationTimestamp": stamp(self.created),
            "ownerReferences": [{"uid": UID, "controller": True}],
            "labels": {LABEL_QUEUE: self.queue} if self.queue else {},
        }
        if self.record is not None:
            meta["annotations"] = {"evaljob.dev/result": self.record}
        if self.written_at is not None:
            meta["managedFields"] = [{"subresource": "status", "time": stamp(self.written_at)}]
        if self.gone_at < NEVER:
            meta["deletionTimestamp"] = stamp(self.gone_at)
        return {"metadata": meta, "spec": {"suspend": self.suspend}, "status": self.status()}


class Cluster:
    """The API server and everything behind it.

    Args:
        plan: whose Jobs run here.
        fates: what becomes of the attempts of each partition; the last one repeats.
        rng: start delays, run times, lags.
        queue: a queue of Kueue's, which then says when Jobs run.
    """

    def __init__(
        self, plan: Plan, fates: dict[Partition, tuple[str, ...]], rng: random.Random, queue: str = ""
    ) -> None:
        self.plan, self.fates, self.rng, self.queue = plan, fates, rng, queue
        self.now = 0.0
        self.jobs: dict[str, Job] = {}
        self.deleted_by_hand: set[str] = set()
        self._serial = 0

    # what the operator may do

    def create(self, partition: Partition) -> None:
        name = self.plan.job_name(partition)
        assert name not in self.jobs, "a Job is created only where none is"
        self._serial += 1
        self.jobs[name] = Job(name, f"job-{self._serial}", partition, self.now, queue=self.queue)
        if self.queue:
            self._enqueue(self.jobs[name])
        self._soon(self.jobs[name])

    def patch(self, name: str, uid: str, patch: Object) -> None:
        """A merge patch; a Job made again answers 422, one that has changed 409, one that is gone 404."""
        job = self.jobs.get(name)
        spec, meta = patch.get("spec", {}), patch.get("metadata", {})
        if job is None or job.uid != uid or meta.get("resourceVersion", str(job.version)) != str(job.version):
            return
        job.version += 1
        assert not (job.queue and "suspend" in spec), "spec.suspend is Kueue's"
        job.suspend = spec.get("suspend", job.suspend)
        job.stopped = job.stopped or spec.get("activeDeadlineSeconds") == 1
        job.record = meta.get("annotations", {}).get("evaljob.dev/result", job.record)
        self._soon(job)

    def delete(self, name: str, uid: str, version: str) -> bool:
        """In the background: the Job goes at once, and its pods with it; whether it was that Job, in that version."""
        job = self.jobs.get(name)
        if job is None or job.uid != uid or (version and version != str(job.version)):
            return False
        assert job.record or not job.finished, "a Job that has ended goes without its record"
        job.gone_at = self.now
        return True

    def pods_of(self, name: str) -> list[Object]:
        job = self.jobs.get(name)
        # A lost pod is deleted before anybody looks.
        return [p.to_object(job) for p in job.pods if not (p.over and p.fate == "lost")] if job else []

    # what else happens

    def _enqueue(self, job: Job) -> None:
        job.suspend, job.admitted_at = True, self.now + self.rng.choice([0, 50, 2000])
        job.version += 1

    def delete_by_hand(self, job: Job) -> None:
        self.deleted_by_hand.add(job.name)
        job.gone_at = min(job.gone_at, self.now + self.rng.choice([0, 5, GRACE]))
        job.version += 1

    def disturb(self) -> None:
        """Evict a pod, let its node fall silent for a while, or let Kueue prefer somebody else."""
        running = [(j, p) for j in self.jobs.values() for p in j.pods if p.phase == "Running"]
        if not running:
            return
        job, pod = self.rng.choice(running)
        if job.queue and self.rng.random() < 0.5:
            self._enqueue(job)
        elif self.rng.random() < 0.5:
            pod.gone_at = min(pod.gone_at, self.now + GRACE)
        else:
            pod.blinks_at = self.now
        self._soon(job)

    def next_event(self) -> float:
        return min((e for j in self.jobs.values() for e in self._dues(j)), default=NEVER)

    def advance(self, to: float) -> None:
        """Let everything happen that is due by then, in order."""
        while (due := self.next_event()) <= to:
            self.now = max(self.now, due)
            for job in list(self.jobs.values()):
                self._happen(job)
        self.now = to

    def _dues(self, job: Job) -> Iterator[float]:
        yield job.gone_at
        yield job.sync_at if not job.finished else NEVER
        yield job.admitted_at
        for pod in job.pods:
            yield pod.due()

    def _happen(self, job: Job) -> None:
        if job.gone_at <= self.now:
            del self.jobs[job.name]
            return
        if job.admitted_at <= self.now:
            job.suspend, job.admitted_at = False, NEVER
            job.version += 1
            self._soon(job)
        for pod in list(job.pods):
            if pod.due() <= self.now:
                self._live(job, pod)
        if job.sync_at <= self.now and not job.finished:
            job.sync_at = NEVER
            before = job.status()
            self._sync(job)
            if job.status() != before:
                job.written_at, job.version = self.now, job.version + 1

    def _soon(self, job: Job) -> None:
        job.sync_at = min(job.sync_at, self.now + self.rng.choice([0, 1, 3]))
        job.sync_at = max(job.sync_at, self.now)

    def _live(self, job: Job, pod: Pod) -> None:
        """The kubelet's part."""
        if pod.gone_at <= self.now:
            job.pods.remove(pod)
        elif pod.phase == "Pending":
            pod.phase, pod.ready = "Running", True
            # The kubelet may call a pod unready before it calls it over.
            pod.blinks_at = pod.ends - 2 if self.rng.random() < 0.5 else NEVER
        elif pod.blinks_at <= self.now and pod.ends > self.now:
            pod.ready = not pod.ready
            pod.blinks_at = self.now + 120 if not pod.ready else NEVER
        else:
            self._end(job, pod)
        self._soon(job)

    def _end(self, job: Job, pod: Pod) -> None:
        good = pod.fate in ("ok", "garbage", "lost")
        pod.phase, pod.ready = ("Succeeded" if good else "Failed"), False
        text = {
            "ok": framing.encode(scored(job.partition, attempt=pod.uid)),
            "lost": framing.encode(scored(job.partition, attempt=pod.uid)),
            "garbage": "Segmentation fault",
            "never": framing.encode(result.failure("BadData", "line 3 is broken", pod.uid)),
        }.get(pod.fate, "")
        pod.terminated = {
            "exitCode": {"never": 78, "oom": 137}.get(pod.fate, 0 if good else 1),
            "reason": "OOMKilled" if pod.fate == "oom" else "Completed" if good else "Error",
            "message": text,
            "finishedAt": stamp(self.now),
        }

    def _sync(self, job: Job) -> None:
        """The Job controller's part: one status write."""
        if job.suspend:
            job.pods = [p for p in job.pods if p.over]
            job.suspended, job.active, job.ready, job.terminating = True, 0, 0, 0
            return
        if job.suspended or job.started_at is None:
            job.suspended, job.started_at = False, self.now
        if job.stopped and self.now >= job.started_at + 1:
            job.pods = [p for p in job.pods if p.over]
            self._finish(job, "Failed", "DeadlineExceeded")
            return
        fresh = [p for p in job.pods if p.over and p not in job.counted and p not in job.uncounted]
        if fresh or job.uncounted:
            self._count(job, fresh)
        elif job.succeeded:
            self._finish(job, "Complete", "CompletionsReached")
        elif any(p.fate == "never" for p in job.counted):
            self._finish(job, "Failed", "PodFailurePolicy")
        elif job.failed > self.plan.run.backoff_limit:
            self._finish(job, "Failed", "BackoffLimitExceeded")
        else:
            self._manage(job)

    def _count(self, job: Job, fresh: list[Pod]) -> None:
        job.active = job.ready = 0
        if fresh:
            job.uncounted += fresh
        else:
            job.counted += job.uncounted
            job.failed += sum(p.phase == "Failed" for p in job.uncounted)
            job.succeeded += sum(p.phase == "Succeeded" for p in job.uncounted)
            job.not_before = self.now + 10 * 2**job.failed
            job.uncounted = []
        self._soon(job)

    def _manage(self, job: Job) -> None:
        live = [p for p in job.pods if not p.over and p.gone_at == NEVER]
        going = [p for p in job.pods if not p.over and p.gone_at < NEVER]
        if not live and not going:
            if self.now < job.not_before:
                job.sync_at = job.not_before
            elif pod := self._new_pod(job):
                live = [pod]
            else:
                job.sync_at = self.now + 60
        job.active, job.terminating, job.ready = len(live), len(going), sum(p.ready for p in live)
        if job.stopped:
            job.sync_at = self.now + 1

    def _new_pod(self, job: Job) -> Pod | None:
        """The next attempt; None when quota or admission refuse it."""
        self._serial += 1
        script = self.fates[job.partition]
        fate = script[min(job.failed, len(script) - 1)]
        if fate == "refused":
            return None
        starts = NEVER if fate in ("image", "giant") else self.now + self.rng.choice([0, 2, 100])
        ends = starts + self.rng.choice([3, 60, 5000])
        pod = Pod(f"pod-{self._serial}", fate, self.now, starts, ends)
        job.pods.append(pod)
        return pod

    def _finish(self, job: Job, how: str, reason: str) -> None:
        job.active = job.ready = job.terminating = 0
        job.finished, job.reason, job.finished_at = how, reason, self.now
