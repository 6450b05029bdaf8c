"""The models as a structural schema: nothing is dropped in silence."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from evaljob import crd as crds
from evaljob.crd import UnsupportedSchemaError, crd
from evaljob.spec import EvalJob, Spec

SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a field, an item or a map's values."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_every_field_of_the_spec_is_in_the_crd() -> None:
    fields = {f.alias or name for name, f in Spec.model_fields.items()}
    assert set(SCHEMA["properties"]["spec"]["properties"]) == fields


def test_every_node_has_a_type() -> None:
    """Without one the API server would prune what is inside."""
    bare = [p for p, n in nodes(SCHEMA) if "type" not in n and not n.get("x-kubernetes-int-or-string")]
    assert bare == []


def test_no_node_names_another() -> None:
    text = yaml.safe_dump(crd())
    assert "$ref" not in text
    assert "anyOf" not in text
    assert "&id" not in text


def test_uniqueness_and_immutability_are_the_api_servers_to_check() -> None:
    spec = SCHEMA["properties"]["spec"]
    assert spec["properties"]["models"]["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["properties"]["exclude"]["x-kubernetes-list-map-keys"] == ["model", "dataset"]
    assert any("self.models == oldSelf.models" in r["rule"] for r in spec["x-kubernetes-validations"])


def test_defaults_are_those_of_the_models() -> None:
    properties = SCHEMA["properties"]["spec"]["properties"]
    defaults = {name: p["default"] for name, p in properties.items() if "default" in p}
    assert defaults == {
        "seed": 0,
        "parallelism": 10,
        "suspend": False,
        "backoffLimit": 3,
        "partitionDeadlineSeconds": 86400,
        "pendingDeadlineSeconds": 1800,
    }


@pytest.mark.parametrize(
    "field", ["models[].transformers.source", "datasets[].limit", "datasets[].shards", "output.claimName"]
)
def test_fields_are_described(field: str) -> None:
    assert dict(nodes(SCHEMA["properties"]["spec"]))[f".{field}"]["description"]


def test_exclusive_bounds_take_the_older_form() -> None:
    top_p = dict(nodes(SCHEMA["properties"]["spec"]))[".models[].generation.topP"]
    assert (top_p["minimum"], top_p["exclusiveMinimum"]) == (0, True)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "object", "if": {}}, "a CRD has no 'if'"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "a union of 2 types"),
    ],
)
def test_what_a_crd_cannot_say_raises(
    node: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EvalJob, "model_json_schema", lambda **_: {"properties": {"spec": node}})
    with pytest.raises(UnsupportedSchemaError, match=words):
        crds.crd()
