"""Metrics that look into JSON."""

from collections.abc import Mapping

from evaljob_runner.extract import Json, first_json
from evaljob_runner.metrics.base import Args, Definition, as_text, simple


def _json_valid(value: Json, _target: str, _args: Args) -> bool:
    return not isinstance(value, str) or first_json(value) is not None


def _field_match(value: Json, target: str, args: Args) -> bool:
    found = first_json(value) if isinstance(value, str) else value
    field = args["field"]
    return isinstance(found, dict) and field in found and as_text(found[field]) == target


METRICS: Mapping[str, Definition] = {
    "json_valid": Definition(simple(_json_valid)),
    "field_match": Definition(simple(_field_match)),
}
