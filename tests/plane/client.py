"""A small asynchronous Kubernetes client for tests."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp

Json = dict[str, Any]
MERGE = "application/merge-patch+json"


class StatusError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text[:500]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch, or an object of its first list (`ADDED`)."""

    type: str
    obj: Json

    @property
    def version(self) -> int:
        """The resourceVersion: it orders changes of all kinds, as one etcd holds them all."""
        return int(self.obj["metadata"]["resourceVersion"])

    @property
    def namespace(self) -> str:
        """Where the object lives."""
        return str(self.obj["metadata"].get("namespace", ""))


class Server(Protocol):
    """An API server: of a plane, or of a cluster."""

    @property
    def server(self) -> str:
        """Its address."""

    @property
    def ca(self) -> Path:
        """What its certificate is checked by."""

    def token(self, user: str) -> str:
        """What a user shows."""


class Client:
    """One user of an API server."""

    def __init__(self, server: Server, user: str) -> None:
        self._server = server.server
        self._headers = {"Authorization": f"Bearer {server.token(user)}", "User-Agent": "evaljob-tests"}
        self._tls = ssl.create_default_context(cafile=str(server.ca))

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=200)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """One request and its answer.

        Raises:
            StatusError: the answer is not 2xx.
        """
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        url, params = self._server + path, dict(query or {})
        async with self._session.request(method, url, data=data, headers=headers, params=params) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise StatusError(answer.status, text)
            decoded: Json = json.loads(text)
            return decoded

    async def get(self, path: str, **query: str) -> Json | None:
        """An object, or None when there is none."""
        try:
            return await self.request("GET", path, query=query)
        except StatusError as error:
            if error.status == 404:
                return None
            raise

    async def insist(
        self, method: str, path: str, body: Json, content_type: str = "application/json"
    ) -> None:
        """A request that is repeated while the API server is being restarted; what is gone is left alone."""
        while True:
            try:
                await self.request(method, path, body, content_type)
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
            except StatusError as error:
                if error.status in (404, 409, 422):
                    return
                await asyncio.sleep(0.2)
            else:
                return

    async def follow(self, path: str, **query: str) -> AsyncIterator[Change]:
        """What is there, then everything that changes, until cancelled.

        Without a gap, unless the API server is restarted: then all that is there is `ADDED` once more.
        """
        while True:
            try:
                found = await self.request("GET", path, query=query)
                for obj in found["items"]:
                    yield Change("ADDED", obj)
                version = found["metadata"]["resourceVersion"]
                async for change in self._watch(path, {**query, "resourceVersion": version}):
                    yield change
            except (aiohttp.ClientError, StatusError):
                # Restarted by a test, or a CRD so young that it is still being set up.
                await asyncio.sleep(0.1)

    async def _watch(self, path: str, query: Json) -> AsyncIterator[Change]:
        """Watches, one after the other, until a version has expired."""
        while True:
            params = {**query, "watch": "1", "allowWatchBookmarks": "true"}
            async with self._session.get(self._server + path, params=params) as answer:
                if answer.status != 200:
                    return
                async for line in lines(answer.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    query["resourceVersion"] = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield Change(event["type"], event["object"])


async def lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length, as they come."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest
