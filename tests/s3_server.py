"""Speaks just enough of S3's protocol to list and read objects, standard library only.

The first segment of a path is the bucket, a folder below the root. Every request must name the one access key;
signatures are not checked. One file: `python s3_server.py --port N ROOT` also runs as a pod in the runner's image.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY = "AKIATEST"
CREDENTIALS = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = very-secret\n"


class Handler(BaseHTTPRequestHandler):
    """ListObjectsV2, HeadObject, GetObject."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_HEAD(self) -> None:
        """The size of an object."""
        self._serve()

    def do_GET(self) -> None:
        """A list, or an object."""
        self._serve()

    def _serve(self) -> None:
        asked = urlsplit(self.path)
        bucket, _, key = unquote(asked.path).lstrip("/").partition("/")
        folder = self.server.root / bucket
        if f"Credential={KEY}/" not in self.headers.get("authorization", ""):
            self._error(403, "InvalidAccessKeyId")
        elif bucket == "secret":
            self._error(403, "AccessDenied")
        elif bucket == "broken":
            self._error(500, "InternalError")
        elif not folder.is_dir():
            self._error(404, "NoSuchBucket")
        elif not key:
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            self._list(folder, query.get("prefix", ""), query.get("delimiter", ""))
        elif not (folder / key).is_file():
            self._error(404, "NoSuchKey")
        else:
            self._object(folder / key)

    def _list(self, bucket: Path, prefix: str, delimiter: str) -> None:
        names = sorted(p.relative_to(bucket).as_posix() for p in bucket.rglob("*") if p.is_file())
        found = [name for name in names if name.startswith(prefix)]
        deeper = {n[: n.index("/", len(prefix)) + 1] for n in found if delimiter and "/" in n[len(prefix) :]}
        shown = [n for n in found if not any(n.startswith(folder) for folder in deeper)]
        items = "".join(
            f"<Contents><Key>{escape(n)}</Key><Size>{(bucket / n).stat().st_size}</Size>"
            "<LastModified>2026-01-31T00:00:00.000Z</LastModified></Contents>"
            for n in shown
        )
        items += "".join(
            f"<CommonPrefixes><Prefix>{escape(d)}</Prefix></CommonPrefixes>" for d in sorted(deeper)
        )
        count = f"<KeyCount>{len(shown) + len(deeper)}</KeyCount><IsTruncated>false</IsTruncated>"
        body = f"<ListBucketResult>{count}{items}</ListBucketResult>"
        self._send(200, body.encode(), {"Content-Type": "application/xml"})

    def _object(self, path: Path) -> None:
        content = path.read_bytes()
        headers = {"Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        asked = self.headers.get("range", "")
        if not asked:
            self._send(200, content, headers)
            return
        first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        where = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self._send(206, part, {**headers, "Content-Range": where})

    def _error(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), {})

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
    """One root of buckets, one thread per connection."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], root: Path) -> None:
        super().__init__(address, Handler)
        self.root = root


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """A server on a free port of this machine; yields its address."""
    from tests.serving import serving

    with serving(Server(("127.0.0.1", 0), root)) as address:
        yield address


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("root", type=Path, help="the folder of buckets")
    args = parser.parse_args()
    Server(("", args.port), args.root).serve_forever()


if __name__ == "__main__":
    main()
