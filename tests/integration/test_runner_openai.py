"""The client of a served model, against a stub server of our own.

Log-probabilities of real weights: tests/torch/test_serve.py.
"""

import io
import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaljob.backends import OpenAI
from evaljob.names import Reason
from evaljob.result import PartitionResult
from evaljob.spec import Model
from evaljob.task import Task
from evaljob_runner.backends import openai
from evaljob_runner.backends.base import (
    Answer,
    ChatPrompt,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Overflow,
    Reply,
    Sampling,
    TextPairs,
    TextPrompt,
    Unavailable,
    Unsupported,
    Weight,
)
from evaljob_runner.backends.endpoint import ATTEMPTS
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.metrics.calls import Call, calls
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import assignment, planned
from tests.stub_server import Script, serve
from tests.unit.test_runner_data import lines, task

GREEDY = Sampling(max_tokens=8, temperature=0.0, top_p=1.0, top_k=None, repetition_penalty=None, stop=("\n",))
CHAT = ChatPrompt(({"role": "user", "content": "Capital of France?"},))


def ask(
    script: Script,
    *prompts: TextPrompt | ChatPrompt,
    sampling: Sampling = GREEDY,
    key_file: Path | None = None,
    concurrency: int = 8,
) -> list[Reply]:
    with serve(script) as url:
        return ask_at(url, prompts, sampling, key_file, concurrency)


def ask_at(
    url: str,
    prompts: Sequence[TextPrompt | ChatPrompt],
    sampling: Sampling = GREEDY,
    key_file: Path | None = None,
    concurrency: int = 8,
) -> list[Reply]:
    spec = OpenAI(url=url, model="m", max_concurrency=concurrency, request_timeout_seconds=1)
    backend = openai.OpenAIBackend(spec, key_file, first_wait=0.001)
    requests = (GenerateRequest(str(i), p, sampling, seed=7) for i, p in enumerate(prompts))
    return list(backend.generate(requests))


def partition(
    folder: Path, url: str, rows: list[dict[str, Any]], asked: Task | None = None
) -> PartitionResult:
    """A partition of the served model; by default with questions `q`, whose answers should hold `a`."""
    model = Model.model_validate(
        {"name": "served", "promptFormat": "Chat", "openai": {"url": url, "model": "m"}}
    )
    dataset = planned(asked or task(), inline={"jsonl": lines(rows)})
    backend = openai.OpenAIBackend(model.openai, None)  # type: ignore[arg-type]
    shell = Shell(lambda *_: backend, Progress(io.StringIO()), Stopwatch(), lambda _: None)
    return evaluate(assignment(model, dataset, folder), shell)


def test_text_goes_to_completions_with_every_parameter() -> None:
    script = Script(answer="Paris")
    (reply,) = ask(script, TextPrompt("The capital of France is"))
    assert isinstance(reply, Answer)
    assert (reply.text, reply.finish, reply.prompt_tokens, reply.output_tokens) == (
        "Paris",
        Finish.STOP,
        7,
        1,
    )
    assert script.requests[0]["path"] == "/v1/completions"
    assert script.requests[0]["body"] == {
        "model": "m",
        "prompt": "The capital of France is",
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": ["\n"],
        "stream": False,
    }


def test_messages_go_to_chat_completions() -> None:
    script = Script(answer="Paris")
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Answer)
    assert reply.text == "Paris"
    assert script.requests[0]["path"] == "/v1/chat/completions"
    assert script.requests[0]["body"]["messages"] == [{"role": "user", "content": "Capital of France?"}]


def test_a_server_is_asked_each_turn_with_its_own_answers_before_it(tmp_path: Path) -> None:
    script = Script(answer="Paris")
    turns = [{"role": "user", "content": "Capital of France?"}, {"role": "user", "content": "Sure?"}]
    asked = task(requestType="Chat", prompt=None, messages="{{ m }}", turns="Every", target="Paris")
    with serve(script) as url:
        found = partition(tmp_path, url, [{"m": turns}], asked)
    told = {"role": "assistant", "content": "Paris"}
    assert [r["body"]["messages"] for r in script.requests] == [turns[:1], [turns[0], told, turns[1]]]
    assert found.outcomes.answered == 1


