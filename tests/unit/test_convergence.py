"""Whatever happens on the way, an EvalJob reaches the end that its partitions' fates say, and rests there."""

import functools
import json
import random
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaljob.decide import Decision, decide
from evaljob.jobs import record_patch
from evaljob.names import ANNOTATION_RETRY, Reason
from evaljob.observe import Observation, Observed, failure_on, observe
from evaljob.plan import Partition, Plan
from evaljob.policies import is_over, retry_asked
from evaljob.report import Report
from evaljob.spec import EvalJob
from evaljob.standing import count
from evaljob.status import Status
from evaljob.views import job_view, pod_view
from tests.unit.builders import UID, dataset, evaljob, later, model, plan
from tests.unit.simulator import NEVER, Cluster, Object

FATES = {
    "ok": (("ok",), None),
    "retried": (("error", "ok"), None),
    "twice-retried": (("oom", "error", "ok"), None),
    "oom": (("oom",), "OOMKilled"),
    "last counts": (("oom", "oom", "error"), "RunnerFailed"),
    "never again": (("never",), "BadData"),
    "later never": (("error", "never"), "BadData"),
    "garbage": (("garbage",), "InvalidResult"),
    "lost": (("lost",), "ResultsLost"),
    "no image": (("image",), "ImagePullBackOff"),
    "no node": (("giant",), "Unschedulable"),
    "no pod": (("refused",), "PodNotStarted"),
    "no second pod": (("error", "refused"), "PodNotStarted"),
}
EVALJOB = evaljob(
    [model("a"), model("b"), model("c")],
    [dataset("x"), dataset("y", shards=2)],
    backoffLimit=2,
    pendingDeadlineSeconds=600,
    parallelism=3,
)
PLAN = plan(EVALJOB)


