"""URIs -> files, and which files are a split. Nothing is opened here."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaljob.fields import HUB_SCHEME
from evaljob.names import Reason
from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal
from evaljob_runner.rows import JsonLines, RowFile, Rows

SUFFIXES = (".jsonl", ".parquet")
_NAMES = "SPLIT.jsonl, SPLIT.parquet, SPLIT-00000-of-00001.parquet or SPLIT/*.parquet, also below data/"


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
        raise Fatal(missing, f"{uri}: nothing is there")
    return found


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
    """What a dataset is read from: one file, or a folder with files by split."""

    name: str
    """In messages and nowhere else."""
    fetch: Callable[[Sequence[str]], Sequence[RowFile]]
    """Names -> files that can be opened."""
    file: str | None = None
    """The one file; None for a folder."""
    names: tuple[str, ...] = ()
    """What is there."""
    folder: str = ""
    """What all names begin with; the layout of splits begins behind it."""
    commit: str | None = None
    """Of a hub's repository: with a file's name it says which bytes that is."""

    def rows(self, split: str | None) -> Rows:
        """The rows of a split (None: of the one file).

        Raises:
            Fatal: BadData, when the source does not have it, or in a form that says nothing sure.
        """
        if self.file is not None:
            return self._opened(self.name, [self.file])
        if split is None:
            raise Fatal(Reason.BAD_DATA, f"{self.name}: a folder, but the task needs one file{self._there()}")
        inner = [name.removeprefix(self.folder) for name in self.names]
        names = [self.folder + name for name in split_files(inner, split, self.name)]
        if not names:
            forms = _NAMES.replace("SPLIT", split)
            raise Fatal(Reason.BAD_DATA, f"{self.name}: no split {split!r} ({forms}){self._there()}")
        return self._opened(f"{self.name} split {split}", names)

    def _opened(self, name: str, names: list[str]) -> Rows:
        identity = " ".join([self.commit, *names]) if self.commit else None
        return Rows(name, tuple(self.fetch(names)), identity)

    def _there(self) -> str:
        found = [name for name in self.names if name.endswith(SUFFIXES)]
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        return f"; data files there: {', '.join(found[:10]) or 'none'}{more}"


def split_files(names: Iterable[str], split: str, source: str) -> list[str]:
    """The files of a split, in order.

    The forms are those of a Hugging Face hub's dataset repositories: `test.jsonl`, `test-00000-of-00002.parquet`
    (older ones end in a hash), and `test/0000.parquet`, which the hub's own conversion to Parquet writes.

    Raises:
        Fatal: BadData, when two forms are there, or a numbered file is missing.
    """
    form = re.compile(
        rf"(?P<where>(?:data/)?){re.escape(split)}"
        r"(?:-(?P<number>\d+)-of-(?P<of>\d+)(?:-[0-9a-f]{16})?|(?P<folder>/)[^/]+)?(?P<suffix>\.jsonl|\.parquet)"
    )
    found = [match for name in sorted(names) if (match := form.fullmatch(name))]
    forms = {(m["where"], m["of"], m["folder"], m["suffix"]): m[0] for m in found}
    if len(forms) > 1:
        raise Fatal(
            Reason.BAD_DATA,
            f"{source}: split {split!r} is there more than once ({', '.join(forms.values())}): name one file",
        )
    numbers = [int(m["number"]) for m in found if m["number"]]
    if numbers and numbers != list(range(int(found[0]["of"]))):
        raise Fatal(
            Reason.BAD_DATA, f"{source}: split {split!r} has {len(numbers)} of {int(found[0]['of'])} files"
        )
    return [m[0] for m in found]


def open_source(uri: str | None, inline: str | None, places: Places) -> Source:
    """A dataset's source.

    Raises:
        Fatal: as `resolve`. More where a hub is asked (`hub.open_repository`).
    """
    if uri is None:
        return Source("inline.jsonl", lambda _: [JsonLines("inline.jsonl", inline=inline or "")], file="")
    if uri.startswith(HUB_SCHEME):
        return _on_hub(uri)
    root, _ = mount(uri, places)
    path = resolve(uri, places)

    def fetch(names: Sequence[str]) -> list[RowFile]:
        found = ((f"{uri}/{name}" if name else uri, path / name) for name in names)
        return [row_file(label, inside(root, file, label)) for label, file in found]

    if path.is_file():
        return Source(uri, fetch, file="")
    names = (f.relative_to(path).as_posix() for pattern in ("*", "*/*") for f in path.glob(pattern))
    return Source(uri, fetch, names=tuple(sorted(names)))


def _on_hub(uri: str) -> Source:
    """A file or a folder of a hub's repository. Only the files that a task needs are fetched."""
    from evaljob_runner import hub  # noqa: PLC0415 - the library takes 0.4 s

    repository = hub.Repository(uri, "dataset")
    snapshot, path = hub.open_repository(repository), repository.path

    def fetch(names: Sequence[str]) -> list[RowFile]:
        folder = snapshot.fetch(names)
        labels = {name: f"{HUB_SCHEME}{repository.name}@{repository.revision}/{name}" for name in names}
        return [row_file(label, inside(hub.CACHE, folder / name, label)) for name, label in labels.items()]

    if path in snapshot.names:
        return Source(uri, fetch, file=path, commit=snapshot.commit)
    folder = f"{path}/" if path else ""
    names = tuple(name for name in snapshot.names if name.startswith(folder))
    if not names:
        raise Fatal(Reason.BAD_DATA, f"{uri}: nothing is there")
    return Source(uri, fetch, names=names, folder=folder, commit=snapshot.commit)


def row_file(name: str, path: Path) -> RowFile:
    """The file by the suffix of its name; what is not Parquet is JSON lines, whatever it is called."""
    if name.endswith(".parquet"):
        from evaljob_runner.parquet import Parquet  # noqa: PLC0415 - pyarrow takes 60 ms and 60 MB

        return Parquet(name, path)
    return JsonLines(name, path)
