"""Partitions that fail for good: a reason to act on, and the others finish."""

import pytest

from tests.e2e import servers
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, Manifest, dataset, endpoint, evaljob, questions, tiny
from tests.e2e.world import NAMESPACE, World

pytestmark = pytest.mark.cluster

UNAUTHORIZED = servers.url("stub-401")


def _model(name: str, node: str | None, **transformers: object) -> Manifest:
    model = tiny(name, "Text", node)
    return {**model, "transformers": {**model["transformers"], **transformers}}


def _with_runner(model: Manifest, **runner: object) -> Manifest:
    return {**model, "runner": {**model["runner"], **runner}}


def test_each_failure_says_why_and_the_others_finish(world: World, submit: Submit) -> None:
    node = world.torch_node
    limits = {"cpu": 1, "memory": "2Gi"}
    models = [
        _model("good", node),
        _with_runner(_model("no-image", node), image="evaljob.local/nothing:0"),
        _with_runner(_model("giant", node), resources={"limits": {**limits, "nvidia.com/gpu": 99}}),
        _model("no-path", node, source="pvc://models/nowhere"),
        _model("nan", node, source="pvc://models/nan"),
        _with_runner(_model("small", node), resources={"limits": {"cpu": 1, "memory": "64Mi"}}),
        endpoint("unauthorized", UNAUTHORIZED),
    ]
    kind = dataset("kind", limit=4)
    generated = {**dataset("gsm", limit=2), "name": "gsm"}
    exclude = [{"model": "unauthorized", "dataset": "kind"}]
    exclude += [{"model": m["name"], "dataset": "gsm"} for m in models if m["name"] != "unauthorized"]
    manifest = evaljob("reasons", models, [kind, generated], exclude=exclude, backoffLimit=0)
    manifest["spec"] |= {"parallelism": 10, "pendingDeadlineSeconds": 30}
    handle = submit(manifest)
    status = handle.finished(300)
    assert (status["state"], status["progress"], status["failed"]) == ("Failed", "7/7", 6)
    reasons = {f["partition"].split("/")[0]: (f["reason"], f["message"]) for f in status["failures"]}
    assert {k: v[0] for k, v in reasons.items()} == {
        "no-image": "ImagePullBackOff",
        "giant": "Unschedulable",
        "no-path": "ModelNotFound",
        "nan": "InvalidNumber",
        "small": "OOMKilled",
        "unauthorized": "Unauthorized",
    }
    assert "Insufficient nvidia.com/gpu" in reasons["giant"][1]
    assert "models/nowhere" in reasons["no-path"][1]
    assert "memory limit of 64Mi" in reasons["small"][1]
    assert handle.cell("good", "kind")["state"] == "Complete"
    assert handle.cell("nan", "kind")["reason"] == "InvalidNumber"
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["Failed"]["message"] == "1 of 7 partitions succeeded, 6 failed"
    text = world.kubectl.get_json("get", "configmap", "reasons-summary", "-n", NAMESPACE)["data"][
        "summary.md"
    ]
    assert "missing (OOMKilled)" in text


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            {"datasets": [{"name": "d", "task": "mmlou", "source": "pvc://data/x.jsonl"}]},
            "InvalidSpec",
            "catalogue",
        ),
        ({"datasets": [dataset("kind")]}, "IncompatiblePair", "exclude: [{model: slow, dataset: kind}]"),
        ({"exclude": [{"model": "slow", "dataset": "nothing"}]}, "InvalidSpec", "names nothing"),
    ],
)
def test_a_spec_that_can_never_run_fails_at_once(
    submit: Submit, change: Manifest, reason: str, words: str
) -> None:
    manifest = evaljob("never", [endpoint("slow", SLOW)], [questions("d0", 1)])
    manifest["spec"] |= change
    handle = submit(manifest)
    status = handle.finished(30)
    assert status["state"] == "Failed"
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", reason)
    assert words in accepted["message"]
    assert handle.get("jobs") == []
