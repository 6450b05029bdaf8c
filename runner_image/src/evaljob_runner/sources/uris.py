"""URIs -> files. Nothing is opened here."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaljob.fields import HUB_SCHEME, S3_SCHEME
from evaljob.names import Reason
from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal
from evaljob_runner.sources.layouts import FORMS, SUFFIXES, split_files, split_folders
from evaljob_runner.sources.rows import JsonLines, Labelled, RowFile, Rows


def resolve(uri: str, places: Places, missing: Reason = Reason.BAD_DATA) -> Path:
    """The existing file or folder that a URI names.

    Args:
        uri: `pvc://<claim>/<path>` or `configmap://<name>/<key>`.
        places: where they are mounted.
        missing: the reason to give when nothing is there.

    Raises:
        Fatal: when the mount is not given, the path leaves it, or nothing is there.
    """
    root, path = mount(uri, places)
    found = inside(root, root / path, uri)
    if not found.exists():
        beside = [path.name for path in found.parent.iterdir()] if found.parent.is_dir() else []
        raise Fatal(missing, _nothing(uri, beside))
    return found


def _nothing(uri: str, beside: Iterable[str]) -> str:
    """That nothing is there, and what is: mostly a name was mistyped."""
    return f"{uri}: nothing is there; beside it: {_some(sorted(beside))}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(names[:10]) or 'none'}{more}"


def mount(uri: str, places: Places) -> tuple[Path, str]:
    """The folder where a URI's claim or ConfigMap is mounted, and the path in it.

    Raises:
        Fatal: BadConfiguration, when the command line does not say where.
    """
    scheme, _, rest = uri.partition("://")
    name, _, path = rest.partition("/")
    known, option = (places.claims, "--mount") if scheme == "pvc" else (places.config_maps, "--config-map")
    if name not in known:
        raise Fatal(Reason.BAD_CONFIGURATION, f"{uri}: give {option} {name}=DIR, it says where {name!r} is")
    return known[name], path


def inside(root: Path, path: Path, name: str) -> Path:
    """The path with symbolic links followed.

    Raises:
        Fatal: BadConfiguration, when it leads out of `root`: a claim must not read the node or the pod.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise Fatal(Reason.BAD_CONFIGURATION, f"{name}: leads out of its volume")
    return real


@dataclass(frozen=True)
class Source:
    """What a dataset is read from: the files of one table, or a folder in which splits are looked for."""

    name: str
    """In messages and nowhere else."""
    fetch: Callable[[Sequence[str]], Sequence[RowFile]]
    """Names -> files that can be opened."""
    files: tuple[str, ...] = ()
    """Of the one table; none for a folder."""
    names: tuple[str, ...] = ()
    """What is there."""
    folder: str = ""
    """What all names begin with; the layout of splits begins behind it."""
    commit: str | None = None
    """Of a hub's repository: with a file's name it says which bytes that is."""

    def table(self) -> Rows:
        """The rows of the one table.

        Raises:
            Fatal: BadData, for a folder.
        """
        if not self.files:
            raise Fatal(Reason.BAD_DATA, f"{self.name}: a folder, but the task needs one file{self._there()}")
        return self._rows(self.name, self.files, self.fetch(self.files))

    def split(self, split: str, subset_column: str | None) -> Rows:
        """The rows of a split.

        Args:
            split: its name.
            subset_column: where each folder has a split of its own, the column in which the folder's name stands.

        Raises:
            Fatal: BadData, when the source does not have it, or in a form that says nothing sure.
        """
        name = f"{self.name} split {split}"
        inner = [n.removeprefix(self.folder) for n in self.names]
        if names := [self.folder + n for n in split_files(inner, split, self.name)]:
            return self._rows(name, names, self.fetch(names))
        folders = split_folders(inner, split, self.name) if subset_column else {}
        if not folders or not subset_column:
            forms = FORMS.replace("SPLIT", split)
            raise Fatal(Reason.BAD_DATA, f"{self.name}: no split {split!r} ({forms}){self._there()}")
        labels = {self.folder + n: folder for folder, files in folders.items() for n in files}
        files = zip(self.fetch(list(labels)), labels.values(), strict=True)
        return self._rows(name, labels, [Labelled(file, subset_column, label) for file, label in files])

    def _rows(self, name: str, names: Iterable[str], files: Sequence[RowFile]) -> Rows:
        identity = " ".join([self.commit, *names]) if self.commit else None
        return Rows(name, tuple(files), identity)

    def _there(self) -> str:
        found = [name for name in self.names if name.endswith(SUFFIXES)]
        return f"; data files there: {_some(found)}"


