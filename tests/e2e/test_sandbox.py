"""Generated programs in a restricted pod: what the attacks of tests/attacks.py meet there, and a whole EvalJob."""

import json

import pytest

from evaljob import podsecurity
from evaljob.framing import decode
from evaljob.result import PartitionResult
from tests import attacks
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import CommandError
from tests.e2e import servers
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, Manifest, endpoint, evaljob
from tests.e2e.world import NAMESPACE, World

pytestmark = pytest.mark.cluster


def _pod(image: str) -> Manifest:
    """The attacks in the image and under the security fields of a runner, with a secret in its environment."""
    container = {
        "name": "attacks",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["tini", "--", "python", "/srv/attacks.py"],
        "env": [{"name": "API_KEY", "value": "a secret"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": "100m"}},
        "volumeMounts": [{"name": "srv", "mountPath": "/srv", "readOnly": True}],
    }
    spec = podsecurity.secured(
        {
            "activeDeadlineSeconds": 300,
            "containers": [container],
            "volumes": [{"name": "srv", "configMap": {"name": "attacks"}}],
        }
    )
    assert podsecurity.violations(spec) == []
    return servers.labelled("v1", "Pod", "attacks", spec=spec)


def test_in_a_restricted_pod_no_attack_succeeds_and_no_honest_program_fails(world: World) -> None:
    script = (REPOSITORY / "tests" / "attacks.py").read_text()
    kubectl = world.kubectl
    world.apply(servers.labelled("v1", "ConfigMap", "attacks", data={"attacks.py": script}))
    world.apply(_pod(world.images["runner"]))
    try:
        kubectl.wait(
            "pod/attacks",
            "jsonpath={.status.containerStatuses[0].state.terminated}",
            "-n",
            NAMESPACE,
            seconds=240,
        )
        found = json.loads(kubectl.run("logs", "-n", NAMESPACE, "pod/attacks"))
    finally:
        kubectl.run("delete", "-n", NAMESPACE, "pod/attacks", "configmap/attacks", "--now")
    assert found["otherwise"] == {}
    assert (found["attacks"], found["uid"], found["seccomp"]) == (len(attacks.ALL), podsecurity.UID, True)
    assert found["landlock"] >= 1


def _programs(name: str, program: str, **fields: object) -> Manifest:
    """A dataset whose model answers "Paris" and whose programs are ours."""
    metric = {"name": "code_exec", "primary": True, "program": program, "tests": "assert city() == 'Paris'"}
    task = {"requestType": "Generate", "prompt": "{{ q }}", "target": "", "metrics": [metric]}
    return {"name": name, "taskSpec": task, "inline": {"jsonl": '{"q": 1}\n{"q": 2}'}, **fields}


def test_programs_run_where_the_dataset_allows_it_and_the_result_says_how_they_were_confined(
    submit: Submit,
) -> None:
    datasets = [
        _programs("right", "def city(): return '{{ answer }}'", allowCodeExecution=True),
        _programs("hostile", "import os\nos._exit(0) # {{ answer }}", allowCodeExecution=True),
    ]
    model = endpoint("slow", SLOW)
    model["runner"]["resources"]["limits"]["memory"] = "1536Mi"
    handle = submit(evaljob("programs", [model], datasets))
    assert handle.finished()["state"] == "Complete"
    scores = {d: handle.cell("slow", d)["parts"][0]["scores"][0] for d in ("right", "hostile")}
    assert {d: (score["value"], score["n"]) for d, score in scores.items()} == {
        "right": (1, 2),
        "hostile": (0, 2),
    }
    for job in handle.get("jobs"):
        result = decode(job["metadata"]["annotations"]["evaljob.dev/result"])
        assert isinstance(result, PartitionResult)
        assert result.provenance["sandbox"].startswith("landlock ")


def test_programs_are_refused_where_the_dataset_does_not_allow_them(submit: Submit) -> None:
    """A task written out by the API server, one of the catalogue by the operator; both name the line to add."""
    with pytest.raises(CommandError, match="add allowCodeExecution: true to the dataset"):
        submit(evaljob("refused", [endpoint("slow", SLOW)], [_programs("p", "{{ answer }}")]))
    by_name = {"name": "h", "task": "humaneval", "source": "pvc://data/h.jsonl"}
    handle = submit(evaljob("refused", [endpoint("slow", SLOW)], [by_name]))
    assert handle.finished(30)["state"] == "Failed"
    accepted = next(c for c in handle.status()["conditions"] if c["type"] == "Accepted")
    assert accepted["reason"] == "InvalidSpec"
    assert "add to each of h: allowCodeExecution: true" in accepted["message"]
    assert handle.get("jobs") == []
