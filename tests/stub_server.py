"""A server of faults that speaks just enough of OpenAI's API: `python stub_server.py --port N --mode MODE`.

Standard library only, one file: it also runs as a pod in the runner's image. Modes are

- ok: answers every prompt with `--answer`, and nothing of what `echo` and `logprobs` ask for
- echo: answers those too, a token a word; a word of n letters has the log-probability -n
- infinite: as echo, but the last log-probability is vLLM's word for minus infinity
- judge: says whether the lines `answer: ...` and `target: ...` of a chat's last turn are equal, C or I
- 401, 403, 404, 429, 500: that status always; 429 says Retry-After
- 429-then-ok, 500-then-ok: the first `--faults` requests fail
- context: 400 in the words of a server whose window is too small
- filter: 400 in the words of a server whose filter takes the prompt
- abort: breaks the answer off
- 400: 400 for another reason
- garbage: 200 with a body that is no JSON
- parrot: 200 with a header line that is none and repeats the key
- slow: answers after `--delay` seconds
- silent: takes requests and never answers
"""

import argparse
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODES = (
    "ok",
    "echo",
    "infinite",
    "judge",
    "401",
    "403",
    "404",
    "429",
    "500",
    "429-then-ok",
    "500-then-ok",
    "400",
    "context",
    "filter",
    "abort",
    "garbage",
    "parrot",
    "slow",
    "silent",
)
REFUSALS = {
    "context": {
        "message": "This model's maximum context length is 64 tokens. However, you requested 80 tokens.",
        "code": "context_length_exceeded",
    },
    "filter": {
        "message": "The response was filtered due to the prompt triggering our content management policy.",
        "code": "content_filter",
    },
}
"""Errors with status 400."""


@dataclass
class Script:
    """What the server does, and what it was asked."""

    mode: str = "ok"
    answer: str = "Paris"
    thoughts: str | None = None
    """What a reasoning parser takes out of the answer of a chat."""
    tool_calls: list[dict[str, Any]] | None = None
    delay: float = 1.0
    retry_after: str = "0"
    message: str = "this stub always answers so"
    """The error of a failing mode."""
    faults: int = 1
    finish: str = "stop"
    """Why an answer ended."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Path, headers and body of every request."""
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def serving(self, request: dict[str, Any]) -> Iterator[int]:
        """Count a request; yields how many came before it."""
        with self.lock:
            before = len(self.requests)
            self.requests.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield before
        finally:
            with self.lock:
                self.in_flight -= 1


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its server."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        """Readiness."""
        self._send(200, {"status": "ok"})

    def do_POST(self) -> None:
        """A completion or a fault."""
        raw = self.rfile.read(int(self.headers.get("content-length", "0")))
        request = {"path": self.path, "headers": dict(self.headers), "body": json.loads(raw)}
        with self.server.script.serving(request) as before:
            self._answer(request, before)

    def _answer(self, request: dict[str, Any], before: int) -> None:
        script = self.server.script
        mode, _, later = script.mode.partition("-then-")
        if later and before >= script.faults:
            mode = later
        time.sleep({"silent": 3600, "slow": script.delay}.get(mode, 0))
        if mode == "garbage":
            self._send_bytes(200, b"<html>it works!</html>")
        elif mode == "parrot":
            self._send_bytes(200, b"", {request["headers"]["Authorization"] + " ": ""})
        elif mode in REFUSALS:
            self._send(400, {"error": REFUSALS[mode]})
        elif mode.isdecimal():
            headers = {"retry-after": script.retry_after} if mode == "429" else {}
            self._send(int(mode), {"error": {"message": script.message}}, headers)
        elif mode in ("echo", "infinite"):
            self._send(200, _echo(request["body"]["prompt"], infinite=mode == "infinite"))
        elif mode == "abort":
            self._send(200, _completion(request, replace(script, answer=script.answer[:2], finish="abort")))
        elif mode == "judge":
            self._send(200, _completion(request, replace(script, answer=_grade(request))))
        else:
            self._send(200, _completion(request, script))

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send_bytes(
            status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


def _grade(request: dict[str, Any]) -> str:
    asked = request["body"]["messages"][-1]["content"]
    answer, target = (
        re.findall(rf"^{name}: (.*)$", asked, re.MULTILINE)[-1] for name in ("answer", "target")
    )
    return f"They are compared letter by letter.\nGRADE: {'C' if answer == target else 'I'}"


def _completion(request: dict[str, Any], script: Script) -> dict[str, Any]:
    answer = script.answer
    chat = request["path"].endswith("/chat/completions")
    message: dict[str, Any] = {"role": "assistant", "content": answer or None}
    message |= {"reasoning_content": script.thoughts, "tool_calls": script.tool_calls}
    said: dict[str, Any] = {"message": message} if chat else {"text": answer}
    usage = {"prompt_tokens": 7, "completion_tokens": len(answer.split())}
    return {"choices": [{"index": 0, "finish_reason": script.finish, **said}], "usage": usage}


def _echo(prompt: str, *, infinite: bool) -> dict[str, Any]:
    """The prompt and one new word, as SGLang's server lays them out."""
    first, *words = [*prompt.split(" "), "new"]
    values = [-float(len(word)) for word in words]
    if infinite:
        values[-2] = -9999.0
    # A word of even length is the most likely one in its place.
    tops = [{"top": value + len(word) % 2} for word, value in zip(words, values, strict=True)]
    logprobs = {
        "tokens": [first, *words],
        "token_logprobs": [None, *values],
        "top_logprobs": [None, *tops],
        "text_offset": [-1] * (1 + len(words)),
    }
    choice = {"index": 0, "text": f"{prompt} new", "finish_reason": "length", "logprobs": logprobs}
    return {"choices": [choice], "usage": {"prompt_tokens": len(words), "completion_tokens": 1}}


class Server(ThreadingHTTPServer):
    """One script, one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], script: Script) -> None:
        super().__init__(address, Handler)
        self.script = script


@contextmanager
def serve(script: Script) -> Iterator[str]:
    """A server on a free port of this machine; yields its base address."""
    from tests.serving import serving

    with serving(Server(("127.0.0.1", 0), script)) as address:
        yield f"{address}/v1"


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=MODES, default="ok")
    parser.add_argument("--answer", default=Script.answer)
    parser.add_argument("--delay", type=float, default=Script.delay)
    parser.add_argument("--retry-after", default=Script.retry_after)
    parser.add_argument("--faults", type=int, default=Script.faults)
    args = parser.parse_args()
    script = Script(
        mode=args.mode,
        answer=args.answer,
        delay=args.delay,
        retry_after=args.retry_after,
        faults=args.faults,
    )
    Server(("", args.port), script).serve_forever()  # a pod listens on its own address


if __name__ == "__main__":
    main()
