"""An HTTP proxy between the operator and the API server, which does one thing wrong.

Sieve (OSDI '22) finds bugs of controllers by a restart after each write, hidden events and old reads, inside the
client library. Here the same is done on the wire, so that the whole client, its threads and kopf are part of it.
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import aiohttp
from aiohttp import web

from tests.plane.client import Json, lines
from tests.plane.plane import Plane

_DROPPED_HEADERS = {"host", "connection", "content-length", "transfer-encoding"}
"""Accept-Encoding stays the operator's: without it the proxy's own library asks for gzip, which nobody reads here."""
_WRITES = ("POST", "PUT", "PATCH", "DELETE")


DELAY = 3.0
"""Seconds that a delayed event waits; ten times less than in life, like the watches' own length."""


class Fault(StrEnum):
    """What becomes of one request."""

    KILL_BEFORE = "kill-before-send"
    KILL_AFTER = "kill-after-commit"
    CONFLICT = "409"
    TOO_MANY = "429"
    SERVER_ERROR = "500"
    TIMEOUT = "time-out"
    """Committed, and never answered."""
    RESET = "reset"
    """Not sent on; the connection is reset."""
    LOST_REPLY = "lost-reply"
    """Committed; the connection is reset before the reply."""


class WatchFault(StrEnum):
    """What becomes of one event of a watch."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    GONE = "410"
    TRUNCATE = "truncated-line"
    SILENCE = "silence"
    STALE_LIST = "stale-list"
    """410, and the list that follows is the first one again."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """The fault, and the number (from 1) of the request that gets it."""

    fault: Fault
    number: int
    replicas: int = 1
    """Operators at the same time; a kill hits the first."""

    @property
    def lasts(self) -> float:
        """Seconds until the fault is over: a client gives up after half a minute (`cluster.READ_TIMEOUT`)."""
        return 30.0 if self.fault is Fault.TIMEOUT else 0.0

    def __str__(self) -> str:
        """As reports name it."""
        beside = f" of {self.replicas} operators" if self.replicas > 1 else ""
        return f"{self.fault} #{self.number}{beside}"


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """The fault, the watched resource, and the number (from 1) of the event that gets it."""

    fault: WatchFault
    resource: str
    number: int

    @property
    def lasts(self) -> float:
        """Seconds until the fault is over.

        Silence: the operator dials again (`cluster.SILENCE`, kopf 70). A lost event: the next list shows it,
        with scaled watches after `informer.LISTS_APART`; EvalJobs are listed again every five minutes.
        """
        if self.fault is WatchFault.DROP:
            return 300.0 if self.resource == "evaljobs" else 30.0
        return {WatchFault.SILENCE: 70.0, WatchFault.DELAY: DELAY}.get(self.fault, 0.0)

    def __str__(self) -> str:
        """As reports name it."""
        return f"{self.fault} {self.resource} #{self.number}"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it passed."""

    at: float
    method: str
    path: str
    status: int

    @property
    def write(self) -> bool:
        """Whether it changes something."""
        return self.method in _WRITES


@dataclass
class Outage:
    """A time in which every request is refused."""

    until: float = 0.0
    code: int = 503
    refused: list[str] = field(default_factory=list)
    """The paths of the requests."""

    def begin(self, seconds: float, code: int = 503) -> None:
        """From now on, for some seconds."""
        self.until, self.code = time.monotonic() + seconds, code

    def answer(self, path: str) -> web.Response | None:
        """The refusal, while it lasts."""
        if time.monotonic() >= self.until:
            return None
        self.refused.append(path)
        return _status(self.code, "Outage", "an outage made by the test")


