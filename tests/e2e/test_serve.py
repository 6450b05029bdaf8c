"""A real OpenAI-compatible server on the cluster: `transformers serve` as a pod, reached through its Service."""

import pytest

from tests.e2e import servers
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import Manifest, dataset, endpoint, evaljob
from tests.e2e.world import World

pytestmark = pytest.mark.cluster

URL = servers.url("serve")


def _served(name: str, prompt_format: str) -> Manifest:
    where = {"url": URL, "model": servers.SERVED_MODEL, "maxConcurrency": 2}
    return endpoint(name, URL, promptFormat=prompt_format, openai=where)


def test_a_served_model_has_the_reference_scores_and_log_likelihoods_are_refused(
    world: World, submit: Submit
) -> None:
    """Completions, chat completions, and what this server lacks: log-probabilities."""
    servers.wait(world.kubectl, "serve")
    models = [_served("text", "Text"), _served("chat", "Chat")]
    exclude = [{"model": "text", "dataset": "chat"}, {"model": "chat", "dataset": "kind"}]
    datasets = [dataset("gsm"), dataset("chat"), dataset("kind")]
    handle = submit(evaljob("serve", models, datasets, exclude=exclude, parallelism=4))
    status = handle.finished()
    assert (status["state"], status["progress"], status["failed"]) == ("Failed", "4/4", 1)
    handle.matches_reference("text", "gsm/Text")
    handle.matches_reference("chat", "gsm/Chat")
    handle.matches_reference("chat", "chat/Chat")
    (failure,) = status["failures"]
    assert (failure["partition"], failure["reason"]) == ("text/kind", "UnsupportedRequest")
    assert f"which {URL} does not return: " in failure["message"]
    assert "exclude: [{model: text, dataset: kind}]" in failure["message"]
    assert world.samples("serve/text/gsm")
    assert world.samples("serve/text/kind") == []
