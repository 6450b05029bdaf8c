"""A judge behind a real HTTP server scores what a scripted model says: records, resume, faults."""

import io
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from evaljob import framing
from evaljob.judges import Judge
from evaljob.names import Reason
from evaljob.plan import PlannedDataset
from evaljob.result import PartitionResult
from evaljob.spec import Model
from evaljob_runner import data
from evaljob_runner.backends.correspondent import OpenAICorrespondent
from evaljob_runner.backends.scripted import ScriptedBackend
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.judging import GIVE_UP_AFTER, TRIES
from evaljob_runner.progress import Progress, Stopwatch
from tests.runner_plans import assignment, planned, tiny_model
from tests.stub_server import Script, serve
from tests.torch.processes import end, run, start
from tests.torch.processes import lines as samples
from tests.unit.test_runner_data import lines, task

PROMPT = "Question: {{ q }}\nanswer: {{ answer }}\ntarget: {{ target }}"
RUBRIC = {"name": "gpt", "prompt": PROMPT, "extract": "grade", "labels": {"C": 1, "P": 0.5, "I": 0}}
GRADE = [{"regex": "GRADE: (\\w+)", "take": "Last"}]
ROWS = [{"q": f"q{i}", "a": f"q{i // 2 * 2}"} for i in range(6)]
"""Every second answer of the model, which repeats the question, is right."""


def judged(rubric: dict[str, Any] | None = None, grade: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    metric = {"name": "llm_judge", "primary": True, "judge": RUBRIC | (rubric or {})}
    return {"metrics": [metric], "extract": {"grade": grade or GRADE}}


@dataclass
class Partition:
    """One partition, attempt after attempt."""

    folder: Path
    url: str
    task: dict[str, Any] = field(default_factory=judged)
    openai: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    """More of its fields."""
    rows: list[dict[str, Any]] = field(default_factory=lambda: ROWS)
    key: Path | None = None
    answer: Callable[[str], str] = lambda q: q
    prompt_format: str = "Text"
    attempts: int = 0

    def dataset(self) -> PlannedDataset:
        endpoint = {"url": self.url, "model": "judge-1", "requestTimeoutSeconds": 5, **self.openai}
        judge = Judge.model_validate({"name": "gpt", "openai": endpoint, **self.judge})
        found = planned(task(**self.task), inline={"jsonl": lines(self.rows)})
        return found.model_copy(update={"judges": (judge,)})

    def run(self, *, score_only: bool = False) -> PartitionResult:
        """An attempt more."""
        self.attempts += 1
        self.model = ScriptedBackend(answer=self.answer)
        work = assignment(
            tiny_model(promptFormat=self.prompt_format),
            self.dataset(),
            self.folder,
            attempt=f"a-{self.attempts}",
        )
        if self.key:
            work.places.judge_key_files["gpt"] = self.key  # type: ignore[index]
        shell = Shell(
            lambda *_: self.model,
            Progress(io.StringIO()),
            Stopwatch(),
            lambda _: None,
            score_only=score_only,
            open_judge=lambda judge, key: OpenAICorrespondent(judge.openai, key, first_wait=0.001),
        )
        return evaluate(work, shell)

    def scores(self) -> list[dict[str, Any]]:
        """The score lines of all attempts."""
        paths = sorted(self.folder.rglob("*.jsonl"))
        found = [json.loads(text) for path in paths for text in path.read_text().splitlines()]
        return [line for line in found if line["kind"] == "score"]


def state(found: PartitionResult) -> tuple[int, int]:
    """Samples, and the sum of their scores."""
    stat = found.subsets[0].stats[0]
    return stat.n, stat.total // found.metrics[0].unit


def test_a_judge_scores_and_the_log_holds_what_it_was_asked_and_said(tmp_path: Path) -> None:
    script = Script("judge")
    with serve(script) as url:
        partition = Partition(tmp_path, url)
        found = partition.run()
    assert framing.decode(framing.encode(found)) == found
    assert state(found) == (6, 3)
    assert (found.metrics[0].key, found.metrics[0].binary) == ("llm_judge", False)
    assert found.provenance["judge:llm_judge"].startswith("judge-1 sha256:")
    assert (found.tokens.judge_prompt, found.tokens.judge_output) == (6 * 7, 6 * 8)
    by_id = {line["id"]: line["scores"]["llm_judge"] for line in partition.scores()}
    assert (by_id["1"]["value"], by_id["1"]["explanation"]) == (0, "I")
    judgement = by_id["1"]["judgement"]
    asked = "Question: q1\nanswer: q1\ntarget: q0"
    assert json.loads(judgement["request"]) == [{"role": "user", "content": asked}]
    assert judgement["output"].endswith("GRADE: I")
    assert (judgement["judge"], judgement["model"], judgement["promptTokens"]) == ("gpt", "judge-1", 7)
    body = next(r["body"] for r in script.requests if r["body"]["messages"][0]["content"] == asked)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0, 1024)