def open_source(uri: str | None, inline: str | None, places: Places, scratch: Path) -> Source:
    """A dataset's source.

    Args:
        uri: None for rows that are inline.
        inline: the rows then.
        places: where claims and ConfigMaps are mounted.
        scratch: a folder for copies of objects.

    Raises:
        Fatal: as `resolve`. More where a hub or a bucket is asked.
        Retry: when they do not answer.
    """
    if uri is None:
        return Source("inline", lambda _: [JsonLines("inline.jsonl", inline=inline or "")], files=("",))
    if uri.startswith(S3_SCHEME):
        return _in_bucket(uri, scratch)
    return _on_hub(uri) if uri.startswith(HUB_SCHEME) else _mounted(uri, places)


def _mounted(uri: str, places: Places) -> Source:
    """A file, a folder, or the beginning of the names of a split's files."""
    root, name = mount(uri, places)
    path = root / name
    inside(root, path, uri)
    at, inner, base = path.parent, path.name, uri.rpartition("/")[0]
    if path.is_dir():
        at, inner, base = path, "", uri

    def fetch(names: Sequence[str]) -> list[RowFile]:
        labels = {name: f"{base}/{name}" for name in names}
        return [row_file(label, inside(root, at / name, label)) for name, label in labels.items()]

    if path.is_file():
        return Source(uri, fetch, files=(inner,))
    names = (f.relative_to(at).as_posix() for pattern in ("*", "*/*") for f in at.glob(pattern))
    return _located(uri, inner, sorted(names), fetch)


def _on_hub(uri: str) -> Source:
    """As `_mounted`, in a repository. Only the files that a task needs are fetched."""
    from evaljob_runner.sources import hub  # noqa: PLC0415 - the library takes 0.4 s

    repository = hub.Repository(uri, "dataset")
    snapshot = hub.open_repository(repository)

    def fetch(names: Sequence[str]) -> list[RowFile]:
        folder = snapshot.fetch(names)
        labels = {name: f"{HUB_SCHEME}{repository.name}@{repository.revision}/{name}" for name in names}
        return [row_file(label, inside(hub.CACHE, folder / name, label)) for name, label in labels.items()]

    found = _located(uri, repository.path, snapshot.names, fetch)
    return replace(found, commit=snapshot.commit)


def _in_bucket(uri: str, scratch: Path) -> Source:
    """As `_mounted`, of copies: rows are read twice, and not in one piece."""
    from evaljob_runner.sources.s3 import Bucket  # noqa: PLC0415 - pyarrow's client takes 0.1 s

    bucket = Bucket(uri)
    folder, names = bucket.names()
    inner = uri.removeprefix(f"{S3_SCHEME}{folder}").removeprefix("/")

    def fetch(names: Sequence[str]) -> list[RowFile]:
        bucket.copy(folder, names, scratch)
        return [row_file(f"{S3_SCHEME}{folder}/{name}", scratch / name) for name in names]

    return _located(uri, inner, names, fetch)


def _located(
    uri: str, path: str, names: Sequence[str], fetch: Callable[[Sequence[str]], Sequence[RowFile]]
) -> Source:
    """What a path means among these names.

    Raises:
        Fatal: BadData, when it means nothing.
    """
    if path in names:
        return Source(uri, fetch, files=(path,))
    folder = f"{path}/" if path else ""
    if not path or any(name.startswith(folder) for name in names):
        below = tuple(name for name in names if name.startswith(folder))
        return Source(uri, fetch, names=below, folder=folder)
    parent, slash, split = path.rpartition("/")
    beside = [n.removeprefix(parent + slash) for n in names if n.startswith(parent + slash)]
    files = tuple(parent + slash + name for name in split_files(beside, split, uri))
    if not files:
        raise Fatal(Reason.BAD_DATA, _nothing(uri, {name.partition("/")[0] for name in beside}))
    return Source(uri, fetch, files=files)


def row_file(name: str, path: Path) -> RowFile:
    """The file by the suffix of its name; what is not Parquet is JSON lines, whatever it is called."""
    if name.endswith(".parquet"):
        from evaljob_runner.sources.parquet import Parquet  # noqa: PLC0415 - pyarrow takes 60 ms and 60 MB

        return Parquet(name, path)
    return JsonLines(name, path)