def test_thoughts_that_the_server_took_out_come_apart_from_the_answer() -> None:
    (reply,) = ask(Script(answer="Paris", thoughts="hm"), CHAT)
    assert isinstance(reply, Answer)
    assert (reply.text, reply.thoughts) == ("Paris", "hm")
    (silent,) = ask(Script(answer="", thoughts="hm"), CHAT)
    assert isinstance(silent, Answer)
    assert (silent.text, silent.thoughts) == ("", "hm")


def test_tool_calls_of_a_server_are_the_answer_as_json() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    script = Script(answer="", tool_calls=[call])
    (reply,) = ask(script, ChatPrompt(CHAT.messages, tools=(tool,)))
    assert isinstance(reply, Answer)
    assert calls(reply.text) == [Call("add", {"a": 1})]
    assert script.requests[0]["body"]["tools"] == [tool]


def test_variables_of_the_chat_template_go_with_the_messages() -> None:
    script = Script()
    ask(script, ChatPrompt(CHAT.messages, {"enable_thinking": False}), CHAT)
    bodies = [request["body"] for request in script.requests]
    assert {json.dumps(b.get("chat_template_kwargs")) for b in bodies} == {
        '{"enable_thinking": false}',
        "null",
    }


def test_what_openai_does_not_know_is_sent_only_when_it_is_set() -> None:
    script = Script()
    sampled = Sampling(max_tokens=8, temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.1, stop=())
    ask(script, CHAT, sampling=sampled)
    body = script.requests[0]["body"]
    assert (body["top_k"], body["repetition_penalty"], body["seed"]) == (40, 1.1, 7)
    assert "stop" not in body


def test_a_stop_text_that_the_server_leaves_is_cut() -> None:
    (reply,) = ask(Script(answer="Paris\nIt is large."), CHAT)
    assert isinstance(reply, Answer)
    assert reply.text == "Paris"


def test_a_long_stop_list_is_sent_in_part_and_cut_here() -> None:
    stops = ("a1", "a2", "a3", "a4", "Q:")
    script = Script(answer="Paris Q: next")
    sampling = Sampling(
        max_tokens=8, temperature=0.0, top_p=1.0, top_k=None, repetition_penalty=None, stop=stops
    )
    (reply,) = ask(script, CHAT, sampling=sampling)
    assert script.requests[0]["body"]["stop"] == list(stops[:4])
    assert isinstance(reply, Answer)
    assert reply.text == "Paris "


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("401", Reason.UNAUTHORIZED),
        ("403", Reason.UNAUTHORIZED),
        ("404", Reason.ENDPOINT_NOT_FOUND),
        ("400", Reason.BAD_CONFIGURATION),
    ],
)
def test_a_refusal_that_stays_is_asked_once(mode: str, reason: Reason) -> None:
    script = Script(mode)
    with pytest.raises(Fatal, match=mode) as caught:
        ask(script, CHAT)
    assert caught.value.reason is reason
    assert len(script.requests) == 1


def test_a_server_that_speaks_of_its_context_overflows_that_sample() -> None:
    (reply,) = ask(Script("context"), CHAT)
    assert isinstance(reply, Overflow)
    assert "64 tokens" in reply.message


@pytest.mark.parametrize("mode", ["429-then-ok", "500-then-ok", "abort-then-ok"])
def test_a_fault_that_passes_is_tried_again(mode: str) -> None:
    script = Script(mode, faults=3)
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Answer)
    assert (reply.text, reply.finish) == ("Paris", Finish.STOP)
    assert len(script.requests) == 4


@pytest.mark.parametrize("finish", ["abort", "error", "insufficient_system_resource", "network_error"])
def test_an_answer_that_the_server_breaks_off_is_none(finish: str) -> None:
    script = Script(answer="Par", finish=finish)
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Unavailable)
    assert f"broke the answer off (finish_reason {finish})" in reply.message
    assert len(script.requests) == ATTEMPTS