class Operator:
    """One that forgets everything when it is killed, and whose caches lag."""

    def __init__(self, cluster: Cluster, of: EvalJob, plan: Plan, rng: random.Random) -> None:
        self.cluster, self.evaljob, self.plan, self.rng = cluster, of, plan, rng
        self.report: Report | None = None
        self.why = functools.cache(failure_on)
        self.deleted: set[str] = set()
        """uids of the Jobs that it has deleted."""
        self.restart()

    def restart(self) -> None:
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.pending: list[Object] = []
        self.listed_at = -NEVER
        self.listed: frozenset[str] = frozenset()
        self.sync(1.0)

    def sync(self, chance: float) -> None:
        """Each cached object becomes the newest one with this chance: lost, late and merged events."""
        server = {name: job.to_object() for name, job in self.cluster.jobs.items()}
        for name in sorted(server.keys() | self.jobs.keys()):
            if self.rng.random() < chance:
                self._refresh(name, server.get(name))
        pods = {p["metadata"]["uid"]: p for p in self._pods("Succeeded", "Failed")}
        for uid in sorted(pods.keys() | self.pods.keys()):
            if self.rng.random() < chance:
                self.pods.pop(uid, None)
                self.pods |= {uid: pods[uid]} if uid in pods else {}
        # Pending pods are not watched but listed, and the last list serves for a while.
        if self.cluster.now - self.listed_at >= 15 or chance == 1.0:
            self.pending, self.listed_at = self._pods("Pending"), self.cluster.now

    def _pods(self, *phases: str) -> list[Object]:
        found = [p for name in self.cluster.jobs for p in self.cluster.pods_of(name)]
        return [p for p in found if p["status"]["phase"] in phases]

    def _refresh(self, name: str, job: Object | None) -> None:
        self.jobs.pop(name, None)
        if job is not None:
            self.jobs[name] = job

    def observed(self) -> Observed:
        """In any order, and some pods twice."""
        pods = [pod_view(p) for p in (*self.pods.values(), *self.pending)]
        pods += self.rng.sample(pods, len(pods) // 2)
        self.rng.shuffle(pods)
        views = {name: job_view(job) for name, job in self.jobs.items()}
        return observe(self.plan, UID, views, pods, self.listed, why=self.why)

    def step(self, killed_after: float = NEVER, failing: float = 0.0) -> Decision:
        """One pass; `killed_after` writes it dies, and each deletion fails with that chance."""
        observed = self.observed()
        decision = decide(self.evaljob, self.plan, observed, later(int(self.cluster.now)))
        self._check(decision, observed)
        for i, write in enumerate(self._writes(decision, failing)):
            if i >= killed_after:
                self.restart()
                return decision
            write()
        return decision

    def _writes(self, decision: Decision, failing: float) -> Iterator[Callable[[], None]]:
        for partition in decision.create:
            yield functools.partial(self._create, partition)
        for r in decision.records:
            yield functools.partial(self._patch, r.job, r.uid, record_patch(r.uid, r.text, stop_at=r.stop_at))
        for s in decision.suspensions:
            yield functools.partial(self._patch, s.job, s.uid, {"spec": {"suspend": s.suspend}})
        for d in decision.deletions:
            if self.rng.random() < failing:
                break
            yield functools.partial(self._delete, d.job, d.uid, d.version)
        for name in decision.lookups:
            yield functools.partial(self._look_up, name)
        yield functools.partial(self._store, decision)

    def _create(self, partition: Partition) -> None:
        name = self.plan.job_name(partition)
        if name in self.cluster.jobs:  # 409 AlreadyExists, ours: take it over
            self._seen(name)
            return
        # One that is on record and suspended runs nothing.
        unfinished = sum(not j.finished and not (j.record and j.suspend) for j in self.cluster.jobs.values())
        assert unfinished < self.evaljob.spec.parallelism, "more unfinished Jobs than parallelism allows"
        assert not self.evaljob.spec.suspend, "a Job is created while suspended"
        self.cluster.create(partition)
        self._seen(name)

    def _patch(self, name: str, uid: str, patch: Object) -> None:
        self.cluster.patch(name, uid, patch)
        self._seen(name)

    def _delete(self, name: str, uid: str, version: str) -> None:
        """The one write of which only the watch tells, and it is late."""
        assert self.evaljob.spec.suspend or retry_asked(self.evaljob), "a Job is deleted while it may run"
        won = {o.job.uid for o in self.observed().observations if o.job and o.won}
        assert uid not in won, "a Job is deleted of which a pod has succeeded"
        if self.cluster.delete(name, uid, version):
            self.deleted.add(uid)

    def _seen(self, name: str) -> None:
        """Our own writes are seen at once."""
        job = self.cluster.jobs.get(name)
        self._refresh(name, job.to_object() if job else None)

    def _look_up(self, name: str) -> None:
        self.pods |= {p["metadata"]["uid"]: p for p in self.cluster.pods_of(name)}
        self.listed |= {self.jobs[name]["metadata"]["uid"]}

    def _store(self, decision: Decision) -> None:
        before = self.evaljob.status
        if decision.status.is_true("Finished") and not before.is_true("Finished"):
            self.report = decision.report
        if [e for e in decision.events if e.reason == Reason.RETRIED]:
            left = [j for j in self.cluster.jobs.values() if j.gone_at == NEVER and j.record]
            failed = [j for j in left if self.why(j.partition, str(j.record))]
            assert not failed, "a retry counts as acted on, and what has failed was not deleted"
        self.evaljob = self.evaljob.model_copy(update={"status": decision.status})

    def _check(self, decision: Decision, observed: Observed) -> None:
        status, before = decision.status, self.evaljob.status
        counts = status.partitions
        parts = counts.pending + counts.running + counts.succeeded + counts.failed
        # While failed Jobs are deleted the status stays, also the empty one that was never written.
        assert status == before or parts == counts.total == len(self.plan.partitions)
        assert decision.again_after is None or decision.again_after > 0
        if retry_asked(self.evaljob):
            assert not decision.create, "a Job is created before the old one is gone"
        elif before.is_true("Finished"):
            assert status == before, "Finished is sticky"
            acts = (decision.create, decision.records, decision.suspensions, decision.deletions)
            assert acts == ((), (), (), ())
        else:
            assert count(observed.observations) == counts
            ended = {o.job.uid for o in observed.observations if o.recorded and o.job}
            assert not ended & self.deleted, "what was deleted to be run again counts as failed again"
        ends = {s.job for s in decision.suspensions} | {d.job for d in decision.deletions}
        assert not {r.job for r in decision.records} & ends, "a Job is stopped and suspended at once"


class Run:
    """A cluster, an operator and a user, driven by one seed."""

    def __init__(self, seed: int, fates: dict[Partition, str], queue: str) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - dice of a game
        self.cluster = Cluster(PLAN, {p: FATES[f][0] for p, f in fates.items()}, self.rng, queue)
        self.operator = Operator(self.cluster, EVALJOB, PLAN, self.rng)

    def disturbed(self, steps: int) -> None:
        """Everything may happen at any time."""
        for _ in range(steps):
            self.rng.choice([self._pass, self._pass, self._pass, self._user, self._accident])()
            self.cluster.advance(self.cluster.now + self.rng.choice([0, 1, 4, 30, 400]))

    def _pass(self) -> None:
        self.operator.sync(self.rng.choice([0, 0.3, 1]))
        self.operator.step(self.rng.choice([NEVER, NEVER, 0, 1, 3]), self.rng.choice([0.0, 0.0, 0.5]))

    def _user(self) -> None:
        if self.rng.random() < 0.1:
            self._ask_for_a_retry()
            return
        finished = self.operator.evaljob.status.is_true("Finished")
        if self.cluster.jobs and not finished and self.rng.random() < 0.3:
            self.cluster.delete_by_hand(self.rng.choice(list(self.cluster.jobs.values())))
            return
        self._change(suspend=self.rng.random() < 0.4, parallelism=self.rng.choice([1, 2, 3, 50]))

    def _ask_for_a_retry(self) -> None:
        of = self.operator.evaljob
        asked = {ANNOTATION_RETRY: str(self.cluster.now)}
        metadata = of.metadata.model_copy(update={"annotations": asked})
        self.operator.evaljob = of.model_copy(update={"metadata": metadata})

    def _change(self, **spec: object) -> None:
        of = self.operator.evaljob
        self.operator.evaljob = of.model_copy(update={"spec": of.spec.model_copy(update=spec)})

    def _accident(self) -> None:
        if self.rng.random() < 0.5:
            self.operator.restart()
        else:
            self.cluster.disturb()

    def calm(self) -> None:
        """Let it come to its end; every pass is one that a timer or an event asks for."""
        self._change(suspend=False, parallelism=3)
        for _ in range(2000):
            self.operator.sync(1.0)
            decision = self.operator.step()
            if is_over(self.operator.evaljob):
                return
            timer = NEVER if decision.again_after is None else self.cluster.now + decision.again_after
            wrote = any(
                (
                    decision.create,
                    decision.records,
                    decision.suspensions,
                    decision.deletions,
                    decision.lookups,
                )
            )
            due = (
                self.cluster.now + 1
                if wrote
                else min(timer, max(self.cluster.next_event(), self.cluster.now + 1))
            )
            assert due < NEVER, f"nothing will ever happen again: {decision.status}"
            self.cluster.advance(due)
        pytest.fail(f"no end after 2000 passes: {decision.status}")

    def end(self) -> tuple[str, Object, Object]:
        """What a user sees at the end, without times."""
        status: Status = self.operator.evaljob.status
        assert self.operator.report is not None
        failed = {f.partition: f.reason for f in status.failures}
        # Which pod failed last depends on what happened, why it did does not.
        text = re.sub(r"pod-\d+", "pod-N", str(self.operator.report.files["summary.json"]))
        return status.state, failed, json.loads(text)


def expected(fates: dict[Partition, str]) -> dict[str, str]:
    return {str(p): reason for p, f in fates.items() if (reason := FATES[f][1])}


def ended(seed: int, fates: dict[Partition, str], steps: int, queue: str = "") -> Run:
    run = Run(seed, fates, queue)
    run.disturbed(steps)
    run.calm()
    return run


some_fates = st.fixed_dictionaries({p: st.sampled_from(sorted(FATES)) for p in PLAN.partitions})


@given(fates=some_fates, seed=st.integers(0, 10**9), queue=st.sampled_from(["", "gpu"]))
@example(fates=dict.fromkeys(PLAN.partitions, "ok"), seed=0, queue="gpu")
def test_any_disturbance_leads_to_the_same_end(fates: dict[Partition, str], seed: int, queue: str) -> None:
    undisturbed, disturbed = ended(seed, fates, 0), ended(seed + 1, fates, 60, queue)
    state, failed, summary = undisturbed.end()
    assert failed == expected(fates)
    assert state == ("Failed" if failed else "Complete")
    assert disturbed.end() == (state, failed, summary)


@given(fates=some_fates, seed=st.integers(0, 10**9))
def test_a_converged_evaljob_gives_no_action(fates: dict[Partition, str], seed: int) -> None:
    run = ended(seed, fates, 20)
    before = run.operator.evaljob.status
    run.operator.restart()
    decision = run.operator.step()
    assert decision == Decision(status=before, again_after=decision.again_after)


@given(fates=some_fates, seed=st.integers(0, 10**9), queue=st.sampled_from(["", "gpu"]))
def test_a_running_evaljob_at_rest_writes_nothing(fates: dict[Partition, str], seed: int, queue: str) -> None:
    """With everything seen and no time gone by, a second pass finds nothing to do."""
    run = Run(seed, fates, queue)
    run.disturbed(25)
    for _ in range(5):
        run.operator.sync(1.0)
        run.operator.step()
    again = run.operator.step()
    acts = (again.create, again.records, again.suspensions, again.deletions, again.lookups, again.events)
    assert acts == ((),) * 6
    assert again.status == run.operator.evaljob.status


def test_observations_keep_the_plans_order() -> None:
    seen: tuple[Observation, ...] = observe(PLAN, UID, {}, ()).observations
    assert tuple(o.partition for o in seen) == PLAN.partitions
