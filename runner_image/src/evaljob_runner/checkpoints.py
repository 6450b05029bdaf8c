"""A model's checkpoint: found, told apart from every other, and complete only when it is loaded.

A folder is identified by its content. A commit of a hub is its own identity: nothing is hashed, and its weights are
fetched when everything that could be refused has been looked at.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from evaljob.fields import HUB_SCHEME
from evaljob.names import Reason
from evaljob_runner.assignment import Assignment
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris

FULL_MAX = 2 * 1024**3
"""Weight files from this size on are sampled."""
WINDOWS, WINDOW_BYTES = 64, 64 * 1024
_WEIGHTS = frozenset({".safetensors", ".bin"})
_SMALL = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken"})


@dataclass(frozen=True)
class Checkpoint:
    """What identifies a checkpoint, and the way to its files."""

    digest: str
    """With a commit also the folder in the repository."""
    kind: Literal["sha256", "sampled", "commit"]
    """Of all bytes; of large files in part only; the commit of a hub's repository."""
    dated: bool
    """Whether the chat template reads the clock."""
    load: Callable[[], Path] = field(compare=False)
    """The folder, with all files in it."""

    def __str__(self) -> str:
        """As provenance records it; the folder in a repository stands in the spec."""
        return f"{self.kind}:{self.digest.partition('/')[0]}"


def find(work: Assignment) -> Checkpoint | None:
    """The checkpoint of a local model; None for a server's.

    Raises:
        Fatal: ModelNotFound, when there is none. More where a hub is asked (`hub.open_repository`).
    """
    if work.model.local is None:
        return None
    source = work.model.local.source
    if source.startswith(HUB_SCHEME):
        return _from_hub(source)
    folder = uris.resolve(source, work.places, missing=Reason.MODEL_NOT_FOUND)
    root, _ = uris.mount(source, work.places)
    return hashed(folder, root, source)


def tokenizer_folder(work: Assignment) -> Path | None:
    """A folder that holds the tokenizer of a local model, and not necessarily its weights; raises as `find`."""
    if work.model.local is None:
        return None
    source = work.model.local.source
    if not source.startswith(HUB_SCHEME):
        return uris.resolve(source, work.places, missing=Reason.MODEL_NOT_FOUND)
    from evaljob_runner.sources import hub  # noqa: PLC0415 - the library takes 0.4 s

    folder = hub.open_folder(hub.Repository(source, "model"))
    return folder.fetch(model_files(folder.names, weights=False))


def _from_hub(source: str) -> Checkpoint:
    from evaljob_runner.sources import hub  # noqa: PLC0415 - the library takes 0.4 s

    folder = hub.open_folder(hub.Repository(source, "model"))
    files = model_files(folder.names)
    small = model_files(folder.names, weights=False)
    if small == files:
        raise Fatal(Reason.MODEL_NOT_FOUND, f"{source}: no *.safetensors and no pytorch_model*.bin there")
    path = folder.fetch(small)
    _refuse_no_model(path, source)
    _refuse_missing_parts(path, files, source)
    dated = any(_reads_clock(name, uris.inside(hub.CACHE, path / name, source)) for name in small)
    return Checkpoint(folder.identity, "commit", dated, lambda: folder.fetch(files))


def model_files(names: Iterable[str], *, weights: bool = True) -> list[str]:
    """The files of a repository that transformers reads: of the top folder only, and weights once.

    Many repositories hold the same weights again: as pickles beside safetensors, as Mistral's `consolidated`, in
    folders for other engines.
    """
    top = [name for name in names if "/" not in name]
    small = [name for name in top if Path(name).suffix in _SMALL]
    safe = [name for name in top if name.endswith(".safetensors")]
    own = [name for name in safe if not name.startswith("consolidated")] or safe
    pickled = [name for name in top if name.startswith("pytorch_model") and name.endswith(".bin")]
    return small + (own or pickled) if weights else small


def hashed(folder: Path, root: Path, name: str) -> Checkpoint:
    """A checkpoint by its content: names, sizes, small files and weights.

    Args:
        folder: the checkpoint.
        root: the mounted claim; links out of it are refused.
        name: of the model, for messages.

    Raises:
        Fatal: ModelNotFound, when it is no checkpoint.
    """
    _refuse_no_model(folder, name)
    _refuse_missing_parts(folder, [p.name for p in folder.iterdir()], name)
    total, sampled, dated = hashlib.sha256(), False, False
    for path in sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS | _SMALL):
        real = uris.inside(root, path, f"{name}/{path.name}")
        if not real.is_file():
            continue
        size = real.stat().st_size
        with real.open("rb") as file:
            large = size >= FULL_MAX
            part = _sampled(file, size) if large else hashlib.file_digest(file, "sha256").digest()
        total.update(f"{path.name}\0{size}\0".encode() + part)
        sampled = sampled or large
        dated = dated or _reads_clock(path.name, real)
    return Checkpoint(total.hexdigest(), "sampled" if sampled else "sha256", dated, lambda: folder)


def _refuse_no_model(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise Fatal(Reason.MODEL_NOT_FOUND, f"{name}: no config.json, so this is no model folder")


def _refuse_missing_parts(folder: Path, names: Collection[str], source: str) -> None:
    """A copy that was broken off, or a cache that holds a part: an index names weights that are not there."""
    index = folder / "model.safetensors.index.json"
    if "model.safetensors" in names or not index.is_file():
        return
    try:
        parts = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"{source}: {index.name} is no index of weights") from error
    if missing := sorted(parts - set(names)):
        raise Fatal(
            Reason.MODEL_NOT_FOUND,
            f"{source}: {len(missing)} of {len(parts)} files with weights are not there, the first is {missing[0]}: "
            "fetch the whole model again",
        )


def _reads_clock(name: str, file: Path) -> bool:
    """By its name: behind a link of a hub's cache is a file without one."""
    return name.endswith((".json", ".jinja")) and b"strftime_now" in file.read_bytes()


def _sampled(file: BinaryIO, size: int) -> bytes:
    """The head with the safetensors header, and windows at fixed places over the whole file."""
    found = hashlib.sha256()
    header = int.from_bytes(file.read(8), "little")
    found.update(file.read(min(header, 128 * 1024**2)))
    for i in range(WINDOWS):
        file.seek((size - WINDOW_BYTES) * i // (WINDOWS - 1))
        found.update(file.read(WINDOW_BYTES))
    return found.digest()