@pytest.mark.parametrize(
    "script",
    [
        Script("filter"),
        Script(answer="", finish="content_filter"),
        Script(answer="", finish="sensitive"),
    ],
)
def test_a_prompt_or_an_answer_that_a_filter_takes_is_refused(script: Script) -> None:
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Answer)
    assert (reply.text, reply.finish) == ("", Finish.REFUSED)
    assert len(script.requests) == 1


def test_a_filter_that_takes_one_prompt_leaves_the_others_their_answers(tmp_path: Path) -> None:
    script = Script("filter-then-ok")
    with serve(script) as url:
        found = partition(tmp_path, url, [{"q": "a", "a": "Paris"}, {"q": "b", "a": "Paris"}])
    assert (found.outcomes.refused, found.outcomes.answered) == (1, 1)


def test_half_a_character_from_a_server_is_replaced(tmp_path: Path) -> None:
    """Legal JSON, and nothing that a log can hold."""
    script = Script(answer="Paris \ud83d", thoughts="hm \ude00")
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Answer)
    assert (reply.text, reply.thoughts) == ("Paris \ufffd", "hm \ufffd")
    called = Script(answer="", tool_calls=[{"function": {"name": "add\ud83d"}}])
    (call,) = ask(called, CHAT)
    assert isinstance(call, Answer)
    assert calls(call.text) == [Call("add\ufffd", {})]
    with serve(script) as url:
        found = partition(tmp_path, url, [{"q": "a", "a": "Paris \ufffd"}])
    assert (found.outcomes.answered, found.subsets[0].stats[0].total) == (1, found.metrics[0].unit)


@pytest.mark.parametrize(("mode", "words"), [("500", "500"), ("garbage", "not an answer"), ("429", "429")])
def test_a_fault_that_stays_leaves_the_sample_after_bounded_tries(mode: str, words: str) -> None:
    script = Script(mode)
    (reply,) = ask(script, CHAT)
    assert isinstance(reply, Unavailable)
    assert words in reply.message
    assert len(script.requests) == ATTEMPTS


def test_a_closed_port_leaves_the_sample() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    (reply,) = ask_at(url, [CHAT])
    assert isinstance(reply, Unavailable)
    assert url in reply.message


def test_retry_after_takes_the_place_of_our_own_waiting() -> None:
    """Our own first wait would be a minute here."""
    with serve(Script("429-then-ok", retry_after="0")) as url:
        spec = OpenAI(url=url, model="m")
        backend = openai.OpenAIBackend(spec, None, first_wait=60)
        began = time.monotonic()
        (reply,) = backend.generate([GenerateRequest("0", CHAT, GREEDY, seed=0)])
    assert isinstance(reply, Answer)
    assert time.monotonic() - began < 30


def test_requests_are_pulled_when_there_is_room() -> None:
    """Neither more requests in flight than allowed, nor a whole dataset of prompts in memory."""
    script = Script("slow", delay=0.02)
    replies = ask(script, *[CHAT] * 12, concurrency=3)
    assert sorted(r.key for r in replies) == sorted(map(str, range(12)))
    assert script.most_in_flight == 3


def test_the_key_is_read_for_every_request_and_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "token"
    key.write_text("sk-secret\n")
    script = Script()
    ask(script, CHAT, key_file=key)
    assert script.requests[0]["headers"]["Authorization"] == "Bearer sk-secret"
    with pytest.raises(Fatal) as caught:
        ask(Script("400", message="bad key sk-secret"), CHAT, key_file=key)
    assert "sk-secret" not in str(caught.value)


def test_a_missing_key_file_is_said() -> None:
    with pytest.raises(Fatal, match="apiKeySecretRef: /nowhere/token: No such file"):
        ask(Script(), CHAT, key_file=Path("/nowhere/token"))


def test_a_key_file_that_holds_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff")
    with pytest.raises(Fatal, match=r"apiKeySecretRef: .*/token: no text, so no key"):
        ask(Script(), CHAT, key_file=tmp_path / "token")


