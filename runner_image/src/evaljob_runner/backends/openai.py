"""Servers that speak OpenAI's completions API: bounded concurrency, bounded retries, clear refusals.

The server renders and tokenises. Parameters that OpenAI does not know (top_k, repetition_penalty) are sent
only when the spec names them, as many servers refuse unknown ones.
"""

import asyncio
import dataclasses
import re
import ssl
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import stamina

from evaljob.names import Reason
from evaljob.spec import OpenAI
from evaljob_runner.backends.base import (
    Answer,
    ChatPrompt,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Overflow,
    Reply,
    TokenPrompt,
    Unavailable,
    cut,
)
from evaljob_runner.errors import Fatal

ATTEMPTS = 6
"""Per request. With waits of 0.5, 1, 2, 4 and 8 seconds: about 16 seconds."""
STOPS_SENT = 4
"""OpenAI's limit; whatever the server leaves is cut here."""
WORDS_MAX = 200
_CONTEXT = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum sequence length|inputs.{0,40}max_new_tokens",
    re.IGNORECASE,
)
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_NEVER = {401: Reason.UNAUTHORIZED, 403: Reason.UNAUTHORIZED, 404: Reason.ENDPOINT_NOT_FOUND}
_FINISHED = {"length": Finish.LENGTH, "content_filter": Finish.REFUSED}


class _TryAgain(Exception):  # noqa: N818 - not the user's error
    """The server could not answer this time."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class _TooLong(Exception):  # noqa: N818 - an outcome
    """The prompt does not fit the server's window."""


class OpenAIBackend:
    """A client of one served model.

    Args:
        spec: where it is served.
        key_file: holds the API key; read for every request, as Secrets are rotated in place.
        first_wait: seconds before the first retry, doubled each time.
    """

    tokenizer = None
    window = None
    device = "server"

    def __init__(self, spec: OpenAI, key_file: Path | None, *, first_wait: float = 0.5) -> None:
        self._spec, self._key_file, self._first_wait = spec, key_file, first_wait

    def weigh(self, requests: Iterable[LogLikelihoodRequest]) -> Iterator[LogLikelihoods]:  # noqa: ARG002
        """Refused: the API has no log-probabilities of given texts.

        Raises:
            Fatal: UnsupportedRequest.
        """
        raise Fatal(Reason.UNSUPPORTED_REQUEST, "the openai backend gives no log-likelihoods")

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers as they finish; at most `maxConcurrency` requests are in flight."""
        with asyncio.Runner() as runner:
            replies = self._replies(requests)
            try:
                while (reply := runner.run(_next(replies))) is not None:
                    yield reply
            finally:
                runner.run(replies.aclose())

    async def _replies(self, requests: Iterable[GenerateRequest]) -> AsyncGenerator[Reply, None]:
        limits = httpx.Limits(max_connections=self._spec.max_concurrency)
        timeout = float(self._spec.request_timeout_seconds)
        running: set[asyncio.Task[Reply]] = set()
        async with httpx.AsyncClient(limits=limits, timeout=timeout, verify=self._tls()) as client:
            try:
                for request in requests:
                    running.add(asyncio.create_task(self._reply(client, request)))
                    while len(running) >= self._spec.max_concurrency:
                        yield await _first(running)
                while running:
                    yield await _first(running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _tls(self) -> ssl.SSLContext:
        """The usual authorities, or SSL_CERT_FILE; none for plain http, where loading them takes longest."""
        secure = self._spec.url.startswith("https")
        return httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def _reply(self, client: httpx.AsyncClient, request: GenerateRequest) -> Reply:
        try:
            async for attempt in stamina.retry_context(
                on=_wait_before_retry,
                attempts=ATTEMPTS,
                timeout=None,
                wait_initial=self._first_wait,
                wait_max=60,
                wait_jitter=self._first_wait / 2,
            ):
                with attempt:
                    return await self._ask(client, request)
        except _TooLong as error:
            return Overflow(request.key, str(error))
        except (_TryAgain, httpx.TransportError) as error:
            return Unavailable(request.key, f"{self._spec.url}: {str(error) or type(error).__name__}")
        raise AssertionError("stamina returns or raises")

    async def _ask(self, client: httpx.AsyncClient, request: GenerateRequest) -> Answer:
        began = time.monotonic()
        path, body = self._body(request)
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = await client.post(f"{self._spec.url.rstrip('/')}/{path}", json=body, headers=headers)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Fatal(Reason.BAD_CONFIGURATION, f"openai.url: {self._spec.url}: {error}") from error
        _refuse(response, key)
        answer = _answer(request, response)
        return dataclasses.replace(answer, seconds=round(time.monotonic() - began, 3))

    def _key(self) -> str:
        if self._key_file is None:
            return ""
        try:
            return self._key_file.read_text().strip()
        except OSError as error:
            message = f"--api-key-file: {self._key_file}: {error.strerror}"
            raise Fatal(Reason.BAD_CONFIGURATION, message) from error

    def _body(self, request: GenerateRequest) -> tuple[str, dict[str, Any]]:
        """The API's path and the request's body."""
        sampling, prompt = request.sampling, request.prompt
        if isinstance(prompt, TokenPrompt):
            raise TypeError("the openai backend takes text or messages")
        body = {
            "model": self._spec.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            "stop": list(sampling.stop[:STOPS_SENT]) or None,
            "seed": request.seed if sampling.temperature else None,
            "stream": False,
        }
        body = {name: value for name, value in body.items() if value is not None}
        if isinstance(prompt, ChatPrompt):
            return "chat/completions", body | {"messages": [dict(m) for m in prompt.messages]}
        return "completions", body | {"prompt": prompt.text}


async def _first(running: set[asyncio.Task[Reply]]) -> Reply:
    """The first reply of these; its task leaves the set."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    running.remove(task)
    return task.result()


