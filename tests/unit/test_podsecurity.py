"""No pod that a user can describe is anything but restricted."""

from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaljob import jobs, podsecurity
from evaljob.podfields import RunnerPod
from evaljob.podsecurity import secured, violations
from evaljob.spec import parse_evaljob
from tests.loosened import LOOSE, loosened
from tests.schemas import SPEC, values
from tests.unit import builders
from tests.unit.builders import SETTINGS, dataset, document, endpoint, evaljob, model

FIELDS = SPEC["properties"]["runner"]["properties"]


def accepted(field: str, value: object) -> bool:
    """Whether a user may set a field of the runner's pods so."""
    try:
        RunnerPod.model_validate({field: value})
    except ValidationError:
        return False
    return True


def tidied(runner: dict[str, Any]) -> dict[str, Any]:
    """What the models accept of a drawn runner."""
    items = {k: [i for i in v if accepted(k, [i])] for k, v in runner.items() if isinstance(v, list)}
    return {k: v for k, v in (runner | items).items() if accepted(k, v)}


runners = st.fixed_dictionaries({}, optional={k: values(v) for k, v in FIELDS.items()}).map(tidied)
"""Every field that users have, from the CRD's own schema."""


def template_of(doc: dict[str, Any]) -> dict[str, Any]:
    """The pod template of the first Job, in an installation that allows every label, annotation and Secret."""
    of = parse_evaljob(doc)
    pods = (of.spec.runner, *(m.runner for m in of.spec.models))
    keys = {key for pod in pods for key in (*pod.labels, *pod.annotations)}
    plan = builders.plan(
        of, SETTINGS.model_copy(update={"allowed_metadata": tuple(keys), "secret_prefix": ""})
    )
    template: dict[str, Any] = jobs.job(of, plan, plan.partitions[0])["spec"]["template"]
    return template


def pod_of(doc: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = template_of(doc)["spec"]
    return spec


PLAIN = template_of(document())


@settings(max_examples=max(60, settings().max_examples))
@given(common=runners, own=runners, output=st.booleans(), key=st.booleans())
def test_whatever_users_set_the_pod_is_restricted(
    common: dict[str, Any], own: dict[str, Any], output: bool, key: bool
) -> None:
    models = [endpoint(secret="eval-key", runner=own) if key else model(runner=own)]
    spec: dict[str, Any] = {"output": {"claimName": "logs"}} if output else {}
    template = template_of(document(models, runner=common, **spec))
    pod, plain = template["spec"], PLAIN["spec"]
    assert violations(pod) == []
    context = podsecurity.POD["securityContext"]
    ids = {"runAsUser", "runAsGroup", "fsGroup"}
    assert {k: pod["securityContext"][k] for k in context.keys() - ids} == {
        k: v for k, v in context.items() if k not in ids
    }
    assert pod["containers"][0]["securityContext"] == plain["containers"][0]["securityContext"]
    # Ours of everything that has a name are there as they would be without the user's.
    for kind in ("labels", "annotations"):
        assert (
            PLAIN["metadata"][kind].items() - {("evaljob.dev/model", "m")}
            <= template["metadata"][kind].items()
        )
    mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    for mount in plain["containers"][0]["volumeMounts"]:
        if not mount["name"].startswith("source"):
            assert mounts[mount["mountPath"]] == mount["name"]


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_is_drawn(field: str) -> None:
    """So that the test above is about something."""
    enough = settings(max_examples=200, phases=[Phase.generate])
    assert (
        find(values(FIELDS[field]), lambda v: v not in ([], {}) and accepted(field, v), settings=enough)
        is not None
    )


POD = pod_of(document([endpoint(secret="eval-key")], [dataset(source="configmap://data/x.jsonl")]))


@pytest.mark.parametrize(("path", "value", "words"), LOOSE)
def test_each_loosening_is_found(path: str, value: object, words: str) -> None:
    assert violations(POD) == []
    assert any(words in v for v in violations(loosened(POD, path, value)))


def test_forced_fields_win_over_whatever_was_there() -> None:
    loose = {
        "hostNetwork": True,
        "securityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}, "fsGroup": 7},
        "automountServiceAccountToken": True,
        "activeDeadlineSeconds": 60,
        "containers": [
            {"name": "c", "securityContext": {"privileged": True}, "resources": {"limits": {"memory": "1Gi"}}}
        ],
    }
    assert violations(secured(loose)) == []
    assert secured(loose)["securityContext"] == podsecurity.POD["securityContext"] | {"fsGroup": 7}
    assert loose["hostNetwork"] is True


def test_a_job_with_a_loose_pod_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podsecurity, "CONTAINER", {})
    of = evaljob()
    plan = builders.plan(of)
    with pytest.raises(RuntimeError, match="refusing to create the pod of m/d: container runner"):
        jobs.job(of, plan, plan.partitions[0])
