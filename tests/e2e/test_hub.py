"""Sources of a hub and of a bucket, from pods that speak their protocols: keys from Secrets, one cache for all."""

from collections.abc import Iterator

import pytest

from tests.e2e import servers
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import dataset, evaljob, tiny
from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE
from tests.hub_server import TOKEN, Hub
from tests.s3_server import CREDENTIALS

pytestmark = pytest.mark.cluster

SECRETS = {"hub": {"token": TOKEN}, "s3": {"credentials": CREDENTIALS}}
ROOTS = {"hub": "/srv", "s3": "/srv/buckets"}


@pytest.fixture
def addresses(own_world: OwnWorld) -> Iterator[dict[str, str]]:
    """A hub that holds the tiny model, private, and the tiny datasets; a bucket that holds these too."""
    volume = {"persistentVolumeClaim": {"claimName": "hub", "readOnly": True}}
    for name, root in ROOTS.items():
        command = ["python", f"/srv/{name}_server.py", "--port", str(servers.PORT), root]
        meta = {"name": f"eval-{name}", "namespace": NAMESPACE}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": SECRETS[name]}
        for manifest in (secret, *servers.server(name, own_world.images["runner"], command, volume)):
            own_world.kubectl.apply(manifest)
    for name in ROOTS:
        servers.wait(own_world.kubectl, name)
    yield {name: servers.address(name) for name in ROOTS}
    for name in ROOTS:
        for kind in (f"pod/{name}", f"service/{name}", f"secret/eval-{name}"):
            own_world.kubectl.run("-n", NAMESPACE, "delete", kind, "--wait=false")


def test_pods_share_what_comes_from_a_hub_and_read_a_bucket(
    own_world: OwnWorld, addresses: dict[str, str], submit: Submit
) -> None:
    """Two pods at once: the scores of the files, the commits on record, the weights fetched once."""
    model = tiny("tiny", "Text", own_world.torch_node)
    model["transformers"]["source"] = "hf://private/tiny@main"
    reached = {"HF_ENDPOINT": addresses["hub"], "AWS_ENDPOINT_URL": addresses["s3"]}
    model["runner"]["env"] = [{"name": name, "value": value} for name, value in reached.items()]
    datasets = [dataset(name, source=f"hf://org/tiny@main/{name}.jsonl") for name in ("kind", "mc")]
    datasets.append(dataset("gsm", source="s3://evals/tiny/gsm.jsonl"))
    manifest = evaljob("hub", [model], datasets, parallelism=2, modelCache={"claimName": "cache"})
    manifest["spec"]["hub"] = {"tokenSecretRef": {"name": "eval-hub", "key": "token"}}
    manifest["spec"]["s3"] = {"credentialsSecretRef": {"name": "eval-s3", "key": "credentials"}}
    handle = submit(manifest)
    status = handle.finished()
    assert (status["state"], status["progress"]) == ("Complete", "3/3")
    handle.matches_reference("tiny", "gsm/Text")
    served = Hub(own_world.data / "hub")
    commits = {kind: served.repository(*where).commit() for kind, where in _SERVED.items()}
    for name in ("kind", "mc"):
        handle.matches_reference("tiny", f"{name}/Text")
        cell = handle.cell("tiny", name)
        assert {k: cell["provenance"][k] for k in commits} == {k: f"commit:{c}" for k, c in commits.items()}
    asked = own_world.kubectl.run("-n", NAMESPACE, "logs", "pod/hub").splitlines()
    weights = f"/private/tiny/resolve/{commits['weights']}/model.safetensors"
    assert asked.count(f"GET {weights}") == 1
    assert (
        own_world.data / "cache" / "hub" / "models--private--tiny" / "snapshots" / commits["weights"]
    ).is_dir()


_SERVED = {"weights": ("models", "private/tiny"), "data": ("datasets", "org/tiny")}
