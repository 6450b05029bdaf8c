"""Repositories of a Hugging Face hub, or of a mirror: one commit of one, in the cache of this machine.

huggingface_hub does the work. Its own environment variables say where and how, in a pod as in a user's shell:
HF_HOME (cache), HF_TOKEN or HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE. Imported only where a source is `hf://`:
the library takes 0.4 s.

Processes may share a cache: a file is written under a name of its own and moved into place; a lock only keeps others
from fetching it too.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from evaljob.fields import HUB_SCHEME
from evaljob.mounts import HUB_ROOM
from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry, Stop

CACHE = Path(constants.HF_HUB_CACHE)
_OFFLINE = constants.HF_HUB_OFFLINE
"""Whether the user wants nothing but the cache."""
_TOKEN = "spec.hub.tokenSecretRef (HF_TOKEN on your own machine)"  # noqa: S105 - the place of one
_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Repository:
    """What an `hf://<org>/<name>@<revision>[/<path>]` names."""

    uri: str
    kind: Literal["model", "dataset"]

    @property
    def name(self) -> str:
        """`<org>/<name>`."""
        return self.uri.removeprefix(HUB_SCHEME).partition("@")[0]

    @property
    def revision(self) -> str:
        """A commit, a tag or a branch."""
        return self.uri.partition("@")[2].partition("/")[0]

    @property
    def path(self) -> str:
        """A file or folder in it; "" for the whole."""
        return self.uri.partition("@")[2].partition("/")[2]


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository. Files come when they are asked for."""

    repository: Repository
    commit: str
    sizes: Mapping[str, int]
    """Bytes of all files, by name."""

    @property
    def names(self) -> list[str]:
        """Of all files."""
        return sorted(self.sizes)

    def fetch(self, names: Sequence[str]) -> Path:
        """The folder of this commit, with at least these files in it.

        Raises:
            Fatal, Retry: as `open_repository`; BadConfiguration too, where there is no room for them.
        """
        folder = _download(self.repository, self.commit, [])
        _refuse_no_room(
            self.repository.uri, sum(self.sizes[n] for n in names if not (folder / n).exists()), _room()
        )
        return _download(self.repository, self.commit, names)


@dataclass(frozen=True)
class Folder:
    """The folder of a commit that a URI names, as if there were nothing else."""

    snapshot: Snapshot

    @property
    def names(self) -> list[str]:
        """All files in it, relative to it."""
        return [n.removeprefix(self._prefix) for n in self.snapshot.names if n.startswith(self._prefix)]

    @property
    def identity(self) -> str:
        """The commit and the folder."""
        return f"{self.snapshot.commit}/{self.snapshot.repository.path}".rstrip("/")

    def fetch(self, names: Sequence[str]) -> Path:
        """Its place on this machine, with at least these files in it; raises as `open_repository`."""
        return self.snapshot.fetch([self._prefix + name for name in names]) / self._prefix

    @property
    def _prefix(self) -> str:
        path = self.snapshot.repository.path
        return f"{path}/" if path else ""


def open_folder(repository: Repository) -> Folder:
    """A folder of a repository, or the whole; raises as `open_repository`."""
    return Folder(open_repository(repository))


def open_repository(repository: Repository) -> Snapshot:
    """Find out the commit and what is in it.

    Raises:
        Fatal: Unauthorized, or (ModelNotFound, BadData) when the repository or its revision does not exist.
        Retry: DependencyUnavailable, when the hub does not answer.
    """
    folder = _download(repository, repository.revision, [])
    commit = folder.name
    try:
        files = huggingface_hub.get_cached_repo_tree(
            repository.name, repo_type=repository.kind, revision=commit
        )
        sizes = {file.path: file.size for file in files}
    except CachedRepoTreeNotFoundError:
        # Offline, and the cache comes from a version of the library that kept no trees.
        found = (p for p in folder.rglob("*") if p.is_file())
        sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in found}
    return Snapshot(repository, commit, sizes)


def _room() -> int:
    """Bytes that may still be fetched: what the disk has; a pod that fills its own volume would be evicted."""
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free
    if (limit := os.environ.get(HUB_ROOM)) is None:
        return free
    # A whole volume's limit: datasets and models, and what else keeps something there, share it.
    taken = sum(path.lstat().st_size for path in Path(constants.HF_HOME).rglob("*"))
    return max(0, min(free, int(limit) - taken))


def _refuse_no_room(uri: str, wanted: int, room: int) -> None:
    if wanted > room:
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"{uri}: {_gib(wanted)} are to be fetched, and there is room for {_gib(room)}: "
            "name a larger claim as spec.modelCache (HF_HOME on your own machine)",
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _download(repository: Repository, revision: str, names: Sequence[str]) -> Path:
    try:
        with _asking():
            return Path(
                huggingface_hub.snapshot_download(
                    repository.name,
                    repo_type=repository.kind,
                    revision=revision,
                    allow_patterns=[_literally(name) for name in names],
                )
            )
    except (httpx2.HTTPError, OSError, XetDownloadError) as error:
        raise stop(error, repository) from error


def _literally(name: str) -> str:
    """A name as a pattern of fnmatch that matches nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextmanager
def _asking() -> Iterator[None]:
    """The hub may be asked now, and at no other time: a library that loads a local folder must not ask about it."""
    constants.HF_HUB_OFFLINE = _OFFLINE
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that an engine starts


def stop(error: Exception, repository: Repository) -> Stop:
    """What an error of the library means for this partition."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        # The library looked into the cache because of that, and in vain.
        error = error.__cause__
    uri = repository.uri
    missing = Reason.MODEL_NOT_FOUND if repository.kind == "model" else Reason.BAD_DATA
    if _OFFLINE and isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return Fatal(missing, f"{uri}: not in the cache (or not all of it), and HF_HUB_OFFLINE is set")
    if isinstance(error, HfHubHTTPError):
        return _refused(error, repository, missing)
    if isinstance(error, OSError) and error.errno:
        return Retry(Reason.DEPENDENCY_UNAVAILABLE, f"{uri}: the cache cannot be used: {error.strerror}")
    said = str(error) or type(error).__name__
    return Retry(Reason.DEPENDENCY_UNAVAILABLE, f"{uri}: {constants.ENDPOINT} does not answer: {said[:200]}")


def _refused(error: HfHubHTTPError, repository: Repository, missing: Reason) -> Stop:
    """By what can be done about it. The hub answers 401 for what is private and for what does not exist."""
    uri, status = repository.uri, error.response.status_code
    if isinstance(error, GatedRepoError):
        advice = f"accept its terms on the hub, and give a token of that account by {_TOKEN}"
        return Fatal(Reason.UNAUTHORIZED, f"{uri}: gated: {advice}")
    if isinstance(error, RepositoryNotFoundError):
        advice = f"check the name; a private one needs a token that may read it, by {_TOKEN}"
        return Fatal(missing, f"{uri}: no such {repository.kind} repository: {advice}")
    if isinstance(error, RevisionNotFoundError):
        return Fatal(missing, f"{uri}: no revision {repository.revision!r}: a commit is 40 digits long")
    if status in (401, 403):
        return Fatal(Reason.UNAUTHORIZED, f"{uri}: the hub answers {status}: check {_TOKEN}")
    message = f"{uri}: {constants.ENDPOINT} answers {status}: {error.server_message or ''}"[:300]
    again = status in _TRY_AGAIN or status >= 500
    return Retry(Reason.DEPENDENCY_UNAVAILABLE, message) if again else Fatal(missing, message)
