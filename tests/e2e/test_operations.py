"""What operating EvalJobs on a shared cluster is like: reasons to wait, policies, quotas, evictions, Kueue."""

import base64
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from evaljob.packing import BYTES_MAX, GZIP_KEY, pack
from evaljob.spool import Text
from evaljob.summary import Summary
from tests.cluster.paths import REPOSITORY
from tests.e2e import kueue, obstacles
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, SMALL, Handle, Manifest, endpoint, evaljob, questions
from tests.e2e.own import OwnWorld, persistent
from tests.e2e.world import NAMESPACE, OPERATOR_NAMESPACE, World
from tests.kube import Kubectl

pytestmark = pytest.mark.cluster


FULL = "/mnt/full"


@pytest.fixture
def shared_cluster(own_world: OwnWorld) -> Iterator[None]:
    """Policies and quotas in the way."""
    obstacles.put(own_world.kubectl)
    yield
    obstacles.clear(own_world.kubectl)


def _reasons(*handles: Handle) -> dict[str, tuple[str, str]]:
    failures = [f for h in handles for f in h.status().get("failures", ())]
    return {f["partition"].split("/")[0]: (f["reason"], f["message"]) for f in failures}


@pytest.mark.usefixtures("shared_cluster")
def test_every_reason_to_wait_is_told_within_a_minute_and_passes(world: World, submit: Submit) -> None:
    models = [
        endpoint("nokey", SLOW, runner=SMALL),
        endpoint("denied", SLOW, runner=SMALL),
        endpoint("nopods", SLOW),
    ]
    models[0]["openai"]["apiKeySecretRef"] = {"name": "eval-late", "key": "token"}
    handle = submit(evaljob("waits", models, [questions("d", 1)]))
    handle.until(lambda: len(handle.get("jobs")) == 2)
    world.kubectl.apply(obstacles.quota("jobs", **{"count/jobs.batch": "2"}))
    handle.until(lambda: world.kubectl.get_json("get", "quota", "jobs", "-n", NAMESPACE).get("status"))
    started = time.monotonic()
    late = submit(evaljob("late", [endpoint("more", SLOW, runner=SMALL)], [questions("d", 1)]))
    handle.until(lambda: len(_reasons(handle, late)) == 4, 60)
    assert time.monotonic() - started < 60
    found = _reasons(handle, late)
    assert {model: reason for model, (reason, _) in found.items()} == {
        "nokey": "SecretMissing",
        "denied": "AdmissionDenied",
        "nopods": "QuotaExceeded",
        "more": "QuotaExceeded",
    }
    assert 'secret "eval-late" not found' in found["nokey"][1]
    assert "denied needs a ticket" in found["denied"][1]
    assert "requests.nvidia.com/gpu" in found["nopods"][1]
    assert "count/jobs.batch" in found["more"][1]
    _was_rehearsed(handle)
    _shows_why(handle)
    _is_measured(world.kubectl)
    obstacles.clear(world.kubectl)
    world.kubectl.run("create", "secret", "generic", "eval-late", "--from-literal=token=x", "-n", NAMESPACE)
    for each in (handle, late):
        assert each.finished()["state"] == "Complete"


def _was_rehearsed(handle: Handle) -> None:
    """What the dry run said stands in Accepted."""
    accepted = next(c for c in handle.status()["conditions"] if c["type"] == "Accepted")
    assert accepted["message"].startswith("3 partitions; warnings: ")
    assert "nokey needs a ticket" in accepted["message"]
    assert "AdmissionDenied: " in accepted["message"]
    if obstacles.mutates(handle.world.kubectl):
        assert "deletes Jobs 86400 s after their end, and results with them" in accepted["message"]


def _shows_why(handle: Handle) -> None:
    """The column of `kubectl get`, and as many Events as conditions have changed."""
    head, line = handle.world.kubectl.run("get", "ej", handle.name, "-n", NAMESPACE).splitlines()
    assert head.split() == ["NAME", "STATE", "DONE", "FAILED", "REASON", "AGE"]
    assert line.split()[4] in {"SecretMissing", "AdmissionDenied", "QuotaExceeded"}
    assert "waiting: " in handle.world.kubectl.run("get", "ej", handle.name, "-n", NAMESPACE, "-o", "wide")
    about = f"involvedObject.uid={handle.body()['metadata']['uid']}"
    events = handle.world.kubectl.get_json("get", "events", "-n", NAMESPACE, "--field-selector", about)[
        "items"
    ]
    assert [e["reason"] for e in events] == ["Accepted"]


