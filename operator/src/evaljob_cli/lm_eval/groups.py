"""Groups of tasks. Members that differ only in their data become one task with subsets: one partition for all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaljob.lmeval import slug
from evaljob_cli.inputs import InputError
from evaljob_cli.lm_eval import convert as tasks
from evaljob_cli.lm_eval.convert import Conversion
from evaljob_cli.lm_eval.notes import Notes, Unfit
from evaljob_cli.lm_eval.prompts import Document
from evaljob_cli.lm_eval.reading import Config, Function, folder_files, read
from evaljob_cli.lm_eval.shapes import problem

_COLUMN = "subset"
_OWN = frozenset(
    ("task", "task_alias", "tag", "dataset_name", "description", "metadata", "group", "group_alias")
)
"""Fields in which the members of a group may differ."""
_POOLED = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
"""Metrics of which several subsets by size are one here: what all their samples give together."""
_GROUP_FIELDS = frozenset(("group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata"))


@dataclass(frozen=True)
class Group:
    """A group with its members resolved."""

    config: Config
    members: tuple["Group | Config", ...]

    @property
    def tasks(self) -> Iterator[Config]:
        """All tasks below it."""
        for member in self.members:
            if isinstance(member, Group):
                yield from member.tasks
            else:
                yield member

    @property
    def groups(self) -> Iterator["Group"]:
        """All groups below it and itself, inner ones first."""
        for member in self.members:
            if isinstance(member, Group):
                yield from member.groups
        yield self


def convert(config: Config, path: Path, places: Sequence[Path]) -> Conversion:
    """Convert what a file holds: a task, or a group whose members stand below its folder or `places`.

    Raises:
        InputError: for a field that has another form than lm-eval's.
    """
    if why := problem(config):
        raise InputError(f"{path}: {why}")
    if isinstance(config.get("task"), str) or "task" not in config:
        return tasks.convert(config)
    notes = Notes()
    try:
        group = _Index((path.parent, *places)).group(config)
        shared = _shared(list(group.tasks))
        if why := problem(shared):
            raise Unfit(f"its tasks: {why}")
        made = tasks.convert(shared)
        document = None if made.document is None else made.document | _subsets(group, made.document, notes)
    except Unfit as why:
        notes.adapter("group", f"{why}; import its tasks one by one, as datasets of their own")
        return Conversion(None, tuple(notes.rows))
    return Conversion(document, made.rows + tuple(notes.rows))


class _Index:
    """Tasks and groups by name, tasks by tag."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)

    @cached_property
    def _named(self) -> Mapping[str, list[Config]]:
        found: dict[str, list[Config]] = {}
        for path in (path for folder in self._folders for path in folder_files(folder)):
            try:
                config = read(path, self._folders)
            except InputError:
                continue  # no task of lm-eval; where it is a member, the group says that it is missing
            tags = config.get("tag")
            names = [config.get("group", config.get("task")), *(tags if isinstance(tags, list) else [tags])]
            for name in {name for name in names if isinstance(name, str)}:
                found.setdefault(name, []).append(config)
        return found

    def group(self, config: Config, within: tuple[str, ...] = ()) -> Group:
        """A group's members, and theirs.

        Raises:
            Unfit: for a member that is not there, or a group within itself.
        """
        name = str(config.get("group"))
        if name in within:
            raise Unfit(f"{name} holds itself")
        if why := problem(config):
            raise Unfit(f"{name}: {why}")
        if isinstance(averaged := config.get("aggregate_metric_list"), Mapping):
            config = {**config, "aggregate_metric_list": [averaged]}
        listed = config.get("task") or []
        members = [m for item in listed for m in self._members(item, (*within, name))]
        if not members:
            raise Unfit("no tasks")
        return Group(config, tuple(members))

    def _members(self, item: object, within: tuple[str, ...]) -> Iterator[Group | Config]:
        changes = dict(item) if isinstance(item, Mapping) else {"task": item}
        name = changes.pop("group", None) or changes.pop("task", None)
        if isinstance(name, list) or (isinstance(item, Mapping) and isinstance(item.get("task"), list)):
            yield self.group(item if isinstance(item, Mapping) else {}, within)
            return
        found = self._named.get(str(name))
        if not found and "output_type" not in changes:
            raise Unfit(f"{name} is in no file beside it: --include-path names further folders")
        for config in found or [{"task": name}]:
            whole = {**config, **changes}
            yield self.group(whole, within) if isinstance(whole.get("task"), list) else whole


