"""What is wrong with a document, in words for who wrote it: path, value, and what would be right."""

import difflib
from collections.abc import Iterable
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_SHOWN = 5
"""Mistakes that are told; more are counted."""
NAMES_SHOWN = 20
"""Names in one message, which stands in a status: EvalJobs may have hundreds of models and datasets."""
_WANTED = {
    **dict.fromkeys(("model_type", "dict_type"), "a mapping is needed"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list is needed"),
}
"""By type of mistake, where pydantic speaks of Python."""


def found(error: ValidationError) -> list[ErrorDetails]:
    """The mistakes, without "too short" about a list that is only short of its faulty items."""
    all_ = error.errors(include_url=False)
    places = [e["loc"] for e in all_]

    def echo(e: ErrorDetails) -> bool:
        place = e["loc"]
        return e["type"] == "too_short" and any(p != place and p[: len(place)] == place for p in places)

    return [e for e in all_ if not echo(e)]


def explain(mistakes: list[ErrorDetails], root: type[BaseModel]) -> str:
    """The first mistakes, each with its path in kubectl's notation.

    Args:
        mistakes: of a document.
        root: what the document should have been.
    """
    lines = [_line(item, root) for item in mistakes[:_SHOWN]]
    more = len(mistakes) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    all_ = list(names)
    more = len(all_) - NAMES_SHOWN
    return ", ".join(all_[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _line(item: ErrorDetails, root: type[BaseModel]) -> str:
    place = item["loc"]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".") or "document"
    if item["type"] == "extra_forbidden":
        like = difflib.get_close_matches(str(place[-1]), _fields(root, place[:-1]), n=1, cutoff=0.8)
        return f"{path}: unknown field" + "".join(f", did you mean {name}?" for name in like)
    wanted = _WANTED.get(item["type"], item["msg"]).removeprefix("Value error, ")
    return f"{path}: {wanted.replace('Tuple should', 'a list should')}{_got(item['input'])}"


def _got(value: object) -> str:
    if value is None:
        return " (got nothing)"
    return f" (got {str(value)[:80]!r})" if isinstance(value, str | int | float | bool) else ""


def _fields(root: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """The fields that there are at a place of the document."""
    at: object = root
    for name in (p for p in place if isinstance(p, str)):
        at = get_args(at)[1] if get_origin(at) is dict else _by_alias(_model(at)).get(name)
    return list(_by_alias(_model(at)))


def _by_alias(kind: type[BaseModel] | None) -> dict[str, object]:
    return (
        {field.alias or name: field.annotation for name, field in kind.model_fields.items()} if kind else {}
    )


def _model(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation, such as the one of a tuple's items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((kind for part in get_args(annotation) if (kind := _model(part))), None)
