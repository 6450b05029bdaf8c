"""Sources of a hub, from a pod that speaks its protocol: a token from a Secret, one cache for all pods."""

from collections.abc import Iterator

import pytest

from tests.e2e import servers
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import dataset, evaljob, tiny
from tests.e2e.world import NAMESPACE, World
from tests.hub_server import TOKEN, Hub

pytestmark = pytest.mark.cluster

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "eval-hub", "namespace": NAMESPACE},
    "stringData": {"token": TOKEN},
}


@pytest.fixture
def hub(world: World) -> Iterator[str]:
    """The address of a hub that holds the tiny model, private, and the tiny datasets."""
    command = ["python", "/srv/hub_server.py", "--port", str(servers.PORT), "/srv"]
    volume = {"persistentVolumeClaim": {"claimName": "hub", "readOnly": True}}
    made = [SECRET, *servers.server("hub", world.images["runner"], command, volume)]
    for manifest in made:
        world.kubectl.apply(manifest)
    servers.wait(world.kubectl, "hub")
    yield servers.address("hub")
    for kind in ("pod/hub", "service/hub", "secret/eval-hub"):
        world.kubectl.run("-n", NAMESPACE, "delete", kind, "--wait=false")


def test_pods_share_what_comes_from_a_hub(world: World, hub: str, submit: Submit) -> None:
    """Two pods at once: the scores of the files, the commits on record, the weights fetched once."""
    model = tiny("tiny", "Text", world.torch_node)
    model["transformers"]["source"] = "hf://private/tiny@main"
    model["runner"]["env"] = [{"name": "HF_ENDPOINT", "value": hub}]
    datasets = [dataset(name, source=f"hf://org/tiny@main/{name}.jsonl") for name in ("kind", "mc")]
    manifest = evaljob("hub", [model], datasets, parallelism=2, modelCache={"claimName": "cache"})
    manifest["spec"]["hub"] = {"tokenSecretRef": {"name": "eval-hub", "key": "token"}}
    handle = submit(manifest)
    status = handle.finished()
    assert (status["state"], status["progress"]) == ("Complete", "2/2")
    served = Hub(world.data / "hub")
    commits = {kind: served.repository(*where).commit() for kind, where in _SERVED.items()}
    for name in ("kind", "mc"):
        handle.matches_reference("tiny", f"{name}/Text")
        cell = handle.cell("tiny", name)
        assert {k: cell["provenance"][k] for k in commits} == {k: f"commit:{c}" for k, c in commits.items()}
    asked = world.kubectl.run("-n", NAMESPACE, "logs", "pod/hub").splitlines()
    weights = f"/private/tiny/resolve/{commits['weights']}/model.safetensors"
    assert asked.count(f"GET {weights}") == 1
    assert (
        world.data / "cache" / "hub" / "models--private--tiny" / "snapshots" / commits["weights"]
    ).is_dir()


_SERVED = {"weights": ("models", "private/tiny"), "data": ("datasets", "org/tiny")}