def test_a_number_is_the_score_itself(tmp_path: Path) -> None:
    scale = {"labels": None, "scale": {"min": 1, "max": 10}}
    with serve(Script(answer="It is good. Rating: [[8]]")) as url:
        partition = Partition(tmp_path, url, task=judged(scale, [{"regex": "\\[\\[(\\d+)\\]\\]"}]))
        found = partition.run()
    assert state(found) == (6, 6 * 8)
    assert framing.decode(framing.encode(found)) == found


@pytest.mark.parametrize(
    "script",
    [
        Script(answer="<think>At first sight GRADE: C.\n</think>\nGRADE: I"),
        Script(answer="GRADE: I", thoughts="At first sight GRADE: C."),
    ],
    ids=["in its words", "taken out by the server"],
)
def test_a_judge_that_thinks_is_read_behind_its_thoughts(tmp_path: Path, script: Script) -> None:
    """With room for both, its template's variables, and stop texts that leave its thoughts alone."""
    thinks = {
        "generation": {"maxTokens": 10, "stop": ["\n"]},
        "reasoning": {"maxTokens": 500},
        "chatTemplateArgs": {"enable_thinking": "true", "effort": "low"},
    }
    first = judged(grade=[{"regex": "GRADE: (\\w+)", "take": "First"}])
    with serve(script) as url:
        partition = Partition(tmp_path, url, task=first, judge=thinks)
        found = partition.run()
    assert state(found) == (6, 0)
    judgement = partition.scores()[0]["scores"]["llm_judge"]["judgement"]
    assert judgement["output"] == "GRADE: I"
    body = script.requests[0]["body"]
    assert (body["max_tokens"], "stop" in body) == (510, False)
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "effort": "low"}


def test_a_sample_without_an_answer_has_the_lowest_score_and_is_not_asked_about(tmp_path: Path) -> None:
    changed = judged({"labels": {"C": 1, "I": -1}})
    changed["extract"]["odd"] = [{"regex": "q[135]"}]
    changed["metrics"][0]["extract"] = "odd"
    script = Script("judge")
    with serve(script) as url:
        partition = Partition(tmp_path, url, task=changed)
        found = partition.run()
    assert found.outcomes.no_answer == 3
    assert state(found) == (6, -6)
    assert len(script.requests) == 3


def test_a_judge_is_asked_only_where_a_comparison_fails(tmp_path: Path) -> None:
    changed = judged({"unless": "exact_match"})
    changed["metrics"].append({"name": "exact_match"})
    script = Script(answer="GRADE: P")
    with serve(script) as url:
        partition = Partition(tmp_path, url, task=changed)
        found = partition.run()
        partition.run()
    assert len(script.requests) == 3
    assert found.subsets[0].stats[0].total == 4.5 * found.metrics[0].unit
    settled = partition.scores()[0]["scores"]["llm_judge"]
    assert (settled["value"], settled["explanation"]) == (1, "exact_match is 1")


