"""HTTP with the API server: errors by kind, a 429 holds back everything, watches in batches."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client.configuration import Configuration

from evaljob_operator import cluster as module
from evaljob_operator.answers import error_of
from evaljob_operator.api import (
    MERGE_PATCH,
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    Json,
    NotFoundError,
    TooManyRequestsError,
    UnreachableError,
)
from evaljob_operator.cluster import Cluster

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def status(reason: str, message: str = "", cause: str = "") -> bytes:
    causes = [{"reason": cause}] if cause else []
    return json.dumps({"reason": reason, "message": message, "details": {"causes": causes}}).encode()


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (404, status("NotFound"), NotFoundError),
        (409, status("Conflict"), ConflictError),
        (409, status("AlreadyExists"), AlreadyExistsError),
        (410, status("Expired"), GoneError),
        (422, status("Invalid"), InvalidError),
        (403, status("Forbidden"), ForbiddenError),
        (429, b"slow down", TooManyRequestsError),
        (500, b"[1]", ApiError),
        (503, b"", ApiError),
    ],
)
def test_an_answer_becomes_the_error_of_its_kind(code: int, body: bytes, kind: type[ApiError]) -> None:
    error = error_of(code, body)
    assert type(error) is kind
    assert error.status == code


def test_a_namespace_that_goes_is_told_by_the_cause() -> None:
    going = error_of(403, status("Forbidden", "because it is being terminated", "NamespaceTerminating"))
    denied = error_of(403, status("Forbidden", 'User "x" cannot create resource "jobs"'))
    assert [e.namespace_going for e in (going, denied) if isinstance(e, ForbiddenError)] == [True, False]


class Server:
    """A real HTTP server whose answers are functions."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[float, str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = self.headers.get("Content-Type", "")
                outer.requests.append((time.monotonic(), self.command, self.path, kind))
                outer.answers.pop(0)(self, body)

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - names of the standard library

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def reply(code: int, document: Json | bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        handler.send_response_only(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def stream(*chunks: bytes, then: float = 0.0, **headers: str) -> Answer:
    """A chunked answer that stays open for `then` seconds after its last chunk."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            handler.wfile.flush()
        time.sleep(then)
        handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    config = Configuration(host=f"http://127.0.0.1:{server.http.server_port}")
    config.retries = False
    made = Cluster(config, threads=4)
    yield made
    made.close()


async def test_a_request_carries_body_query_and_content_type(server: Server, cluster: Cluster) -> None:
    seen: list[Json] = []

    def echo(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append(json.loads(body))
        reply(200, {"ok": True})(handler, body)

    server.answers = [echo]
    query = {"labelSelector": "a=b,c=d"}
    answer = await cluster.request("PATCH", "/apis/x", body={"é": 1}, query=query, content_type=MERGE_PATCH)
    assert answer == {"ok": True}
    assert seen == [{"é": 1}]
    assert server.requests[0][1:] == ("PATCH", "/apis/x?labelSelector=a%3Db%2Cc%3Dd", MERGE_PATCH)


def test_a_429_holds_back_for_a_minute_at_most() -> None:
    """A proxy on the way may name an hour."""
    error = error_of(429, b"slow down", "3600")
    assert isinstance(error, TooManyRequestsError)
    assert error.retry_after == 60.0


async def test_a_429_holds_back_every_further_request(server: Server, cluster: Cluster) -> None:
    server.answers = [reply(429, b"slow down", Retry_After="1"), reply(200, {}), reply(200, {})]
    with pytest.raises(TooManyRequestsError) as refusal:
        await cluster.request("GET", "/a")
    await asyncio.gather(cluster.request("GET", "/b"), cluster.request("POST", "/c", body={}))
    assert refusal.value.retry_after == 1.0
    first, *others = (at for at, *_ in server.requests)
    assert all(at - first >= 0.95 for at in others)


async def test_a_lost_connection_is_an_api_error(server: Server, cluster: Cluster) -> None:
    def hang_up(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.close_connection = True

    server.answers = [hang_up]
    with pytest.raises(UnreachableError, match="POST /a"):
        await cluster.request("POST", "/a", body={})
    assert len(server.requests) == 1, "a write is never repeated behind our back"


async def test_an_answer_that_is_no_json_is_an_api_error(server: Server, cluster: Cluster) -> None:
    server.answers = [reply(200, b"<html>")]
    with pytest.raises(UnreachableError):
        await cluster.request("GET", "/a")


async def test_the_clock_is_the_api_server_s(server: Server, cluster: Cluster) -> None:
    """An hour of skew would end every pending deadline at once."""
    odd = [reply(200, {}, Date=date) for date in ("Tue, 01 Jan 2030 00:00:00 GMT", "soon")]
    server.answers = [*odd, reply(200, {})]
    for _ in range(3):
        await cluster.request("GET", "/a")
        assert cluster.now().year == 2030


async def test_a_list_is_given_object_by_object(server: Server, cluster: Cluster) -> None:
    items = [{"n": number} for number in range(1000)]
    body = json.dumps({"metadata": {"continue": "x"}, "items": items}, separators=(",", ":")).encode()
    server.answers = [
        stream(body[:5000], body[5000:]),
        reply(410, {"reason": "Expired"}),
        stream(body[:5000]),
    ]
    found: list[Json] = []
    assert await cluster.each("/a", {"limit": "5"}, found.append) == {"metadata": {"continue": "x"}}
    assert found == items
    with pytest.raises(GoneError):
        await cluster.each("/a", {}, found.append)
    with pytest.raises(UnreachableError):
        await cluster.each("/a", {}, found.append)


def line(number: int) -> bytes:
    return json.dumps({"type": "ADDED", "object": {"n": number}}).encode() + b"\n"


async def numbers(cluster: Cluster) -> list[int]:
    found = cluster.watch("/w", {"resourceVersion": "7"})
    async with asyncio.timeout(10):
        return [event["object"]["n"] async for batch in found for event in batch]


async def test_a_watch_yields_lines_however_they_are_cut(server: Server, cluster: Cluster) -> None:
    both = line(1) + line(2)
    server.answers = [stream(both[:9], both[9:60], both[60:] + line(3))]
    assert await numbers(cluster) == [1, 2, 3]
    assert "watch=true" in server.requests[0][2]
    assert "resourceVersion=7" in server.requests[0][2]
    assert "allowWatchBookmarks=true" in server.requests[0][2]


async def test_what_a_proxy_has_had_compressed_is_read(server: Server, cluster: Cluster) -> None:
    """An API server compresses lists from 128 KiB on, for whoever asks for it in our name."""
    listed = gzip.compress(json.dumps({"metadata": {}, "items": [{"n": 1}, {"n": 2}]}).encode())
    watched = gzip.compress(line(1) + line(2))
    server.answers = [stream(body[:20], body[20:], Content_Encoding="gzip") for body in (listed, watched)]
    found: list[Json] = []
    await cluster.each("/a", {}, found.append)
    assert found == [{"n": 1}, {"n": 2}]
    assert await numbers(cluster) == [1, 2]


async def test_no_event_is_lost_in_a_burst(server: Server, cluster: Cluster) -> None:
    server.answers = [stream(*(line(i) for i in range(2000)))]
    assert await numbers(cluster) == list(range(2000))


async def test_a_watch_that_is_refused_raises(server: Server, cluster: Cluster) -> None:
    server.answers = [reply(410, {"reason": "Expired"})]
    with pytest.raises(GoneError):
        await numbers(cluster)


async def test_a_silent_watch_ends(server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    server.answers = [stream(line(1), then=1.0)]
    assert await asyncio.wait_for(numbers(cluster), 0.9) == [1]


async def test_a_watch_that_nobody_listens_to_gives_its_thread_back(server: Server, cluster: Cluster) -> None:
    server.answers = [stream(line(1), then=1.0)]
    watch = cluster.watch("/w", {})
    assert await anext(watch)
    await watch.aclose()  # type: ignore[attr-defined]
    for _ in range(50):
        if not any(thread.name == "watch" for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the thread still reads")


async def test_each_answer_is_told_to_who_counts_them(server: Server) -> None:
    told: list[tuple[str, str, int]] = []
    config = Configuration(host=f"http://127.0.0.1:{server.http.server_port}")
    config.retries = False
    cluster = Cluster(config, 1, lambda *answer: told.append(answer))
    server.answers = [reply(200, {}), reply(403, status("Forbidden")), reply(200, b"no JSON"), stream()]
    await cluster.request("GET", "/a")
    for _ in range(2):
        with pytest.raises(ApiError):
            await cluster.request("PATCH", "/b", body={})
    assert [batch async for batch in cluster.watch("/c", {})] == []
    cluster.close()
    assert told[:2] == [("GET", "/a", 200), ("PATCH", "/b", 403)]
    assert told[-1] == ("WATCH", "/c", 200)


async def test_a_dry_run_brings_its_warnings(server: Server, cluster: Cluster) -> None:
    warning = '299 - "spec: \\"x\\", not good", 299 - "and another"'
    server.answers = [reply(201, {"kind": "Job"}, Warning=warning)]
    answer = await cluster.dry_run("/apis/batch/v1/namespaces/x/jobs", {})
    assert (answer.body, answer.warnings) == ({"kind": "Job"}, ('spec: "x", not good', "and another"))
    assert server.requests[0][1:3] == ("POST", "/apis/batch/v1/namespaces/x/jobs?dryRun=All")