async def _next(replies: AsyncGenerator[Reply, None]) -> Reply | None:
    return await anext(replies, None)


def _wait_before_retry(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds where the server says so."""
    if isinstance(error, _TryAgain):
        return True if error.after is None else error.after
    return isinstance(error, httpx.TransportError)


def _refuse(response: httpx.Response, key: str) -> None:
    """Raise for everything but a success, by what can be done about it."""
    status = response.status_code
    if status == 200:
        return
    words = _words(response, key)
    if status in _TRY_AGAIN or status >= 500:
        raise _TryAgain(f"HTTP {status}: {words}", _retry_after(response))
    if status in _NEVER:
        # A server may repeat the key that it refuses.
        said = words if status == 404 else "check openai.apiKeySecretRef"
        raise Fatal(_NEVER[status], f"{response.url} answers {status}: {said}")
    if _CONTEXT.search(response.text):
        raise _TooLong(words)
    raise Fatal(Reason.BAD_CONFIGURATION, f"{response.url} answers {status}: {words}")


def _words(response: httpx.Response, key: str) -> str:
    """The head of what the server says, without the key."""
    text = response.text.replace(key, "***") if key else response.text
    return " ".join(text.split())[:WORDS_MAX]


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


def _answer(request: GenerateRequest, response: httpx.Response) -> Answer:
    try:
        body = response.json()
        choice = body["choices"][0]
        chat = isinstance(request.prompt, ChatPrompt)
        text = (choice["message"]["content"] or "") if chat else choice["text"]
        text, stopped = cut(text, request.sampling.stop)
        usage = body.get("usage") or {}
        said = _FINISHED.get(choice.get("finish_reason") or "stop", Finish.STOP)
        tokens = [int(usage.get(n) or 0) for n in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _TryAgain(f"not an answer of this API: {_words(response, '')!r}") from error
    return Answer(request.key, text, Finish.STOP if stopped else said, tokens[0], tokens[1])
