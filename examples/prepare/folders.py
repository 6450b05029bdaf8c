"""Folders that are either complete or absent, and made again only when their inputs change."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DIRECTORY, FILE, SHARED = 0o755, 0o644, 0o1777
"""Modes: pods run as any user and must read the sources; every pod writes to the output."""


def digest(inputs: Mapping[str, str], code: Iterable[Path]) -> str:
    """SHA-256 of what a folder is made from: package versions and the code that reads them."""
    value = hashlib.sha256(json.dumps(dict(sorted(inputs.items()))).encode())
    for path in sorted(code):
        value.update(path.read_bytes())
    return value.hexdigest()


def _stamp(root: Path, name: str) -> Path:
    # Beside the folder, not in it: the digest of the weights covers a folder's files.
    return root / ".stamps" / name.replace("/", "-")


def is_current(root: Path, name: str, inputs: str) -> bool:
    """Whether `root/name` was made from inputs with this digest."""
    stamp = _stamp(root, name)
    return (root / name).is_dir() and stamp.is_file() and stamp.read_text() == inputs


def workspace(root: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the same file system as `root`, so that a rename can publish it."""
    root.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".making-", dir=root)


def publish(root: Path, name: str, made: Path, inputs: str) -> None:
    """Put the folder `made` at `root/name`, in one rename, and stamp it.

    Only the folder itself is replaced, never `root`: a kind node has `root` mounted.
    """
    made.chmod(DIRECTORY)
    for path in made.rglob("*"):
        path.chmod(DIRECTORY if path.is_dir() else FILE)
    target, stamp = root / name, _stamp(root, name)
    stamp.parent.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)
    if target.exists():
        shutil.rmtree(target)
    if target.parent != root:
        target.parent.mkdir(exist_ok=True)
        target.parent.chmod(DIRECTORY)
    made.rename(target)
    stamp.write_text(inputs)


def write_rows(path: Path, rows: Iterable["DataclassInstance"]) -> None:
    """Write JSON lines, one for each dataclass, UTF-8 as it is."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def shared(path: Path) -> None:
    """A folder in which every pod may write, and delete only what is its own (the sticky bit)."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(SHARED)
