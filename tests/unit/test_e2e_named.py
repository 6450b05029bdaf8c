"""What the end-to-end tests make of their manifests for a cluster that the user names, and what they need there."""

import pytest

from evaljob import podsecurity
from evaljob.spec import parse_evaljob, sources
from tests.cluster.shell import ClusterError
from tests.e2e.evaljobs import dataset, endpoint, evaljob, questions, tiny
from tests.e2e.named import fitted as fitted_to
from tests.e2e.named import from_options, keeper
from tests.kube import ForeignContextError, Kubectl, Manifest

REFS = "operator=r/operator:1,runner=r/runner:1"


def fitted() -> Manifest:
    models = [tiny("m", "Chat", None), endpoint("slow", "http://stub/v1")]
    giant = tiny("giant", "Text", None)
    giant["runner"]["resources"]["limits"]["nvidia.com/gpu"] = 99
    exclude = [{"model": m, "dataset": "chat"} for m in ("slow", "giant")]
    datasets = [dataset("chat"), questions("q", 1)]
    found: Manifest = fitted_to(evaljob("run", [*models, giant], datasets, exclude=exclude), "mine")
    return found


def test_all_sources_and_logs_are_on_the_one_claim() -> None:
    spec = parse_evaljob(fitted()).spec
    uris = {uri for m in spec.models for d in spec.datasets for uri in sources(m, d) if uri}
    assert uris == {"pvc://mine/evaljob-e2e/models/tiny", "pvc://mine/evaljob-e2e/data/chat.jsonl"}
    assert spec.output is not None
    assert spec.output.claim_name == "mine"


def test_images_are_pulled_and_no_gpu_is_held_but_what_asks_for_too_many_still_does() -> None:
    spec = fitted()["spec"]
    assert spec["runner"]["imagePullPolicy"] == "IfNotPresent"
    gpus = [m["runner"]["resources"]["limits"].get("nvidia.com/gpu") for m in spec["models"]]
    assert gpus == [None, None, 99]


def test_the_pod_that_holds_the_claim_is_restricted() -> None:
    assert podsecurity.violations(keeper("r/runner:1", "mine")["spec"]) == []


@pytest.mark.parametrize(
    ("images", "claim", "words"),
    [
        ("", "c", "IMAGES=: give both"),
        (f"{REFS},serve=x", "c", "names operator, runner, serving, runner-lm-eval"),
        (f"{REFS},serving=", "c", "serving=: expected NAME=REFERENCE"),
        (
            REFS,
            "",
            "DATA_CLAIM: missing; a claim in the namespace e2e, which all nodes can mount for writing",
        ),
    ],
)
def test_what_is_missing_is_named(images: str, claim: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        from_options("prod", images, claim)


def test_only_a_context_that_the_user_has_named_is_taken_beside_those_of_the_tests() -> None:
    with pytest.raises(ForeignContextError, match="context 'prod': tests use only"):
        Kubectl("prod", None, "")
    assert Kubectl("prod", None, "", named=True).context == "prod"