def test_no_later_attempt_asks_the_judge_again(tmp_path: Path) -> None:
    """The first attempt dies before its last answer; a judgement that came after the last but one is not logged."""
    script = Script("judge")

    def served(count: int) -> bool:
        return len(script.requests) == count and not script.in_flight

    def dies(question: str) -> str:
        number = int(question[1:])
        while number and not served(number):
            time.sleep(0.01)
        if question == "q5":
            raise KeyboardInterrupt
        return question

    with serve(script) as url:
        partition = Partition(tmp_path, url, answer=dies, openai={"maxConcurrency": 1})
        with pytest.raises(KeyboardInterrupt):
            partition.run()
        known = {line["id"] for line in partition.scores()}
        assert len(known) >= 3
        before = len(script.requests)
        partition.answer = lambda q: q
        found = partition.run()
        assert state(found) == (6, 3)
        assert len(partition.model.asked) == 1
        assert len(script.requests) - before == 6 - len(known)
        again = partition.run()
        assert len(script.requests) - before == 6 - len(known)
    assert again.subsets == found.subsets
    assert len(partition.scores()) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"openai": {"model": "judge-2"}},
        {"judge": {"generation": {"maxTokens": 99}}},
        {"judge": {"generation": {"temperature": 0.5}}},
        {"judge": {"reasoning": {"maxTokens": 9}}},
        {"judge": {"chatTemplateArgs": {"enable_thinking": "false"}}},
        {"task": judged({"prompt": "Be strict.\n" + PROMPT})},
    ],
    ids=["model", "maxTokens", "temperature", "reasoning", "chatTemplateArgs", "prompt"],
)
def test_another_judge_scores_again_and_asks_no_model(tmp_path: Path, change: dict[str, Any]) -> None:
    script = Script("judge")
    with serve(script) as url:
        first = Partition(tmp_path, url).run()
        other = Partition(tmp_path, url, attempts=1, **change)
        found = other.run(score_only=True)
        assert len(script.requests) == 12
        assert other.model.asked == []
        assert found.subsets == first.subsets
        assert found.provenance["judge:llm_judge"] != first.provenance["judge:llm_judge"]
        Partition(tmp_path, url, attempts=2).run(score_only=True)
    assert len(script.requests) == 12


@pytest.mark.parametrize("kept", [1024, 3])
@pytest.mark.parametrize("column", ["{{ note }}", "{{ note if note is defined else '-' }}"])
def test_another_prompt_may_read_a_column_that_none_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, kept: int
) -> None:
    """The log has the columns that were wanted when the answer was written, the source has all."""
    monkeypatch.setattr(data, "KEPT", kept)
    rows = [{**row, "note": f"note {i}"} for i, row in enumerate(ROWS)]
    script = Script("judge")
    with serve(script) as url:
        first = Partition(tmp_path, url, rows=rows).run()
        changed = judged({"prompt": f"{PROMPT}\n{column}"})
        found = Partition(tmp_path, url, attempts=1, rows=rows, task=changed).run(score_only=True)
    assert found.subsets == first.subsets
    asked = [request["body"]["messages"][0]["content"].splitlines()[-1] for request in script.requests[6:]]
    assert sorted(asked) == [f"note {i}" for i in range(6)]


def test_other_labels_and_pipelines_read_what_the_judge_said_before(tmp_path: Path) -> None:
    script = Script("judge")
    with serve(script) as url:
        Partition(tmp_path, url).run()
        generous = judged({"labels": {"GRADE: I": 1, "GRADE: C": 1}}, [{"regex": "GRADE: \\w"}])
        found = Partition(tmp_path, url, attempts=1, task=generous).run(score_only=True)
    assert state(found) == (6, 6)
    assert len(script.requests) == 6


def test_what_cannot_be_read_is_no_score_and_is_asked_again_by_the_next_attempt(tmp_path: Path) -> None:
    script = Script("ok-then-judge", answer="Hard to say.", faults=TRIES)
    with serve(script) as url:
        partition = Partition(tmp_path, url, openai={"maxConcurrency": 1})
        with pytest.raises(Retry, match=r"1 scores are missing \(ScorerError\).*one of C, P, I.*Hard to say"):
            partition.run()
        assert len(script.requests) == TRIES + 5
        (left,) = [line for line in partition.scores() if "errors" in line]
        assert left["scores"] == {}
        assert left["errors"]["llm_judge"]["judgements"][0]["output"] == "Hard to say."
        found = partition.run()
        assert partition.model.asked == []
    assert state(found) == (6, 3)
    assert len(script.requests) == TRIES + 6


