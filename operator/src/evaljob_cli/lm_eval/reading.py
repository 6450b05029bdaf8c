"""lm-eval's YAML files -> plain data, with `include:` resolved and `!function` named but never imported."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from evaljob_cli.inputs import NOT_YAML, InputError, not_yaml

Config = Mapping[str, Any]


class Function(str):
    """A `!function` tag: Python that only lm-eval can run."""

    __slots__ = ()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # with libyaml ten times faster
    pass


def _function(loader: Any, node: yaml.ScalarNode) -> Function:  # noqa: ANN401 - one of two classes
    return Function(loader.construct_scalar(node))


_Loader.add_constructor("!function", _function)


def read(path: Path, places: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A task's or group's YAML with what it includes; its own keys win.

    Args:
        path: the file.
        places: folders where an include is looked for after the file's own.

    Raises:
        InputError: for a file that cannot be read, is no YAML mapping, or includes itself.
    """
    return _read(path, places, ())


def _read(path: Path, places: tuple[Path, ...], within: tuple[Path, ...]) -> dict[str, Any]:
    if path in within:
        raise InputError(f"{path}: includes itself, by {' and '.join(p.name for p in within)}")
    try:
        found = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}: give the YAML file of a task or group of lm-eval"
        ) from error
    except NOT_YAML as error:
        raise InputError(f"{path}: {not_yaml(error)}") from error
    if not isinstance(found, dict):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise InputError(f"{path}: holds {what}, a task of lm-eval is a mapping")
    own = {str(key): value for key, value in found.items()}
    included = own.pop("include", [])
    merged: dict[str, Any] = {}
    for name in _names(path, included):
        merged |= _read(_place(path, str(name), places), places, (*within, path))
    return merged | own


def _names(path: Path, included: object) -> list[object]:
    if isinstance(included, str):
        return [included]
    if isinstance(included, list):
        return included
    raise InputError(f"{path}: include: {included!r}: the name of a file, or a list of names, is needed")


def _place(path: Path, name: str, places: tuple[Path, ...]) -> Path:
    """Where an included file is."""
    for folder in (path.parent, *places):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{path}: include: {name} is not beside it; --include-path names further folders")


def folder_files(folder: Path) -> Iterator[Path]:
    """All YAML files of a folder, in the order of their names."""
    return (path for path in sorted(folder.rglob("*.yaml")) if path.is_file())
