"""The catalogue's tasks, from the package data of `evaljob`."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import yaml

from evaljob.task import Task


@cache
def catalogue() -> Mapping[str, Task]:
    """Every task of the catalogue by name, in the order of names."""
    found = (f for f in files("evaljob").joinpath("tasks").iterdir() if f.name.endswith(".yaml"))
    loaded = {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text("utf-8")) for f in found}
    return MappingProxyType({name: Task.model_validate(loaded[name]) for name in sorted(loaded)})
