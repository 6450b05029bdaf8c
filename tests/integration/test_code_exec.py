"""Partitions whose score is whether programs work: the catalogue's tasks on rows of our own, programs really run."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

import evaljob
from evaljob.names import Reason
from evaljob.plan import PlannedDataset
from evaljob.scoring import Reduce
from evaljob.spec import Dataset
from evaljob.task import Task
from evaljob_runner.backends.base import GenerateRequest
from evaljob_runner.background import Background, Programs
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.sandbox import room
from evaljob_runner.sandbox import run as sandbox
from evaljob_runner.scoring import Scorer
from tests.runner_plans import assignment, tiny_model
from tests.unit.test_runner_evaluate import answers, logged, run
from tests.unit.test_runner_scores import line

HUMANEVAL = [
    {
        "task_id": f"Ours/{i}",
        "prompt": f'from typing import List\n\n\ndef add_{i}(numbers: List[int]) -> int:\n    """Sum plus {i}."""\n',
        "entry_point": f"add_{i}",
        "canonical_solution": f"    return sum(numbers) + {i}\n",
        "test": f"def check(candidate):\n    assert candidate([1, 2]) == {i + 3}\n    assert candidate([]) == {i}\n",
    }
    for i in range(3)
]
MBPP = [
    {
        "task_id": i,
        "text": f"Write a function to add {i} to the value of a node.",
        "code": f"class Node:\r\n\tdef __init__(self, v):\r\n\t\tself.v = v\r\ndef grow(n):\r\n\treturn n.v + {i}",
        "test_list": [f"assert grow(root) == {i + 1}", f"assert grow(Node(2)) == {i + 2}"],
        "test_setup_code": "root = Node(1)",
        "challenge_test_list": [],
    }
    for i in range(6)
]


def catalogue(name: str) -> Task:
    path = Path(evaljob.__file__).parent / "tasks" / f"{name}.yaml"
    return Task.model_validate(yaml.safe_load(path.read_text()))


def dataset(task: Task, rows: list[dict[str, Any]], **more: Any) -> PlannedDataset:  # noqa: ANN401 - any field
    fields = {"name": "set", "taskSpec": task, "allowCodeExecution": True} | more
    fields.setdefault("inline", {"jsonl": "\n".join(map(json.dumps, rows))})
    return PlannedDataset(dataset=Dataset.model_validate(fields), task_name="set", task=task)


def by_prompt(said: Mapping[str, str]) -> Callable[[str], str]:
    """The answer of the row whose name is in the prompt."""
    return lambda prompt: next(answer for name, answer in said.items() if name in prompt)


@pytest.mark.parametrize("name", ["humaneval", "humaneval-cn"])
def test_humaneval_scores_completions_of_text_models(tmp_path: Path, name: str) -> None:
    said = by_prompt(
        {"add_0": HUMANEVAL[0]["canonical_solution"], "add_1": "    return 1\n", "add_2": "    exit(0)\n"}
    )
    found = run(assignment(tiny_model(), dataset(catalogue(name), HUMANEVAL), tmp_path), answers(said))
    assert found.subsets[0].stats[0][:2] == (3, 1)
    assert found.metrics[0].key == "pass@1,code"
    assert found.provenance["sandbox"].startswith("landlock ")
    scores = {x["id"]: x["scores"]["code_exec,code"] for x in logged(tmp_path) if x["kind"] == "score"}
    assert scores["Ours/0"]["value"] == 1
    assert scores["Ours/1"]["explanation"] == "AssertionError: assert candidate([1, 2]) == 4"
    assert len(scores) == 3


def test_humaneval_scores_whole_functions_of_chat_models(tmp_path: Path) -> None:
    """The stop texts of the completion would cut them at their first line."""
    whole = "Sure!\n\n```python\ndef add_{0}(numbers):\n    # sums\n    return sum(numbers) + {0}\n```\nDone."
    said = by_prompt({f"add_{i}": whole.format(i) for i in range(3)})
    backend = answers(said)
    work = assignment(tiny_model(promptFormat="Chat"), dataset(catalogue("humaneval"), HUMANEVAL), tmp_path)
    assert run(work, backend).subsets[0].stats[0][:2] == (3, 3)
    assert {request.sampling.stop for request in backend.asked if isinstance(request, GenerateRequest)} == {
        ()
    }


@pytest.mark.parametrize("prompt_format", ["Text", "Chat"])
def test_mbpp_scores_programs_with_classes_that_its_tests_use(tmp_path: Path, prompt_format: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("prompt", MBPP[:3]), ("test", MBPP[3:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = catalogue("mbpp")
    said = {f"add {row['task_id']} to": f"```python\n{row['code']}\n```" for row in MBPP[3:5]}
    said["add 5 to"] = "```python\ndef grow(n): return n.v\n```"

    def answer(prompt: str) -> str:
        assert prompt.count("```python\nclass Node:\n") == 3
        return by_prompt(said)(prompt.rpartition("```")[2] if prompt_format == "Text" else prompt[-400:])

    planned = dataset(task, [], source="pvc://own/data", inline=None)
    work = assignment(tiny_model(promptFormat=prompt_format), planned, tmp_path / "out", own=tmp_path)
    assert run(work, answers(answer)).subsets[0].stats[0][:2] == (3, 2)


PLAIN = {"requestType": "Generate", "prompt": "{{ q }}", "target": ""}


def small(tests: str = "assert f() == 1", **limits: Any) -> Task:  # noqa: ANN401 - any limit
    metric = {
        "name": "code_exec",
        "primary": True,
        "program": "{{ answer }}",
        "tests": tests,
        "limits": limits,
    }
    return Task.model_validate({**PLAIN, "metrics": [metric]})


def ones(count: int) -> list[dict[str, Any]]:
    return [{"q": f"q{i}"} for i in range(count)]


def test_a_second_attempt_runs_programs_and_asks_nothing(tmp_path: Path) -> None:
    """Killed before its programs ran: the answers are in the log."""
    planned = dataset(small(), ones(4))
    run(assignment(tiny_model(), planned, tmp_path), answers(lambda _: "def f(): return 1"))
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_text("".join(x for x in path.read_text().splitlines(keepends=True) if '"score"' not in x))
    again = answers(lambda _: "")
    found = run(assignment(tiny_model(), planned, tmp_path, attempt="a-2"), again)
    assert again.asked == []
    assert found.subsets[0].stats[0][:2] == (4, 4)
    assert sum(x["kind"] == "score" for x in logged(tmp_path)) == 4


def test_programs_run_for_answers_that_were_written_before_any_metric_did(tmp_path: Path) -> None:
    rows = [{"q": f"q{i}", "value": i} for i in range(4)]
    metrics = Task.model_validate({**PLAIN, "metrics": [{"name": "exact_match", "primary": True}]})
    run(assignment(tiny_model(), dataset(metrics, rows), tmp_path), answers(lambda _: "def f(): return 1"))
    planned = dataset(small("assert f() == {{ value }}"), rows)
    found = run(
        assignment(tiny_model(), planned, tmp_path, attempt="a-2"), answers(lambda _: pytest.fail("asked"))
    )
    assert found.outcomes.from_log == 4
    assert found.subsets[0].stats[0][:2] == (4, 1)


def test_the_model_does_not_wait_for_programs_and_each_runs_once() -> None:
    slow = "import time\ntime.sleep(1)\ndef f(): return 1"
    finished = line(slow).model_copy(update={"doc": {}})
    scorer = Scorer(small())
    with closing(Programs(scorer)) as programs:
        background = Background(scorer, programs)
        began = time.monotonic()
        assert background.begin(finished) is None
        assert list(background.ended()) == []
        assert time.monotonic() - began < 0.5
        ((ended, scores),) = background.ended(wait=True)
        assert list(background.ended(wait=True)) == []
    assert (ended, scores.scores["code_exec"].value) == (finished, 1)


def test_what_has_not_begun_when_a_partition_ends_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slow = line("import time\ntime.sleep(1)").model_copy(update={"doc": {}})
    began = time.monotonic()
    with closing(Programs(Scorer(small()))) as programs:
        for repeat in range(60):
            programs.begin(slow.model_copy(update={"repeat": repeat}))
    assert time.monotonic() - began < 30


def test_repeats_give_pass_at_k(tmp_path: Path) -> None:
    task = small()
    metric = task.metrics[0].model_copy(update={"reduce": Reduce(pass_at_k=(1, 2))})
    task = task.model_copy(update={"metrics": (metric,)})
    model = tiny_model(generation={"temperature": 1})
    said = iter(["def f(): return 1", "def f(): return 2"] * 2)
    planned = dataset(task, ones(2), repeats=2)
    found = run(assignment(model, planned, tmp_path), answers(lambda _: next(said)))
    assert [m.key for m in found.metrics] == ["pass@1", "pass@2"]
    assert [s.total for s in found.subsets[0].stats] == [1_000_000_000_000, 2]


@pytest.mark.parametrize(
    ("tests", "reason", "words"),
    [
        ("assert f( == 1", Reason.BAD_DATA, r"the tests do not compile.*\(sample 0\)"),
        ("f(lambda: 1)", Reason.BAD_DATA, "the tests pass a function to the program"),
        ("{{ nothing }}", Reason.BAD_DATA, "'nothing' is undefined"),
    ],
)
def test_tests_at_fault_end_the_partition_and_are_no_score(
    tmp_path: Path, tests: str, reason: Reason, words: str
) -> None:
    work = assignment(tiny_model(), dataset(small(tests), ones(1)), tmp_path)
    with pytest.raises(Fatal, match=words) as caught:
        run(work, answers(lambda _: "def f(x): return 1"))
    assert caught.value.reason is reason


def test_a_plan_without_permission_is_refused(tmp_path: Path) -> None:
    work = assignment(tiny_model(), dataset(small(), ones(1), allowCodeExecution=False), tmp_path)
    with pytest.raises(Fatal, match="no allowCodeExecution: true"):
        run(work, answers(lambda _: "def f(): return 1"))


def test_more_memory_than_there_is_is_refused_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free", lambda: 300 * 2**20)
    work = assignment(tiny_model(), dataset(small(memory="256Mi"), ones(1)), tmp_path)
    with pytest.raises(
        Fatal, match=r"256Mi for each of two processes, and 300Mi are left.*raise runner\.resources"
    ):
        run(work, answers(lambda _: pytest.fail("it was asked")))


def test_where_processes_do_not_start_in_time_another_attempt_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says nothing about the program, nor about what the place can confine."""
    monkeypatch.setattr(sandbox, "START_SECONDS", 0)
    scorer = Scorer(small())
    for action in (scorer.confine, lambda: scorer.executed(line("").model_copy(update={"doc": {}}))):
        with pytest.raises(Retry, match="the processes were not ready within 0 s") as caught:
            action()
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_threads_for_programs_are_there_before_the_first_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes all that there may be must not end the runner."""
    monkeypatch.setattr(room, "workers", lambda _memory: 3)
    before = threading.active_count()
    with closing(Programs(Scorer(small()))) as programs:
        programs.begin(line("").model_copy(update={"doc": {}}))
        assert threading.active_count() == before + 3


def test_a_runner_that_runs_programs_is_closed_to_other_processes() -> None:
    """In a process of its own: this one may stay open."""
    code = """
from pathlib import Path
from evaljob_runner.background import Programs
from evaljob_runner.scoring import Scorer
from tests.integration.test_code_exec import small
from tests.unit.test_runner_scores import line

import os
os.setresuid(65534, 65534, 65534)
programs = Programs(Scorer(small()))
programs.begin(line("").model_copy(update={"doc": {}}))
programs.close()
print(Path("/proc/self/environ").stat().st_uid)
"""
    top = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