@pytest.mark.parametrize(
    "text", ["sk-secret\nsk-other\n", "sk-secret other", "sk-secret\x00", "sk-secret\u2026"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """The error of the HTTP client repeats the header."""
    (tmp_path / "token").write_text(text)
    script = Script()
    with pytest.raises(
        Fatal, match=r"apiKeySecretRef: .*/token: .*; write the key alone, on one line"
    ) as caught:
        ask(script, CHAT, key_file=tmp_path / "token")
    assert caught.value.reason is Reason.BAD_CONFIGURATION
    assert "secret" not in str(caught.value)
    assert not script.requests


def test_an_error_of_the_connection_does_not_show_the_key(tmp_path: Path) -> None:
    """A server that repeats the headers of a request garbled: h11 quotes them."""
    (tmp_path / "token").write_text("sk-secret\n")
    (reply,) = ask(Script("parrot"), CHAT, key_file=tmp_path / "token")
    assert isinstance(reply, Unavailable)
    assert "***" in reply.message
    assert "secret" not in reply.message


ROME = TextPairs("Rome lies in", (" Italy", " big Spain"))


def weigh(
    script: Script, *pairs: TextPairs, concurrency: int = 8
) -> list[LogLikelihoods | Overflow | Unavailable]:
    with serve(script) as url:
        spec = OpenAI(url=url, model="m", max_concurrency=concurrency, request_timeout_seconds=1)
        backend = openai.OpenAIBackend(spec, None, first_wait=0.001)
        return list(backend.weigh(LogLikelihoodRequest(str(i), p) for i, p in enumerate(pairs)))


def test_choices_are_weighed_by_the_tokens_behind_those_of_the_context() -> None:
    """A word of n letters has the log-probability -n here, and the answer holds one new word more."""
    (reply,) = weigh(Script("echo"), ROME)
    weights = (Weight(-5.0, 1, greedy=False), Weight(-8.0, 2, greedy=False))
    assert reply == LogLikelihoods("0", weights, prompt_tokens=3)


def test_a_choice_is_greedy_if_each_of_its_tokens_is_the_most_likely() -> None:
    (reply,) = weigh(Script("echo"), TextPairs("Rome lies in", (" East Asia", " an old city")))
    assert isinstance(reply, LogLikelihoods)
    assert [w.greedy for w in reply.weights] == [True, False]


def test_context_and_choices_are_sent_as_single_texts_with_echo() -> None:
    script = Script("echo")
    weigh(script, ROME)
    assert {r["path"] for r in script.requests} == {"/v1/completions"}
    assert [r["body"]["prompt"] for r in script.requests] == [
        "The capital of France is",
        "The capital of France is Paris",
        "Rome lies in",
        "Rome lies in Italy",
        "Rome lies in big Spain",
    ]
    assert script.requests[-1]["body"] == {
        "model": "m",
        "prompt": "Rome lies in big Spain",
        "max_tokens": 1,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
        "stream": False,
    }


@pytest.mark.parametrize(("mode", "said"), [("ok", "there are 0 token_logprobs"), ("400", "answers 400")])
def test_a_server_without_log_probabilities_is_refused_before_the_first_sample(mode: str, said: str) -> None:
    script = Script(mode)
    with pytest.raises(Unsupported, match=rf"http://127.*does not return: .*{said}.*use vLLM's server"):
        weigh(script, ROME, ROME)
    assert len(script.requests) == 1


def test_a_server_that_is_gone_is_not_taken_for_one_without_log_probabilities() -> None:
    with pytest.raises(Retry, match="HTTP 500") as caught:
        weigh(Script("500"), ROME)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_nothing_is_asked_where_nothing_is_left_to_weigh() -> None:
    script = Script("echo")
    assert weigh(script) == []
    assert script.requests == []


def test_a_choice_too_long_for_the_server_overflows_its_sample_only() -> None:
    replies = weigh(Script("echo-then-context", faults=5), ROME, ROME, concurrency=1)
    assert [type(r) for r in replies] == [LogLikelihoods, Overflow]


def test_no_more_prompts_are_in_flight_than_allowed() -> None:
    script = Script("echo", delay=0.02)
    weigh(script, *[ROME] * 6, concurrency=2)
    assert script.most_in_flight <= 2


def test_minus_infinity_in_the_words_of_a_server_is_no_number() -> None:
    with pytest.raises(Fatal, match="not finite") as caught:
        weigh(Script("infinite"), ROME)
    assert caught.value.reason is Reason.INVALID_NUMBER