def test_a_judge_that_can_be_read_at_the_second_time_is_read(tmp_path: Path) -> None:
    script = Script("ok-then-judge", answer="Hard to say.", faults=1)
    with serve(script) as url:
        found = Partition(tmp_path, url).run()
    assert state(found) == (6, 3)
    assert len(script.requests) == 7


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            Script(answer="<think>GRADE: C", finish="length"),
            r"cut after 1033 tokens.*generation.maxTokens or reasoning.maxTokens",
        ),
        (Script(answer="<think>GRADE: C"), "or they do not end"),
        (
            Script(answer="GRADE: C", finish="length"),
            r"cut after 1024 tokens.*raise spec.judges\[\].generation",
        ),
        (Script(answer="GRADE: C", finish="content_filter"), "the server's filter took its answer"),
        (Script("filter"), "the server's filter took its answer"),
        (Script("abort", answer="GRADE: C"), "broke the answer off"),
        (Script(answer="GRADE: Z"), "extract grade finds none"),
        (Script(answer=""), "extract grade finds none"),
        (Script("context"), "the question does not fit its window: .*64 tokens"),
        (Script("500"), "HTTP 500"),
        (Script("garbage"), "not an answer of this API"),
    ],
    ids=[
        "cut in thoughts",
        "thoughts without an end",
        "cut",
        "filtered",
        "question filtered",
        "broken off",
        "another label",
        "nothing",
        "too long",
        "broken",
        "garbage",
    ],
)
def test_nothing_that_goes_wrong_becomes_a_score(tmp_path: Path, script: Script, words: str) -> None:
    judge = {"reasoning": {"maxTokens": 9}} if script.answer.startswith("<think>") else {}
    with serve(script) as url, pytest.raises(Retry, match=words) as caught:
        Partition(tmp_path, url, judge=judge).run()
    assert caught.value.reason is Reason.SAMPLES_LEFT
    assert all(line["scores"] == {} for line in Partition(tmp_path, url).scores())


def test_a_judge_that_is_gone_is_not_asked_for_ever_and_costs_no_answer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    rows = [{"q": f"q{i}", "a": ""} for i in range(3 * GIVE_UP_AFTER)]
    partition = Partition(tmp_path, url, rows=rows)
    with pytest.raises(Retry, match=f"{len(rows)} scores are missing.*it is gone"):
        partition.run()
    with serve(Script("judge")) as working:
        again = Partition(tmp_path, working, rows=rows, attempts=1)
        assert state(again.run()) == (len(rows), 0)
    assert again.model.asked == []


def test_a_key_that_the_judge_refuses_ends_the_partition_while_the_model_still_answers(
    tmp_path: Path,
) -> None:
    """Hours of a GPU must not be spent for scores that will never come."""
    rows = [{"q": f"q{i}", "a": ""} for i in range(5000)]
    with serve(Script("401")) as url:
        partition = Partition(tmp_path, url, rows=rows)
        with pytest.raises(
            Fatal, match=r"spec.judges\[gpt\]: .* answers 401: check openai.apiKeySecretRef"
        ) as caught:
            partition.run()
    assert caught.value.reason is Reason.UNAUTHORIZED
    assert len(partition.model.asked) < len(rows)


def test_the_key_is_sent_and_stands_in_no_file(tmp_path: Path) -> None:
    key = tmp_path / "token"
    key.write_text("sk-judge\n")
    script = Script("judge")
    with serve(script) as url:
        Partition(tmp_path / "out", url, key=key).run()
    assert {r["headers"]["Authorization"] for r in script.requests} == {"Bearer sk-judge"}
    assert not [p for p in (tmp_path / "out").rglob("*.*") if "sk-judge" in p.read_text()]


def test_a_judge_is_asked_by_as_many_requests_as_it_takes(tmp_path: Path) -> None:
    script = Script("slow", answer="GRADE: C", delay=0.05)
    with serve(script) as url:
        Partition(tmp_path, url, openai={"maxConcurrency": 3}).run()
    assert script.most_in_flight == 3


@dataclass
class Gated(Script):
    """Answers no request before the gate is open."""

    gate: Event = field(default_factory=Event)
    waited: list[bool] = field(default_factory=list)

    @contextmanager
    def serving(self, request: dict[str, Any]) -> Iterator[int]:
        with super().serving(request) as before:
            self.waited.append(self.gate.wait(10))
            yield before


