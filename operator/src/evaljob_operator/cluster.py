"""The Kubernetes API over HTTP: the only user of the `kubernetes` package, and of threads (beside `metrics.serve`).

Only its configuration, TLS and raw client are used. Its typed API classes cost 18 MiB and twice the processor
time, and would decode Jobs of which we keep ten fields.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from evaljob import __version__
from evaljob_operator.answers import error_of, warnings_of
from evaljob_operator.api import (
    JSON,
    Answer,
    ApiError,
    Json,
    TooManyRequestsError,
    UnreachableError,
)
from evaljob_operator.stream import Stream, lines, objects

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
PIECE = 1 << 16
"""Bytes that are read at once of what is taken as it comes."""
SILENCE = 68.0
"""Seconds without a line after which a watch is dialled again. Bookmarks come every 60."""
SKEW_IGNORED = timedelta(seconds=2)
"""The Date header has whole seconds: a smaller difference of clocks cannot be told from none."""
_FAULTS = (urllib3.exceptions.HTTPError, ApiException, ConfigException, OSError, ValueError)


def configuration(connections: int) -> Configuration:
    """Rights and address from the service account of this pod, or else from the user's kubeconfig.

    Raises:
        UnreachableError: when there is neither.
    """
    config = Configuration()
    try:
        load_incluster_config(client_configuration=config)
    except ConfigException:
        try:
            load_kube_config(client_configuration=config)
        except ConfigException as error:
            raise UnreachableError(f"neither a service account nor a kubeconfig: {error}") from error
    # urllib3 drops and warns about every connection beyond the size of its pool.
    config.connection_pool_maxsize = connections
    # Retries are the caller's: urllib3's own would sleep inside a thread and repeat unnoticed.
    config.retries = False
    return config


class Cluster:
    """An API server, asked by at most `threads` requests at once.

    Args:
        config: where it is, and who we are.
        threads: requests at once.
        told: called in a thread with method, path and code of each answer; 0 for none.
    """

    def __init__(
        self, config: Configuration, threads: int, told: Callable[[str, str, int], None] = lambda *_: None
    ) -> None:
        self._told = told
        self._client = ApiClient(config)
        self._client.user_agent = f"evaljob-operator/{__version__}"
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="request")
        # Queueing here and not in the executor lets a pause hold back what has not been sent yet.
        self._slots = asyncio.Semaphore(threads)
        self._resume_at = 0.0
        self._skew = timedelta()
        self.answered_at = time.monotonic()
        """When the API server last answered a request, whatever it said, on the monotonic clock."""

    def now(self) -> datetime:
        """The time by the API server's clock, whose timestamps ours is compared with."""
        return datetime.now(UTC) + self._skew

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | list[Json] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Json:
        """One request; see `Api.request`. A 429 holds back all further requests for the time it names."""
        return (await self._answer(method, path, body, query or {}, content_type)).body

    async def dry_run(self, path: str, body: Json) -> Answer:
        """A create that is not stored; see `Api.dry_run`."""
        return await self._answer("POST", path, body, {"dryRun": "All"}, JSON)

    async def each(self, path: str, query: Mapping[str, str], take: Callable[[Json], object]) -> Json:
        """A list, object by object; see `Api.each`."""
        return (await self._answer("GET", path, None, query, JSON, take)).body

    async def _answer(
        self,
        method: str,
        path: str,
        body: Json | list[Json] | None,
        query: Mapping[str, str],
        content_type: str,
        take: Callable[[Json], object] | None = None,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._slots:
            while (left := self._resume_at - loop.time()) > 0:  # noqa: ASYNC110 - only time can end it
                await asyncio.sleep(left)
            try:
                return await loop.run_in_executor(
                    self._executor, self._exchange, method, path, body, query, content_type, take
                )
            except TooManyRequestsError as error:
                self._resume_at = max(self._resume_at, loop.time() + error.retry_after)
                raise

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Json]]:
        """A watch in a thread of its own; see `Api.watch`."""
        stream = Stream(asyncio.get_running_loop())
        follow = (stream, path, {**query, "watch": "true", "allowWatchBookmarks": "true"})
        threading.Thread(target=self._follow, args=follow, daemon=True, name="watch").start()
        try:
            async for batch in stream.batches():
                yield batch
        finally:
            stream.stop()

    def close(self) -> None:
        """Take no further requests. Running ones end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout: float,
        body: Json | list[Json] | None = None,
        content_type: str = JSON,
    ) -> Any:  # noqa: ANN401 - the library's response, untyped
        headers = {"Accept": JSON, "Content-Type": content_type}
        _, url, headers, _, _ = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        response = self._client.call_api(
            method, url, headers, body, _request_timeout=(CONNECT_TIMEOUT, timeout)
        )
        return response.response

    def _exchange(
        self,
        method: str,
        path: str,
        body: Json | list[Json] | None,
        query: Mapping[str, str],
        content_type: str,
        take: Callable[[Json], object] | None = None,
    ) -> Answer:
        try:
            response = self._send(method, path, query, READ_TIMEOUT, body, content_type)
            self.answered_at = time.monotonic()
            self._told(method, path, response.status)
            self._note_time(response.headers.get("Date"))
            if not 200 <= response.status < 300:
                raise error_of(response.status, response.data, response.headers.get("Retry-After"))
            found = objects(_pieces(response), take) if take else json.loads(response.data)
            return Answer(found, warnings_of(response.headers.get("Warning")))
        except _FAULTS as error:
            self._told(method, path, 0)
            raise UnreachableError(f"{method} {path}: {_words(error)}") from error

    def _note_time(self, date: str | None) -> None:
        try:
            # HTTP dates are GMT, whatever they say.
            there = parsedate_to_datetime(date or "").replace(tzinfo=UTC)
        except ValueError:
            return
        skew = there - datetime.now(UTC)
        self._skew = skew if abs(skew) > SKEW_IGNORED else timedelta()

    def _follow(self, stream: Stream, path: str, query: Mapping[str, str]) -> None:
        """The thread of one watch: lines of JSON to events."""
        try:
            response = self._send("GET", path, query, SILENCE)
            self._told("WATCH", path, response.status)
            try:
                if response.status != 200:
                    raise error_of(response.status, response.data, response.headers.get("Retry-After"))
                stream.opened(response.shutdown)
                for line in lines(_pieces(response)):
                    stream.put(line)
            finally:
                response.close()
        except urllib3.exceptions.ReadTimeoutError:
            stream.end(None)
        except ApiError as error:
            stream.end(error)
        except _FAULTS as error:
            stream.end(UnreachableError(f"watch {path}: {_words(error)}"))
        else:
            stream.end(None)


def _pieces(response: Any) -> Iterator[bytes]:  # noqa: ANN401 - the library's response, untyped
    """A body as it comes, decompressed: a proxy may ask for gzip in our name, which a large list then is.

    It has to be said: of a body in chunks the library leaves that alone by default, unlike of any other.
    """
    pieces: Iterator[bytes] = response.stream(PIECE, decode_content=True)
    return pieces


def _words(error: Exception) -> str:
    """An exception in a few words, without the addresses of objects that urllib3 puts into its own."""
    return f"{type(error).__name__}: {str(error).split(': ')[-1]}"[:300]
