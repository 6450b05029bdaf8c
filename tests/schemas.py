"""Values from the CRD's schema, for hypothesis.

Not hypothesis-jsonschema: of JSON Schema a CRD has this small part, and what it has beyond (lists that are maps,
integer-or-string) is what matters here. CEL rules are not known here: whoever draws asks what accepts.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from evaljob.crd import crd

Json = Any
Schema = dict[str, Any]
SPEC: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
ITEMS_MAX = 3
"""Longer lists and maps show nothing new."""
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_ASCII = st.characters(min_codepoint=32, max_codepoint=126)


def values(schema: Schema) -> SearchStrategy[Json]:
    """Values that the schema accepts."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**40) | _text(schema)
    return _MADE[schema["type"]](schema)


@st.composite
def changed(draw: DrawFn, schema: Schema, value: Json, most: int = 4) -> Json:
    """A value with a few of its fields, or of those that the schema has beside them, drawn anew.

    Args:
        draw: hypothesis' own.
        schema: of the value.
        value: where to begin; stays as it is.
        most: how many changes.
    """
    value = copy.deepcopy(value)
    places = st.sampled_from(list(_places(schema, value)))
    for path, found in draw(st.lists(places, min_size=1, max_size=most, unique_by=lambda p: p[0])):
        parent = _at(value, path[:-1])
        if isinstance(parent, dict | list):  # still what it was before the other changes
            parent[path[-1]] = draw(values(found))
    return value


def _places(
    schema: Schema, value: Json, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Schema]]:
    """Where a value can be changed: its fields, and those that it could have."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            yield (*path, name), inner
            yield from _places(inner, value.get(name), (*path, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _places(schema["items"], item, (*path, i))


def _at(value: Json, path: tuple[Any, ...]) -> Json:
    for part in path:
        if not (isinstance(value, dict) and part in value) and not (
            isinstance(value, list) and part < len(value)
        ):
            return None
        value = value[part]
    return value


def _object(schema: Schema) -> SearchStrategy[Json]:
    if isinstance(inner := schema.get("additionalProperties"), dict):
        keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True) | _TEXT
        return st.dictionaries(keys, values(inner), max_size=ITEMS_MAX)
    required = set(schema.get("required", ()))
    fields = {k: values(v) for k, v in schema.get("properties", {}).items()}
    return st.fixed_dictionaries(
        {k: v for k, v in fields.items() if k in required},
        optional={k: v for k, v in fields.items() if k not in required},
    )


def _array(schema: Schema) -> SearchStrategy[Json]:
    least = schema.get("minItems", 0)
    keys = schema.get("x-kubernetes-list-map-keys")
    unique_by = (lambda item: tuple(item.get(k) for k in keys)) if keys else None
    most = max(least, min(ITEMS_MAX, schema.get("maxItems", ITEMS_MAX)))
    return st.lists(values(schema["items"]), min_size=least, max_size=most, unique_by=unique_by)


def _text(schema: Schema) -> SearchStrategy[Json]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"], fullmatch=True, alphabet=_ASCII)
        return found.filter(lambda text: least <= len(text) <= most)
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(most, least + 40))


def _number(schema: Schema) -> SearchStrategy[Json]:
    return st.floats(
        schema.get("minimum"),
        schema.get("maximum"),
        exclude_min=schema.get("exclusiveMinimum", False),
        exclude_max=schema.get("exclusiveMaximum", False),
        allow_nan=False,
        allow_infinity=False,
    )


def _integer(schema: Schema) -> SearchStrategy[Json]:
    return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))


_MADE: dict[str, Callable[[Schema], SearchStrategy[Json]]] = {
    "object": _object,
    "array": _array,
    "string": _text,
    "number": _number,
    "integer": _integer,
    "boolean": lambda _: st.booleans(),
}
