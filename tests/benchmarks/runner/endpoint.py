"""Requests per second of the openai backend, beside a bare loop of its HTTP library against the same idle server.

The server is a process of its own that answers every completion after `DELAY` seconds and computes nothing: a bare
loop then shows what the endpoint can take. Both sides ask the same texts; the fastest of some rounds counts.
"""

import asyncio
import io
import json
import multiprocessing
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from evaljob.spec import Model
from evaljob_runner.backends.openai import OpenAIBackend
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import assignment, planned, tiny_task

CONCURRENCY = (1, 8, 32, 128)
DELAY = 0.2
"""Seconds, as of a short answer of a fast server: 640 requests per second at 128 in flight."""
SECONDS = 2
"""That the server takes for a round."""
ROUNDS = 3
_CONTEXT = multiprocessing.get_context("spawn")
_BODY = json.dumps(
    {
        "choices": [{"text": " 7\n", "index": 0, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 2},
    }
).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)


class _Connection(asyncio.Protocol):
    """One keep-alive connection: every request gets the same answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head, end, body = self._waiting.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        if len(body) >= length:
            self._waiting = body[length:]
            asyncio.get_running_loop().call_later(DELAY, self._transport.write, _ANSWER)  # type: ignore[attr-defined]


def _serve(told: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def serving() -> Iterator[str]:
    """The server's address."""
    here, there = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.kill()
        process.join()


def bare(url: str, texts: list[str], concurrency: int) -> float:
    """Seconds of as many workers as requests may be in flight; each asks, reads the answer, asks again."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def worker(waiting: Iterator[str]) -> None:
        # A client each: one pool for 128 connections takes three times as long.
        async with httpx.AsyncClient(verify=plain) as http:
            for text in waiting:
                body = {"model": "m", "prompt": text, "max_tokens": 80, "temperature": 0, "stop": ["\n\n"]}
                response = await http.post(f"{url}/completions", json=body)
                assert response.json()["choices"][0]["text"]

    async def run() -> None:
        waiting = iter(texts)
        await asyncio.gather(*(worker(waiting) for _ in range(concurrency)))

    begin = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - begin


def ours(url: str, folder: Path, concurrency: int) -> float:
    """Seconds of the runner, with all that it does for a sample: prompt, log, scores."""
    model = Model.model_validate(
        {
            "name": "m",
            "promptFormat": "Text",
            "openai": {"url": url, "model": "m", "maxConcurrency": concurrency},
        }
    )
    assert model.openai
    backend = OpenAIBackend(model.openai, None)
    dataset = planned(tiny_task("gsm", subsets=None), source="pvc://data/rows.jsonl")
    with tempfile.TemporaryDirectory() as out:
        work, watch = assignment(model, dataset, Path(out), data=folder), Stopwatch()
        evaluate(work, Shell(lambda *_: backend, Progress(io.StringIO()), watch, lambda _: None))
    return float(watch.seconds["infer"])


def fastest(sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Seconds of each side's fastest round, in turn."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            found[name].append(side())
    return {name: min(seconds) for name, seconds in found.items()}


def measured() -> dict[int, dict[str, float]]:
    """By requests in flight: requests per second of both sides."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch, serving() as url:
        folder = Path(scratch)
        for concurrency in CONCURRENCY:
            number = int(concurrency * SECONDS / DELAY)
            texts = [f"What is {i} plus {i}?" for i in range(number)]
            rows = [json.dumps({"question": text, "answer": "7"}) + "\n" for text in texts]
            (folder / "rows.jsonl").write_text("".join(rows))
            sides = {
                "bare": partial(bare, url, texts, concurrency),
                "ours": partial(ours, url, folder, concurrency),
            }
            found[concurrency] = {name: round(number / s, 1) for name, s in fastest(sides).items()}
    return found


if __name__ == "__main__":
    for concurrency, rates in measured().items():
        print(concurrency, rates, round(rates["ours"] / rates["bare"], 3))
