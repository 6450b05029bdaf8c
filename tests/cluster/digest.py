"""Content digests: the tags of images and the keys of the cache."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def of(parts: Iterable[str | Path], root: Path) -> str:
    """Twelve hexadecimal digits over texts, files and folders.

    Args:
        parts: Texts, and paths of files or folders. Byte code is left out.
        root: Paths count by their name relative to it, so that a copy elsewhere has the same digest.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(sha, b"text", part.encode())
            continue
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if path.is_symlink() or path.is_file():
                _add_file(sha, path, root)
    return sha.hexdigest()[:12]


def _add_file(sha: "hashlib._Hash", path: Path, root: Path) -> None:
    if path.suffix == ".pyc":
        return
    # Git keeps one bit of a file's mode, and so do we.
    mode = b"x" if path.stat().st_mode & 0o100 else b"-"
    _add(sha, mode + str(path.relative_to(root)).encode(), path.read_bytes())


def _add(sha: "hashlib._Hash", name: bytes, content: bytes) -> None:
    """Lengths keep two neighbours from running into each other."""
    for piece in (name, content):
        sha.update(len(piece).to_bytes(8, "big"))
        sha.update(piece)