def _shared(members: Sequence[Config]) -> dict[str, Any]:
    """The one task that all members are, with the subset's name in the description.

    Raises:
        Unfit: where they differ in more than their data.
    """
    first = members[0]
    for member in members[1:]:
        keys = {k for k in first.keys() | member.keys() if first.get(k) != member.get(k)} - _OWN
        if keys:
            raise Unfit(f"{member.get('task')} differs from {first.get('task')} in {', '.join(sorted(keys))}")
    names = _names(members)
    texts = {name: member.get("description") or "" for name, member in zip(names, members, strict=True)}
    if any(isinstance(text, Function) or not isinstance(text, str) for text in texts.values()):
        raise Unfit("descriptions that are no texts")
    return {**first, "description": _description(texts)}


def _names(members: Sequence[Config]) -> list[str]:
    names = [str(member.get("dataset_name")) for member in members]
    if len(set(names)) < len(names) or "None" in names:
        raise Unfit("its tasks are not told apart by dataset_name, the folders of one dataset")
    return names


def _description(texts: Mapping[str, str]) -> str:
    """The description of each subset as one template."""
    for spelled, template in ((" ", "{{ subset|replace('_', ' ') }}"), ("_", "{{ subset }}")):
        made = {text.replace(name.replace("_", spelled), template) for name, text in texts.items()}
        if len(made) == 1:
            return made.pop()
    return f"{{{{ {dict(texts)!r}[subset] }}}}"


def _subsets(group: Group, document: Document, notes: Notes) -> Document:
    """What makes the shared task one with subsets, and its groups."""
    members = list(group.tasks)
    notes.carried("task", f"{len(members)} tasks are subsets, by folder (dataset_name) or column `{_COLUMN}`")
    for name in sorted(group.config.keys() - _GROUP_FIELDS):
        notes.lost(f"group: {name}", "unknown")
    found: Document = {"subsets": {"column": _COLUMN}}
    if few_shot := document.get("fewShot"):
        found["fewShot"] = few_shot | {"pool": "SameSubset"}
    averaged = [g for g in group.groups if g.config.get("aggregate_metric_list")]
    if averaged:
        found["groups"] = [_average(g, notes) for g in averaged]
    return found


def _average(group: Group, notes: Notes) -> Document:
    """A group's mean over all of its tasks, however deep, as lm-eval takes it."""
    name = str(group.config.get("group"))
    for item in group.config["aggregate_metric_list"]:
        if item.get("aggregation", "mean") != "mean":
            notes.lost(f"group {name}: aggregation", "not a mean")
    weighs = {bool(item.get("weight_by_size", True)) for item in group.config["aggregate_metric_list"]}
    if len(weighs) > 1:
        notes.lost(f"group {name}: weight_by_size", "another one for each metric")
    notes.carried(f"group {name}")
    members = _names(list(group.tasks))
    if True in weighs and len(members) > 1:
        averaged = [item.get("metric") for item in group.config["aggregate_metric_list"]]
        for metric in (name for name in _POOLED if name in averaged):
            notes.lost(
                f"group {name}: {metric}",
                "by size lm-eval averages the tasks' numbers; here it is made of all their texts together",
            )
    weighting = "BySize" if True in weighs else "Equal"
    return {"name": slug(name), "members": members, "weighting": weighting}
