"""The HTTP side of a served model: bounded concurrency, bounded retries, clear refusals."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import stamina

from evaljob.backends import OpenAI
from evaljob.names import Reason
from evaljob_runner.assignment import read_key
from evaljob_runner.backends.base import Overflow, Unavailable
from evaljob_runner.errors import Fatal

ATTEMPTS = 6
"""Per request. With waits of 0.5, 1, 2, 4 and 8 seconds: about 16 seconds."""
WORDS_MAX = 200
CONNECTIONS = 8
"""Of one client. A client takes milliseconds to make, and looks at all its connections for each request."""
_CONTEXT = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum sequence length|inputs.{0,40}max_new_tokens",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content_filter|content_?policy_?violation|data_inspection_failed", re.IGNORECASE)
"""Words of Azure, of LiteLLM and of Alibaba's Model Studio."""
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_NEVER = {401: Reason.UNAUTHORIZED, 403: Reason.UNAUTHORIZED, 404: Reason.ENDPOINT_NOT_FOUND}


class Keyed(Protocol):
    """A request."""

    @property
    def key(self) -> str:
        """Of the sample that it is about."""


_R = TypeVar("_R", bound=Keyed)
_A = TypeVar("_A")


class Refused(Fatal):
    """The server understood the request and will not take it."""


class Filtered(Refused):
    """The server's filter will not take this prompt; others it may."""


class TryAgain(Exception):  # noqa: N818 - not the user's error
    """The server could not answer this time."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class _TooLong(Exception):  # noqa: N818 - an outcome
    """The prompt does not fit the server's window."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how it is asked."""

    spec: OpenAI
    key_file: Path | None
    """Holds the API key; read for every request, as Secrets are rotated in place."""
    first_wait: float
    """Seconds before the first retry, doubled each time."""

    def each(
        self, requests: Iterable[_R], answer: Callable[["Client", _R], Awaitable[_A]]
    ) -> Iterator[_A | Overflow | Unavailable]:
        """Answers as they finish; at most `maxConcurrency` requests are being answered at a time.

        Raises:
            Fatal: when the server refuses for good.
        """
        with asyncio.Runner() as runner:
            # Not runner.run, which sets and resets a signal handler for each reply.
            run = runner.get_loop().run_until_complete
            replies = self._replies(requests, answer)
            try:
                while (reply := run(_next(replies))) is not None:
                    yield reply
            finally:
                run(replies.aclose())

    async def _replies(
        self, requests: Iterable[_R], answer: Callable[["Client", _R], Awaitable[_A]]
    ) -> AsyncGenerator[_A | Overflow | Unavailable, None]:
        running: set[asyncio.Task[_A | Overflow | Unavailable]] = set()
        done: asyncio.Queue[asyncio.Task[_A | Overflow | Unavailable]] = asyncio.Queue()

        async def first() -> _A | Overflow | Unavailable:
            task = await done.get()
            running.remove(task)
            return task.result()

        async with AsyncExitStack() as opened:
            clients = Clients(self, opened)
            try:
                for request in requests:
                    task = asyncio.create_task(self.reply(clients, request, answer))
                    task.add_done_callback(done.put_nowait)
                    running.add(task)
                    while len(running) >= self.spec.max_concurrency:
                        yield await first()
                while running:
                    yield await first()
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def reply(
        self, clients: "Clients", request: _R, answer: Callable[["Client", _R], Awaitable[_A]]
    ) -> _A | Overflow | Unavailable:
        """The answer to one request, or why there is none.

        Raises:
            Fatal: when the server refuses for good.
        """
        try:
            async with clients.one() as client:
                return await answer(client, request)
        except _TooLong as error:
            return Overflow(request.key, str(error))
        except TryAgain as error:
            return Unavailable(request.key, f"{self.spec.url}: {error}")

    def http(self) -> httpx.AsyncClient:
        """A few connections."""
        timeout = float(self.spec.request_timeout_seconds)
        limits = httpx.Limits(max_connections=CONNECTIONS)
        return httpx.AsyncClient(limits=limits, timeout=timeout, verify=self._tls)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The usual authorities, or SSL_CERT_FILE; none for plain http, where loading them takes longest."""
        secure = self.spec.url.startswith("https")
        return httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def key(self) -> str:
        """The API key; "" for a server without.

        Raises:
            Fatal: BadConfiguration, when its file cannot be read or holds no key.
        """
        return read_key(self.key_file) if self.key_file else ""


@dataclass(frozen=True)
class Client:
    """Some connections to an endpoint."""

    endpoint: Endpoint
    http: httpx.AsyncClient

    async def post(self, path: str, body: dict[str, Any], parse: Callable[[httpx.Response], _A]) -> _A:
        """What `parse` makes of the server's answer, after as many tries as it takes.

        Args:
            path: below the endpoint's url.
            body: sent as JSON, with the model's name.
            parse: may raise `TryAgain`, or what malformed JSON makes raise: the request is then tried again.

        Raises:
            Fatal: when the server refuses for good: `Refused`, when it refuses this request, `Filtered`, its words.
        """
        async for attempt in stamina.retry_context(
            on=_wait_before_retry,
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=self.endpoint.first_wait,
            wait_max=60,
            wait_jitter=self.endpoint.first_wait / 2,
        ):
            with attempt:
                return await self._once(path, body, parse)
        raise AssertionError("stamina returns or raises")

    async def _once(self, path: str, body: dict[str, Any], parse: Callable[[httpx.Response], _A]) -> _A:
        spec, key = self.endpoint.spec, self.endpoint.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = f"{spec.url.rstrip('/')}/{path}"
        try:
            response = await self.http.post(address, json={"model": spec.model, **body}, headers=headers)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Fatal(Reason.BAD_CONFIGURATION, f"openai.url: {spec.url}: {error}") from error
        except httpx.TransportError as error:
            # Its text may quote what was sent or received.
            raise TryAgain(_hidden(str(error), key) or type(error).__name__) from error
        _refuse(response, key)
        try:
            return parse(response)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise TryAgain(f"not an answer of this API: {_words(response, key)!r}") from error


class Clients:
    """Clients for the requests in flight, some to each.

    One pool for all of them looks at every connection for every request and, to close idle ones, at every other one
    beside each: with 128 connections that took longer than all the rest.

    Args:
        endpoint: where they ask.
        opened: closes their connections.
    """

    def __init__(self, endpoint: Endpoint, opened: AsyncExitStack) -> None:
        self._endpoint, self._opened = endpoint, opened
        self._idle: list[Client] = []
        """Each as often as it may take another request."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator["Client"]:
        """One that has a connection free."""
        if not self._idle:
            http = await self._opened.enter_async_context(self._endpoint.http())
            self._idle += CONNECTIONS * [Client(self._endpoint, http)]
        client = self._idle.pop()
        try:
            yield client
        finally:
            self._idle.append(client)


