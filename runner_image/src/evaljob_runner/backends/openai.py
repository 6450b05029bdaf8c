"""Servers that speak OpenAI's completions API. The server renders and tokenises.

Parameters that OpenAI does not know (top_k, repetition_penalty) are sent only when the spec names them, as many
servers refuse unknown ones.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from evaljob.backends import OpenAI
from evaljob.names import Reason
from evaljob_runner.backends import echo
from evaljob_runner.backends.base import (
    Answer,
    ChatPrompt,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Overflow,
    Reply,
    TextPairs,
    TokenPrompt,
    Unavailable,
    Unsupported,
    cut,
)
from evaljob_runner.backends.endpoint import Client, Endpoint, Filtered, Refused, TryAgain
from evaljob_runner.errors import Retry
from evaljob_runner.surrogates import replaced

STOPS_SENT = 4
"""OpenAI's limit; whatever the server leaves is cut here."""
PROBE = LogLikelihoodRequest("probe", TextPairs("The capital of France is", (" Paris",)))
"""Asked before the first sample: whether the server has log-probabilities of a prompt."""
_FINISHED = {"length": Finish.LENGTH, "content_filter": Finish.REFUSED, "sensitive": Finish.REFUSED}
"""The last one is Zhipu's word. Any other is a stop: servers have many words for that."""
_BROKEN_OFF = frozenset({"abort", "error", "insufficient_system_resource", "network_error"})
"""Words of vLLM and SGLang, OpenRouter, DeepSeek and Zhipu: the answer is not whole, and nobody chose its end."""


class OpenAIBackend:
    """A client of one served model.

    Args:
        spec: where it is served.
        key_file: holds the API key.
        first_wait: seconds before the first retry, doubled each time.
    """

    tokenizer = None
    window = None
    rolling_window = 0  # refused: only a tokenizer can cut a text
    device = "server"

    def __init__(self, spec: OpenAI, key_file: Path | None, *, first_wait: float = 0.5) -> None:
        self._endpoint = Endpoint(spec, key_file, first_wait)

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers as they finish; at most `maxConcurrency` requests are in flight."""
        return self._endpoint.each(requests, generate)

    def weigh(
        self, requests: Iterable[LogLikelihoodRequest]
    ) -> Iterator[LogLikelihoods | Overflow | Unavailable]:
        """Log-likelihoods as they finish; at most `maxConcurrency` prompts are in flight.

        Raises:
            Unsupported: before the first sample, when the server has no log-probabilities of a prompt.
            Retry: when it gives no answer to that question.
        """
        waiting = iter(requests)
        for first in waiting:
            try:
                self._probe()
                yield from self._endpoint.each(chain([first], waiting), _weigh)
            except Unsupported as error:
                raise Unsupported(
                    "requestType LogLikelihood needs the log-probabilities of a prompt (completions with echo and "
                    f"logprobs), which {self._endpoint.spec.url} does not return: {error}; use vLLM's server or the "
                    "transformers backend"
                ) from error

    def _probe(self) -> None:
        try:
            (reply,) = self._endpoint.each([PROBE], _weigh)
        except Refused as error:
            raise Unsupported(str(error)) from error
        if not isinstance(reply, LogLikelihoods):
            raise Retry(Reason.DEPENDENCY_UNAVAILABLE, reply.message)


async def generate(client: Client, request: GenerateRequest) -> Answer:
    """The answer to one request, an empty one where a filter takes the prompt; raises as `Client.post`."""
    path, body = _body(request)
    try:
        return await client.post(path, body, lambda response: _answer(request, response))
    except Filtered:
        return Answer(request.key, "", Finish.REFUSED, prompt_tokens=0, output_tokens=0)


def _body(request: GenerateRequest) -> tuple[str, dict[str, Any]]:
    """The API's path and the request's body."""
    sampling, prompt = request.sampling, request.prompt
    if isinstance(prompt, TokenPrompt):
        raise TypeError("the openai backend takes text or messages")
    body = {
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
        args: dict[str, Any] = (
            {"chat_template_kwargs": dict(prompt.template_args)} if prompt.template_args else {}
        )
        args |= {"tools": list(map(dict, prompt.tools))} if prompt.tools else {}
        return "chat/completions", body | args | {"messages": [dict(m) for m in prompt.messages]}
    return "completions", body | {"prompt": prompt.text}


def _said(message: Mapping[str, Any]) -> str:
    """The text of a message; tool calls stand for it as a JSON list."""
    tool_calls = message.get("tool_calls")
    return json.dumps(tool_calls, ensure_ascii=False) if tool_calls else message.get("content") or ""


def _answer(request: GenerateRequest, response: httpx.Response) -> Answer:
    body = response.json()
    choice = body["choices"][0]
    chat = isinstance(request.prompt, ChatPrompt)
    message = choice["message"] if chat else {}
    text = _said(message) if chat else choice["text"]
    text, stopped = cut(replaced(text), request.sampling.stop)
    usage = body.get("usage") or {}
    ended = choice.get("finish_reason") or "stop"
    if ended in _BROKEN_OFF:
        raise TryAgain(f"the server broke the answer off (finish_reason {ended})")
    # vLLM's name, then its newer one.
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    return Answer(
        key=request.key,
        text=text,
        finish=Finish.STOP if stopped else _FINISHED.get(ended, Finish.STOP),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        seconds=round(response.elapsed.total_seconds(), 3),
        thoughts=replaced(thoughts) if thoughts else None,
    )


async def _weigh(client: Client, request: LogLikelihoodRequest) -> LogLikelihoods:
    """Ask for the context alone, to learn how many tokens it takes, then for each choice behind it."""
    pairs = request.pairs
    if not isinstance(pairs, TextPairs):
        raise TypeError("the openai backend takes texts")
    context = await _echoed(client, pairs.context)
    weights = [
        echo.weight(context, await _echoed(client, pairs.context + continuation), continuation)
        for continuation in pairs.continuations
    ]
    return LogLikelihoods(request.key, tuple(weights), prompt_tokens=len(context))


async def _echoed(client: Client, prompt: str) -> echo.Tokens:
    # One token is generated and dropped: not every server takes a maximum of 0.
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1, "stream": False}
    return await client.post("completions", body, lambda response: echo.prompt_tokens(response.json()))