def _is_measured(kubectl: Kubectl) -> None:
    """What Prometheus reads, through the API server's proxy."""
    (pod,) = kubectl.get_json("get", "pods", "-n", OPERATOR_NAMESPACE)["items"]
    path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod['metadata']['name']}:8081/proxy/metrics"
    text = kubectl.run("get", "--raw", path)
    assert f'evaljob_partitions{{namespace="{NAMESPACE}",state="pending"}} 4.0' in text
    assert 'evaljob_api_requests_total{code="403",resource="jobs",verb="create"}' in text
    assert f'evaljob_watch_silence_seconds{{namespace="{NAMESPACE}",resource="pods"}}' in text


def test_a_job_that_can_never_be_created_refuses_its_evaljob_at_once(submit: Submit) -> None:
    runner = {"resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "128Mi"}}}
    handle = submit(evaljob("impossible", [endpoint("m", SLOW, runner=runner)], [questions("d", 1)]))
    status = handle.finished(30)
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "must be less than or equal to memory limit" in accepted["message"]
    assert not handle.get("jobs,configmaps")


def test_only_failed_partitions_are_run_again_when_the_annotation_asks(world: World, submit: Submit) -> None:
    models = [endpoint("good", SLOW, runner=SMALL), endpoint("nokey", SLOW, runner=SMALL)]
    models[1]["openai"]["apiKeySecretRef"] = {"name": "eval-late", "key": "token"}
    handle = submit(evaljob("retry", models, [questions("d", 1)], pendingDeadlineSeconds=15))
    assert (handle.finished(90)["state"], handle.done()) == ("Failed", 2)
    before = {j["metadata"]["labels"]["evaljob.dev/model"]: j["metadata"]["uid"] for j in handle.get("jobs")}
    world.kubectl.run("create", "secret", "generic", "eval-late", "--from-literal=token=x", "-n", NAMESPACE)
    try:
        handle.retry_failed("now")
        handle.until(lambda: handle.status()["state"] == "Complete", 90)
    finally:
        world.kubectl.run("delete", "secret", "eval-late", "-n", NAMESPACE)
    after = {j["metadata"]["labels"]["evaljob.dev/model"]: j["metadata"]["uid"] for j in handle.get("jobs")}
    assert after["good"] == before["good"]
    assert after["nokey"] != before["nokey"]
    assert [c["state"] for c in handle.summary()["cells"]] == ["Complete", "Complete"]


def test_an_evicted_pod_was_no_attempt(world: World, submit: Submit) -> None:
    """As a drained node, or a preempting pod, has it evicted."""
    handle = submit(evaljob("evicted", [endpoint("m", SLOW)], [questions("d", 8)], backoffLimit=0))
    handle.until(lambda: len([s for s in world.samples("evicted") if "outcome" in s]) >= 2)
    (pod,) = handle.get("pods")
    name = pod["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    world.kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    handle.until(lambda: handle.get("jobs")[0]["status"].get("ready") == 0)
    assert handle.status()["state"] == "Running"
    status = handle.finished()
    assert (status["state"], status["failed"]) == ("Complete", 0)
    assert handle.cell("m", "d")["outcomes"]["fromLog"] >= 2


def test_a_pod_that_writes_too_much_says_so(submit: Submit) -> None:
    limits = {"memory": "256Mi", "ephemeral-storage": "1k"}
    runner = {"resources": {"limits": limits, "requests": {"cpu": "50m"}}}
    model = endpoint("m", SLOW, runner=runner)
    handle = submit(evaljob("full", [model], [questions("d", 60)], backoffLimit=0))
    status = handle.finished(120)
    (failure,) = status["failures"]
    assert failure["reason"] == "EphemeralStorage"
    assert "1k" in failure["message"]


@pytest.fixture
def small_volume(own_world: OwnWorld) -> Iterator[str]:
    """A claim `full` of 64 KiB on one node, which is named."""
    node = own_world.cluster.nodes[2]
    mount = f"mkdir -p {FULL} && mount -t tmpfs -o size=64k,mode=1777 tmpfs {FULL}"
    own_world.machine.docker("exec", node, "sh", "-c", mount)
    for obj in persistent("full", "ReadWriteMany", FULL):
        own_world.kubectl.apply(obj)
    yield node
    own_world.kubectl.run("delete", "pvc/full", "-n", NAMESPACE, "--wait")
    own_world.kubectl.run("delete", "pv/e2e-full", "--wait")
    own_world.machine.docker("exec", node, "umount", FULL)


def test_a_full_volume_is_named_and_once_there_is_room_no_sample_is_computed_twice(
    own_world: OwnWorld, small_volume: str, submit: Submit
) -> None:
    model = endpoint("m", SLOW, runner={**SMALL, "nodeSelector": {"kubernetes.io/hostname": small_volume}})
    long = questions("d", 1)
    lines = [json.dumps({"question": f"{i}: {'long ' * 1600}", "answer": "42"}) for i in range(12)]
    long["inline"] = {"jsonl": "\n".join(lines)}
    handle = submit(evaljob("nospace", [model], [long], output={"claimName": "full"}, backoffLimit=0))
    (failure,) = handle.finished(120)["failures"]
    assert failure["reason"] == "OutputFull"
    assert "No space left on device; free or enlarge the volume of spec.output" in failure["message"]
    own_world.machine.docker("exec", small_volume, "mount", "-o", "remount,size=1m", FULL)
    handle.retry_failed("more-room")
    assert handle.finished()["state"] == "Complete"
    outcomes = handle.cell("m", "d")["outcomes"]
    assert outcomes["completed"] == 12
    # At least eight kilobytes a line; a torn one was left behind, and is not counted.
    assert 1 <= outcomes["fromLog"] <= 7


@pytest.fixture
def kueue_s_kind(own_world: OwnWorld) -> Iterator[None]:
    """The kind Workload, without Kueue itself."""
    kueue.install(own_world.kubectl)
    yield
    kueue.remove(own_world.kubectl)


@pytest.mark.usefixtures("kueue_s_kind")
def test_under_a_queue_label_kueue_alone_says_when_jobs_run(world: World, submit: Submit) -> None:
    """The test plays Kueue: it suspends Jobs and says why, admits and preempts them."""
    manifest = evaljob(
        "queued",
        [endpoint("m", SLOW, runner=SMALL)],
        [questions(f"d{i}", 6) for i in range(2)],
        backoffLimit=0,
    )
    manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
    handle = submit(manifest)
    handle.until(lambda: len(handle.get("jobs")) == 2)
    first, second = sorted(j["metadata"]["name"] for j in handle.get("jobs"))
    kueue.hold_back(handle)
    for job in (first, second):
        _set_suspend(world, job, suspend=True)
    handle.until(lambda: len(_waits(handle)) == 2)
    assert {w["reason"] for w in _waits(handle)} == {"QueuedByKueue"}
    told = f"waiting: suspended by Kueue in queue gpu: {kueue.LACKS}"
    handle.until(lambda: {w["message"] for w in _waits(handle)} == {told}, 40)
    assert all(j["spec"]["suspend"] for j in handle.get("jobs"))
    _set_suspend(world, first, suspend=False)
    handle.until(lambda: _ready(handle, first))
    _set_suspend(world, first, suspend=True)
    handle.until(lambda: len(_waits(handle)) == 2)
    assert handle.done() == 0
    _set_suspend(world, first, suspend=False)
    handle.until(lambda: handle.done() == 1)
    handle.patch(suspend=True)
    handle.until(lambda: [j["metadata"]["name"] for j in handle.get("jobs")] == [first])
    handle.until(lambda: handle.status()["state"] == "Suspended")
    handle.patch(suspend=False)
    assert handle.finished()["state"] == "Complete"
    assert {j["metadata"]["name"] for j in handle.get("jobs")} == {first, second}


def _set_suspend(world: World, job: str, *, suspend: bool) -> None:
    patch = json.dumps({"spec": {"suspend": suspend}})
    world.kubectl.run("patch", "job", job, "-n", NAMESPACE, "--type=merge", "-p", patch)


def _ready(handle: Handle, job: str) -> bool:
    return any(j["metadata"]["name"] == job and j["status"].get("ready") for j in handle.get("jobs"))


def _waits(handle: Handle) -> list[Manifest]:
    return [f for f in handle.status().get("failures", ()) if f["message"].startswith("waiting: ")]


def test_a_compressed_summary_is_taken_by_the_api_server_and_read_by_the_command(world: World) -> None:
    noise = random.Random(0).randbytes(BYTES_MAX * 5 // 6).hex()  # noqa: S311 - hardly compressible
    summary = Summary(name=noise, uid="u", state="Complete", succeeded=0, failed=0, total=0,
                      models=(), datasets=(), cells=())  # fmt: skip
    packed = pack({"summary.json": Text.of(summary.to_json())})
    meta = {"name": "large-summary", "namespace": NAMESPACE}
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": packed.data,
        "binaryData": packed.binary,
    }
    world.kubectl.run("create", "-f", "-", stdin=json.dumps(obj))
    try:
        where = ("get", "configmap", "large-summary", "-n", NAMESPACE, "-o")
        assert world.kubectl.run(*where, "jsonpath={.data.format}") == "Gzip"
        key = GZIP_KEY.replace(".", "\\.")
        content = base64.b64decode(world.kubectl.run(*where, f"jsonpath={{.binaryData.{key}}}"))
    finally:
        world.kubectl.run("delete", "configmap", "large-summary", "-n", NAMESPACE)
    command = [sys.executable, "-m", "evaljob_cli", "summary", "-"]
    shown = subprocess.run(command, input=content, capture_output=True, check=True, cwd=REPOSITORY)
    assert b"Complete: 0 of 0 partitions succeeded" in shown.stdout
