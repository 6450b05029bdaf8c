"""The catalogue's tasks, from the package data of `evaljob`."""

from importlib.resources import files

import yaml

from evaljob.task import Task


def catalogue() -> dict[str, Task]:
    """Every task of the catalogue by name, in the order of names."""
    found = (f for f in files("evaljob").joinpath("tasks").iterdir() if f.name.endswith(".yaml"))
    loaded = {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text("utf-8")) for f in found}
    return {name: Task.model_validate(document) for name, document in sorted(loaded.items())}
