"""A served model that is asked beside other work: in a thread of its own, for answers that come later."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread
from typing import TypeVar

from evaljob.backends import OpenAI
from evaljob_runner.backends.base import Ask, GenerateRequest, Reply
from evaljob_runner.backends.endpoint import Clients, Endpoint
from evaljob_runner.backends.openai import generate

_T = TypeVar("_T")


class OpenAICorrespondent:
    """A client with a thread. To be closed: nothing is asked after that.

    Args:
        spec: where the model is served.
        key_file: holds the API key.
        first_wait: seconds before the first retry, doubled each time.
    """

    def __init__(self, spec: OpenAI, key_file: Path | None, first_wait: float = 0.5) -> None:
        self._endpoint = Endpoint(spec, key_file, first_wait)
        self._room = asyncio.Semaphore(spec.max_concurrency)
        self._opened = AsyncExitStack()
        self._clients = Clients(self._endpoint, self._opened)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=f"asks {spec.model}", daemon=True)
        self._thread.start()

    def begin(self, talk: Callable[[Ask], Awaitable[_T]]) -> Future[_T]:
        """What comes of a talk, later. At most `maxConcurrency` of them go on at a time, begun in this order.

        Args:
            talk: is given what asks the model; runs in this object's thread.
        """
        return asyncio.run_coroutine_threadsafe(self._talk(talk), self._loop)

    async def _talk(self, talk: Callable[[Ask], Awaitable[_T]]) -> _T:
        async with self._room:
            return await talk(self._ask)

    async def _ask(self, request: GenerateRequest) -> Reply:
        return await self._endpoint.reply(self._clients, request, generate)

    def close(self) -> None:
        """Leave what is not answered yet."""
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await self._opened.aclose()
