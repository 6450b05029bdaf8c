"""The pydantic models -> the CustomResourceDefinition.

A structural schema knows less than JSON Schema. What it cannot express raises here, at generation time, and
is never dropped in silence.
"""

import copy
from collections.abc import Mapping
from typing import Any

from evaljob.names import CATEGORIES, GROUP, KIND, PLURAL, SHORT_NAMES, VERSION
from evaljob.spec import EvalJob

Schema = dict[str, Any]

_KEPT = {
    "type", "description", "enum", "pattern", "format", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "required",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string",
}  # fmt: skip
_DROPPED = {"title", "$defs", "propertyNames"}
_CHILDREN = {"properties", "items", "additionalProperties", "patternProperties"}
_COLUMNS = (
    ("State", "string", ".status.state", 0),
    ("Done", "string", ".status.progress", 0),
    ("Failed", "integer", ".status.failed", 0),
    # Why a partition failed or waits: the first of the list, failures before waits.
    ("Reason", "string", ".status.failures[0].reason", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Message", "string", ".status.failures[0].message", 1),
)
"""Name, type, path, priority; those above 0 are shown by `kubectl get -o wide`."""


class UnsupportedSchemaError(Exception):
    """A model uses something that a CRD cannot say."""


def crd() -> Schema:
    """The CustomResourceDefinition of EvalJob, ready to be written as YAML."""
    raw = EvalJob.model_json_schema(by_alias=True)
    schema = _structural(raw, raw.get("$defs", {}), "EvalJob")
    properties = schema["properties"]
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string"}
    properties["metadata"] = {"type": "object"}
    properties["status"].pop("default", None)
    schema["required"] = ["spec"]
    names = {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {**names, "shortNames": list(SHORT_NAMES), "categories": list(CATEGORIES)},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> Schema:
    """One node of JSON Schema as a structural schema."""
    node = _resolved(node, defs)
    out: Schema = {}
    for key, value in node.items():
        if key in _CHILDREN:
            out |= _children(key, value, defs, path)
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            # A CRD has the older form: a flag beside the bound.
            out |= {key.replace("exclusiveM", "m"): value, key: True}
        elif key == "const":
            out["enum"] = [value]
        elif key == "default":
            # Absent and empty mean the same; a default would only make objects longer.
            out |= {key: value} if isinstance(value, str | int | float) else {}
        elif key in _KEPT:
            # A copy: YAML would write what is shared as anchor and alias.
            out[key] = copy.deepcopy(value)
        elif key not in _DROPPED:
            raise UnsupportedSchemaError(f"{path}: a CRD has no {key!r}")
    return out


def _children(key: str, value: Any, defs: Mapping[str, Any], path: str) -> Schema:  # noqa: ANN401 - JSON
    """The schemas below a node: of fields, of list items, of map values."""
    if key == "properties":
        return {key: {k: _structural(v, defs, f"{path}.{k}") for k, v in value.items()}}
    if key == "items":
        return {key: _structural(value, defs, f"{path}[]")}
    if value is False:
        # The API server prunes or refuses unknown fields by itself.
        return {}
    # The pattern of a map's keys cannot be said in a CRD; the models check it at acceptance.
    inner = next(iter(value.values())) if key == "patternProperties" else value
    return {"additionalProperties": _structural(inner, defs, f"{path}{{}}")}


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference, and turn "this or null" into "this, may be absent"."""
    node = dict(node)
    if "$ref" in node:
        target = defs[node.pop("$ref").removeprefix("#/$defs/")]
        # A field's own description says more than its type's; the type's rules stay.
        node = {**_resolved(target, defs), **node}
    options = node.pop("anyOf", None)
    if options is None:
        return node
    if node.get("x-kubernetes-int-or-string"):
        return node  # the one union that a CRD knows
    real = [o for o in options if o.get("type") != "null"]
    if len(real) != 1:
        raise UnsupportedSchemaError(f"a union of {len(real)} types: {options}")
    if node.get("default", ...) is None:
        del node["default"]
    return {**_resolved(real[0], defs), **node}