class Proxy:
    """See the module.

    Args:
        plane: what is behind it.
        plan: the fault; None passes everything on.
        kill: ends the operator.
        watch_seconds: Ends watches after this time instead of the client's, so that minutes become seconds.
    """

    def __init__(
        self,
        plane: Plane,
        plan: RequestPlan | WatchPlan | None,
        kill: Callable[[], None],
        *,
        watch_seconds: int | None = None,
    ) -> None:
        self._server = plane.server
        self._tls = ssl.create_default_context(cafile=str(plane.ca))
        self._plan = plan
        self._kill = kill
        self._watch_seconds = watch_seconds
        self._first_lists: dict[str, bytes] = {}
        self._stale = False
        self._events = 0
        self.outage = Outage()
        self.spoilt: dict[str, list[Fault]] = {}
        """By method, the faults of its next requests."""
        self.seen: list[Seen] = []
        """Requests, watches left out."""
        self.fired_at: float | None = None
        self.muted: str | None = None
        """The resource of which no list is answered any more, and no watch tells anything."""
        self.watched: set[str] = set()
        """Resources of which a watch has been opened."""

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away ends the handler: a time-out must not hold the proxy.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.address = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if refusal := self.outage.answer(request.path):
            return refusal
        try:
            return await self._pass_on(request)
        except aiohttp.ClientConnectorError:
            return _reset(request)  # there is no API server at the moment

    def _mute(self, path: str) -> bool:
        return self.muted is not None and path.endswith(f"/{self.muted}")

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and self._mute(request.path):
            await asyncio.sleep(3600)
        if "watch" in request.query:
            return await self._watch(request)
        now = time.monotonic()
        number = len(self.seen) + 1
        self.seen.append(Seen(now, request.method, request.path, 0))
        fault = self._due(number, request.method)
        if fault is not None:
            self.fired_at = now
        answer = await self._refuse(fault, request)
        if answer is not None:
            return answer
        status, headers, body = await self._forward(request)
        self.seen[number - 1] = Seen(now, request.method, request.path, status)
        return await self._answer(fault, request, status, headers, body)

    def _due(self, number: int, method: str) -> Fault | None:
        if spoilt := self.spoilt.get(method):
            return spoilt.pop(0)
        plan = self._plan
        return plan.fault if isinstance(plan, RequestPlan) and plan.number == number else None

    async def _refuse(self, fault: Fault | None, request: web.Request) -> web.StreamResponse | None:
        """The faults of requests that the API server never sees."""
        match fault:
            case Fault.KILL_BEFORE:
                self._kill()
                return _reset(request)
            case Fault.RESET:
                return _reset(request)
            case Fault.CONFLICT:
                reason = "AlreadyExists" if request.method == "POST" else "Conflict"
                return _status(409, reason, "a conflict made by the test")
            case Fault.TOO_MANY:
                return _status(429, "TooManyRequests", "slower", {"Retry-After": "2"})
            case Fault.SERVER_ERROR:
                return _status(500, "InternalError", "an error made by the test")
        return None

    async def _forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        body = await request.read() or None  # an empty one would get a Content-Type
        url = self._server + request.raw_path
        async with self._session.request(request.method, url, headers=_headers(request), data=body) as answer:
            text = await answer.read()
            kept = {k: v for k, v in answer.headers.items() if k in ("Content-Type", "Date", "Retry-After")}
            return answer.status, kept, text

    async def _answer(
        self, fault: Fault | None, request: web.Request, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        """The faults of requests that the API server has answered."""
        match fault:
            case Fault.KILL_AFTER:
                self._kill()
                return _reset(request)
            case Fault.LOST_REPLY:
                return _reset(request)
            case Fault.TIMEOUT:
                await asyncio.sleep(3600)
        if request.method == "GET" and _is_list(body):
            body = self._list(request, body)
        return web.Response(status=status, headers=headers, body=body)

    def _list(self, request: web.Request, body: bytes) -> bytes:
        first = self._first_lists.setdefault(request.path, body)
        if (
            self._stale
            and isinstance(self._plan, WatchPlan)
            and request.path.endswith(f"/{self._plan.resource}")
        ):
            self._stale = False
            return first
        return body

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        if self._watch_seconds is not None:
            query["timeoutSeconds"] = str(self._watch_seconds)
        url = self._server + request.path
        self.watched.add(request.path.rpartition("/")[2])
        async with self._session.get(url, headers=_headers(request), params=query) as upstream:
            response = web.StreamResponse(
                status=upstream.status, headers={"Content-Type": "application/json"}
            )
            try:
                await response.prepare(request)
                async for part in self._spoiled(request.path, lines(upstream.content)):
                    await response.write(part)
            except (_CutError, aiohttp.ClientPayloadError):
                return _reset(request)
            except ConnectionError:
                pass  # the operator is gone
            return response

    async def _spoiled(self, path: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        plan = self._plan
        async for line in events:
            if self._mute(path):
                await asyncio.sleep(3600)
            fault = None
            if (
                isinstance(plan, WatchPlan)
                and path.endswith(f"/{plan.resource}")
                and b'"BOOKMARK"' not in line
            ):
                self._events += 1
                fault = plan.fault if self._events == plan.number else None
            if fault is None:
                yield line + b"\n"
                continue
            self.fired_at = time.monotonic()
            async for part in self._spoil(fault, line):
                yield part

    async def _spoil(self, fault: WatchFault, line: bytes) -> AsyncIterator[bytes]:
        match fault:
            case WatchFault.DROP:
                pass
            case WatchFault.DUPLICATE:
                yield line + b"\n" + line + b"\n"
            case WatchFault.DELAY:
                await asyncio.sleep(DELAY)
                yield line + b"\n"
            case WatchFault.GONE | WatchFault.STALE_LIST:
                self._stale = fault is WatchFault.STALE_LIST
                gone = _status_object(410, "Expired", "too old resource version")
                yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
            case WatchFault.TRUNCATE:
                yield line[: len(line) // 2]
                raise _CutError
            case WatchFault.SILENCE:
                await asyncio.sleep(3600)


class _CutError(Exception):
    """The connection of a watch is to be cut here."""


def _headers(request: web.Request) -> dict[str, str]:
    return {k: v for k, v in request.headers.items() if k.lower() not in _DROPPED_HEADERS}


def _is_list(body: bytes) -> bool:
    return b'"items":' in body[:4096]


def _status_object(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_status_object(code, reason, message), status=code, headers=headers)


def _reset(request: web.Request) -> web.StreamResponse:
    """Close with RST and not FIN: what a rebooted load balancer does."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
