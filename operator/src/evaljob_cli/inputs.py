"""What a user gives: an EvalJob file and `name=value` options. Errors name the field, the value and the fix."""

import datetime as dt
import uuid
import zlib
from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import ValidationError

from evaljob.names import KIND
from evaljob.packing import unpack
from evaljob.plan import Plan
from evaljob.planning import Settings, make_plan
from evaljob.spec import CHANGEABLE, EvalJob, InvalidSpecError, Output, parse_evaljob
from evaljob.summary import SUMMARY_VERSION, CellState, Summary
from evaljob.task import SCORING_FIELDS
from evaljob_cli.catalogue import catalogue

_UID_SPACE = uuid.UUID("5f7b1f6e-1b57-5f0e-9d4e-6d0c0a3f2e11")
"""Any fixed UUID: it keeps local uids apart from everything else that is derived with uuid5."""
NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises: all but the first where a value looks like a date or a number and is none, and for depth."""


class InputError(Exception):
    """What the user gave cannot be used. The message says where, what and how to mend it."""


def not_yaml(error: Exception) -> str:
    """Why a file is no YAML, where PyYAML raised one of NOT_YAML."""
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return f"not YAML: {error}"
    if isinstance(error, RecursionError):
        return "not YAML: nested too deeply"
    return f"not YAML: a value looks like a date or a number and is none, put it in quotes: {error}"


def read_evaljob(path: Path) -> EvalJob:
    """The one EvalJob of a YAML file; other documents beside it are skipped.

    Raises:
        InputError: for a file that cannot be read, is not YAML, holds no or several EvalJobs, or a wrong one.
    """
    try:
        with path.open(encoding="utf-8") as file:
            documents = list(yaml.safe_load_all(file))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give a YAML file with one {KIND}") from error
    except NOT_YAML as error:
        raise InputError(f"{path}: {not_yaml(error)}") from error
    kinds = [d.get("kind", "none") if isinstance(d, dict) else "none" for d in documents]
    found = [document for document, kind in zip(documents, kinds, strict=True) if kind == KIND]
    if len(found) != 1:
        raise InputError(
            f"{path}: holds {len(found)} documents of kind {KIND}, give a file with exactly one; "
            f"there: {', '.join(map(str, kinds)) or 'nothing'}"
        )
    try:
        return parse_evaljob(found[0])
    except InvalidSpecError as error:
        raise InputError(f"{path}: {error.reason}: {error}") from error


def read_summary(name: object, content: bytes) -> Summary:
    """A summary that `evaljob run` or the operator wrote.

    Args:
        name: of the file, for messages.
        content: of summary.json or summary.json.gz.

    Raises:
        InputError: for anything else, and for one that lacks a part.
    """
    try:
        found = Summary.model_validate_json(unpack(content))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: a damaged summary.json.gz: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise InputError(f"{name}: not a summary.json: {where}: {first['msg']}") from error
    if why := _lacks(found):
        raise InputError(f"{name}: {why}")
    return found


def _lacks(found: Summary) -> str | None:
    """What keeps a summary from being shown, or None."""
    if found.v != SUMMARY_VERSION:
        return f"v: {found.v}: this evaljob reads {SUMMARY_VERSION}, use the one that wrote it"
    pairs = [(model.name, dataset.name) for dataset in found.datasets for model in found.models]
    if [(cell.model, cell.dataset) for cell in found.cells] != pairs:
        return "cells: not one for each model on each dataset: take the file as it was written"
    for number, cell in enumerate(found.cells):
        shown = [part for part in cell.parts if part.kind != "subset"]
        scored = all(any(score.primary for score in part.scores) for part in shown)
        if not scored or (cell.state is CellState.COMPLETE and not shown):
            return f"cells[{number}].parts: no primary score: take the file as it was written"
    return None


def identified(evaljob: EvalJob) -> EvalJob:
    """The EvalJob with a uid that stands in for the API server's: equal for an equal name and spec.

    So a second run in the same folder finds the answers of served models, and a changed spec does not.
    What may change of a spec changes no answer and so no uid, nor does how a task scores them.
    """
    scoring = {"datasets": {"__all__": {"task_spec": SCORING_FIELDS}}}
    others = dict.fromkeys((*CHANGEABLE, "judges"), True)
    spec = evaljob.spec.model_dump_json(by_alias=True, exclude_none=True, exclude={**others, **scoring})
    uid = str(uuid.uuid5(_UID_SPACE, f"{evaljob.metadata.name}\n{spec}"))
    return evaljob.model_copy(update={"metadata": evaljob.metadata.model_copy(update={"uid": uid})})


def durable(evaljob: EvalJob) -> EvalJob:
    """The EvalJob with an output claim: on this machine sample logs always stay."""
    output = evaljob.spec.output or Output(claim_name="local")
    return evaljob.model_copy(update={"spec": evaljob.spec.model_copy(update={"output": output})})


def resolve(evaljob: EvalJob, settings: Settings, date: dt.date) -> Plan:
    """The EvalJob's plan, with the catalogue of this installation.

    Raises:
        InputError: for a spec that can never run.
    """
    try:
        return make_plan(evaljob, catalogue(), settings, date)
    except InvalidSpecError as error:
        raise InputError(f"{evaljob.metadata.name}: {error.reason}: {error}") from error


def assignments(option: str, given: Iterable[str] | None, *, folders: bool = False) -> dict[str, Path]:
    """`NAME=PATH` options as absolute paths by name.

    Args:
        option: its name.
        given: its values.
        folders: whether they are folders, else files.

    Raises:
        InputError: without `=`, for a name given twice, and for a path that does not exist or is of the other kind.
    """
    found: dict[str, Path] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise InputError(f"{option} {text!r}: write NAME=PATH")
        if name in found:
            raise InputError(f"{option} {text!r}: {name} is given twice")
        path = Path(value).expanduser().absolute()
        if not path.exists():
            raise InputError(f"{option} {text!r}: {path} does not exist")
        if path.is_dir() != folders:
            raise InputError(f"{option} {text!r}: {path} is {'no' if folders else 'a'} folder")
        found[name] = path
    return found
