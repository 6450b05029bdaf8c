"""The base of every data class that crosses a boundary: frozen, closed, camelCase outside."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields.

    A dropped field can change a number, so an unknown one is an error (`UnsupportedField`) and never ignored.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> str:
        """The compact JSON form: camelCase, absent for None. Equal values give equal text."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def cel(rule: str, message: str, **more: str) -> dict[str, str]:
    """One CEL validation, answered by the API server at `kubectl apply`."""
    return {"rule": rule, "message": message, **more}


def exactly_one(*fields: str) -> str:
    """The CEL expression for "one of these is set".

    A sum and no filtered list, which costs more by the API server's estimate: a CRD whose rules exceed its budget is
    refused whole.
    """
    return " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields) + " == 1"


def cel_rules(*rules: dict[str, str]) -> ConfigDict:
    """The model configuration that carries CEL validations into the CRD."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [dict(rule) for rule in rules]})


def list_map(*keys: str) -> dict[str, Any]:
    """Schema of a list whose items the API server keeps unique by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
