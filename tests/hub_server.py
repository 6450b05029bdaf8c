"""Speaks just enough of the Hugging Face hub's protocol: `python hub_server.py --port N ROOT`.

Standard library only, one file: it also runs as a pod in the runner's image. Repositories are the folders
`ROOT/{models,datasets}/<org>/<name>`. A commit is a hash of a repository's content; `main` and the commit are its
revisions. The organisation says how a repository is guarded: `private` needs the token; of a `gated` one everybody
sees the names and nobody the files, as on the real hub; `broken` answers 500; `slow` takes its time over a file.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)"
)
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
SLOW_SECONDS = 0.5


@dataclass
class Hub:
    """What is served, and what was asked."""

    root: Path
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of every request, in order."""
    said: TextIO | None = None
    """Where each of them is printed too."""

    def repository(self, kind: str, name: str) -> "Repository":
        """A repository, which need not exist."""
        return Repository(self.root / kind / name)


@dataclass(frozen=True)
class Repository:
    """A folder as one commit."""

    folder: Path

    def files(self) -> list[tuple[str, Path]]:
        """(name, path) of all files."""
        found = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return [(p.relative_to(self.folder).as_posix(), p) for p in found]

    def commit(self) -> str:
        """A hash of names and content, 40 hexadecimal digits as git has."""
        total = hashlib.sha1(usedforsecurity=False)
        for name, path in self.files():
            total.update(f"{name}\0{etag(path)}\0".encode())
        return total.hexdigest()


def etag(path: Path) -> str:
    """The identity of a file's content."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Revisions, trees and files."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_HEAD(self) -> None:
        """A file's headers."""
        self._serve()

    def do_GET(self) -> None:
        """JSON of the API, or a file."""
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append(f"{self.command} {path}")
        if self.server.hub.said:
            print(self.server.hub.requests[-1], file=self.server.hub.said, flush=True)
        asked = API.fullmatch(path) or FILE.fullmatch(path)
        if asked is None:
            self._error(404, "NotFound")
            return
        found = asked.groupdict()
        repository = self.server.hub.repository((found["kind"] or "models").rstrip("/"), found["id"])
        problem = self._refusal(repository, found["revision"], file="what" not in found)
        if problem:
            self._error(*problem)
        elif "what" in found:
            self._api(found["what"], repository, found["id"])
        else:
            self._file(repository, found["name"])

    def _refusal(self, repository: Repository, revision: str, *, file: bool) -> tuple[int, str] | None:
        org = repository.folder.parent.name
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN):
            return 401, "Invalid"
        if org == "broken":
            return 500, ""
        if not repository.folder.is_dir() or (org == "private" and not token):
            return (404 if token else 401), "RepoNotFound"
        if org == "gated" and file:
            return 403, "GatedRepo"
        return None if revision in ("main", repository.commit()) else (404, "RevisionNotFound")

    def _api(self, what: str, repository: Repository, name: str) -> None:
        files = repository.files()
        if what == "revision":
            siblings = [{"rfilename": name} for name, _ in files]
            self._json({"id": name, "sha": repository.commit(), "siblings": siblings})
        else:
            self._json(
                [{"type": "file", "path": n, "size": p.stat().st_size, "oid": etag(p)} for n, p in files]
            )

    def _file(self, repository: Repository, name: str) -> None:
        path = dict(repository.files()).get(name)
        if path is None:
            self._error(404, "EntryNotFound")
            return
        if repository.folder.parent.name == "slow":
            time.sleep(SLOW_SECONDS)
        self._send(200, path.read_bytes(), {"ETag": f'"{etag(path)}"', "X-Repo-Commit": repository.commit()})

    def _json(self, body: Any) -> None:  # noqa: ANN401 - JSON
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        message = "Invalid credentials in Authorization header" if code == "Invalid" else code
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """One hub, one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        super().__init__(address, Handler)
        self.hub = hub


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """A server on a free port of this machine; yields its address."""
    from tests.serving import serving

    with serving(Server(("127.0.0.1", 0), hub)) as address:
        yield address


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("root", type=Path)
    args = parser.parse_args()
    Server(
        ("", args.port), Hub(args.root, said=sys.stdout)
    ).serve_forever()  # a pod listens on its own address


if __name__ == "__main__":
    main()