def test_the_model_goes_on_while_the_judge_thinks(tmp_path: Path) -> None:
    script = Gated("judge")

    def answer(question: str) -> str:
        if question == "q5":
            script.gate.set()
        return question

    with serve(script) as url:
        found = Partition(tmp_path, url, answer=answer).run()
    assert state(found) == (6, 3)
    assert script.waited == [True] * 6


def test_messages_of_a_rubric_are_sent_as_they_are(tmp_path: Path) -> None:
    turns = "{'role': 'user', 'content': 'answer: ' ~ answer ~ '\\ntarget: ' ~ references[0]}"
    messages = "{{ [{'role': 'system', 'content': 'Grade.'}, " + turns + "] }}"
    script = Script("judge")
    with serve(script) as url:
        found = Partition(tmp_path, url, task=judged({"prompt": None, "messages": messages})).run()
    assert state(found) == (6, 3)
    assert [m["role"] for m in script.requests[0]["body"]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGTERM, "Interrupted"), (signal.SIGALRM, "DeadlineExceeded")]
)
def test_a_process_that_waits_for_its_judge_ends_at_once_and_the_next_asks_only_the_rest(
    tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    """Also where the attempt has added nothing but judgements: a deadline then asks for another one."""
    script = Script(answer="Hard to say.")
    with serve(Script(answer="q0")) as answering, serve(script) as url:
        openai = {"url": answering, "model": "m"}
        served = Model.model_validate({"name": "m", "promptFormat": "Chat", "openai": openai})
        dataset = Partition(tmp_path, url, openai={"maxConcurrency": 1}).dataset()
        assert run(tmp_path, served, dataset).failure.reason == "SamplesLeft"
        script.mode, script.answer, script.delay = "slow", "GRADE: C", 0.3
        process = start(tmp_path, served, dataset, attempt="a-2")
        while len(judgements(tmp_path)) < 2:
            time.sleep(0.02)
        os.kill(process.pid, number)
        began = time.monotonic()
        ended = end(process, tmp_path)
        assert time.monotonic() - began < 5
        assert (ended.code, ended.failure.reason) == (75, reason)
        assert re.search(r"added 0 samples to the log and judged [2-5]", ended.failure.message)
        script.mode, known = "ok", len(judgements(tmp_path))
        before = len(script.requests)
        again = run(tmp_path, served, dataset, attempt="a-3")
    assert again.code == 0
    assert len(script.requests) - before == 6 - known


def judgements(folder: Path) -> list[str]:
    return [text for text in samples(folder) if '"judgement"' in text]


def test_every_turn_of_a_conversation_is_judged_with_what_was_said_before(tmp_path: Path) -> None:
    """MT-Bench's shape: two questions, the model's own first answer between them, a verdict on each answer."""
    conversation = {
        "requestType": "Chat",
        "prompt": None,
        "messages": "{{ [{'role': 'user', 'content': 'one'}, {'role': 'user', 'content': 'two'}] }}",
        "turns": "Every",
        "target": "{{ wanted[turn] }}",
    }
    asked = "{{ turn }}: {{ answers|join(' then ') }}\nanswer: {{ answer }}\ntarget: {{ target }}"
    rows = [{"id": "x", "wanted": ["yes", "no"]}]
    said = iter(["yes", "maybe"])
    script = Script("judge")
    with serve(script) as url:
        partition = Partition(tmp_path, url, task=judged({"prompt": asked}) | conversation, rows=rows)
        partition.answer, partition.prompt_format = lambda _: next(said), "Chat"
        found = partition.run()
        partition.run()
    (line,) = partition.scores()
    score = line["scores"]["llm_judge"]
    assert (score["value"], [turn["value"] for turn in score["turns"]]) == (0.5, [1, 0])
    assert [r["body"]["messages"][0]["content"].splitlines()[0] for r in script.requests] == [
        "0: yes",
        "1: yes then maybe",
    ]
    assert found.tokens.judge_prompt == 2 * 7


def test_a_template_that_does_not_fit_the_document_is_refused_before_the_model_is_asked(
    tmp_path: Path,
) -> None:
    partition = Partition(
        tmp_path, "http://nowhere/v1", task=judged({"prompt": "{{ question }} {{ answer }}"})
    )
    with pytest.raises(Fatal, match=r"metrics.llm_judge.judge.prompt: 'question' is undefined"):
        partition.run()
    assert partition.model.asked == []