async def _next(replies: AsyncGenerator[_A, None]) -> _A | None:
    return await anext(replies, None)


def _wait_before_retry(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds where the server says so."""
    if isinstance(error, TryAgain):
        return True if error.after is None else error.after
    return False


def _refuse(response: httpx.Response, key: str) -> None:
    """Raise for everything but a success, by what can be done about it."""
    status = response.status_code
    if status == 200:
        return
    words = _words(response, key)
    if status in _TRY_AGAIN or status >= 500:
        raise TryAgain(f"HTTP {status}: {words}", _retry_after(response))
    if status in _NEVER:
        # A server may repeat the key that it refuses.
        said = words if status == 404 else "check openai.apiKeySecretRef"
        raise Fatal(_NEVER[status], f"{response.url} answers {status}: {said}")
    if _CONTEXT.search(response.text):
        raise _TooLong(words)
    kind = Filtered if _FILTERED.search(response.text) else Refused
    raise kind(Reason.BAD_CONFIGURATION, f"{response.url} answers {status}: {words}")


def _words(response: httpx.Response, key: str) -> str:
    """The head of what the server says, without the key."""
    return " ".join(_hidden(response.text, key).split())[:WORDS_MAX]


def _hidden(text: str, key: str) -> str:
    """The text without the key."""
    return text.replace(key, "***") if key else text


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, from the header's number or date; at most five minutes."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return min(float(value), 300.0)
    try:
        wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait, 0.0), 300.0)
