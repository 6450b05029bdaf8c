"""A real OpenAI-compatible server on the cluster: `transformers serve` as a pod, reached through its Service."""

import pytest

from tests.e2e import servers
from tests.e2e.conftest import Submit, needs_image
from tests.e2e.evaljobs import Handle, Manifest, dataset, endpoint, evaljob
from tests.e2e.world import NAMESPACE, World

pytestmark = pytest.mark.cluster

URL = servers.url("serve")
KEY = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "eval-judge", "namespace": NAMESPACE},
    "stringData": {"token": "x"},
}
JUDGE = {
    "name": "letters",
    "openai": {
        "url": servers.url("stub-judge"),
        "model": "stub",
        "apiKeySecretRef": {"name": "eval-judge", "key": "token"},
    },
}


def _served(name: str, prompt_format: str) -> Manifest:
    where = {"url": URL, "model": servers.SERVED_MODEL, "maxConcurrency": 2}
    return endpoint(name, URL, promptFormat=prompt_format, openai=where)


def _judged() -> Manifest:
    """Some of the sums again, with a judge beside the comparison: it says the same of every answer."""
    found = dataset("gsm", limit=8) | {"name": "judged"}
    rubric = {
        "name": "letters",
        "prompt": "{{ question }}\nanswer: {{ answer }}\ntarget: {{ target }}",
        "extract": "grade",
        "labels": {"C": 1, "I": 0},
    }
    judged = {"name": "llm_judge", "extract": "final", "primary": True, "judge": rubric}
    metrics = [judged, {"name": "exact_match", "extract": "final"}]
    extract = found["taskSpec"]["extract"] | {"grade": [{"regex": "GRADE: (\\w)"}]}
    return found | {"taskSpec": found["taskSpec"] | {"metrics": metrics, "extract": extract}}


def _is_judged(handle: Handle, world: World) -> None:
    """Its numbers are those of the comparison; the log says what the judge said, and nothing its key."""
    cell = handle.cell("text", "judged")
    for part in cell["parts"]:
        judged, compared = ({k: s[k] for k in ("value", "n", "low", "high")} for s in part["scores"])
        assert judged == compared
    assert cell["provenance"]["judge:llm_judge,final"].startswith("stub sha256:")
    assert "GRADE: C" in str(world.samples("serve/text/judged"))
    (pod,) = (p for p in handle.get("pods") if p["metadata"]["labels"]["evaljob.dev/dataset"] == "judged")
    assert "eval-judge" not in str(pod["spec"]["containers"][0]["env"])


def test_a_served_model_has_the_reference_scores_and_log_likelihoods_are_refused(
    world: World, submit: Submit
) -> None:
    """Completions, chat completions, a judge, and what this server lacks: log-probabilities."""
    needs_image(world, "serving")
    servers.wait(world.kubectl, "serve")
    models = [_served("text", "Text"), _served("chat", "Chat")]
    exclude = [
        {"model": "text", "dataset": "chat"},
        {"model": "chat", "dataset": "kind"},
        {"model": "chat", "dataset": "judged"},
    ]
    datasets = [dataset("gsm"), dataset("chat"), dataset("kind"), _judged()]
    world.kubectl.apply(KEY)
    handle = submit(evaljob("serve", models, datasets, judges=[JUDGE], exclude=exclude, parallelism=5))
    status = handle.finished()
    world.kubectl.run("delete", "secret", "eval-judge", "-n", NAMESPACE)
    assert (status["state"], status["progress"], status["failed"]) == ("Failed", "5/5", 1)
    _is_judged(handle, world)
    handle.matches_reference("text", "gsm/Text")
    handle.matches_reference("chat", "gsm/Chat")
    handle.matches_reference("chat", "chat/Chat")
    (failure,) = status["failures"]
    assert (failure["partition"], failure["reason"]) == ("text/kind", "UnsupportedRequest")
    assert f"which {URL} does not return: " in failure["message"]
    assert "exclude: [{model: text, dataset: kind}]" in failure["message"]
    assert world.samples("serve/text/gsm")
    assert world.samples("serve/text/kind") == []
