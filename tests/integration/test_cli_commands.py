"""The command `evaljob` as a user meets it: outputs, messages, exit codes, Ctrl-C."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from evaljob.mounts import PLAN_DIR
from evaljob_cli import __main__ as cli
from evaljob_cli.catalogue import catalogue
from tests.integration import cli_runner

EXAMPLES = Path(__file__).parents[2] / "examples"
EVALJOB = """
apiVersion: v1
kind: Namespace
metadata: {{name: evals}}
---
apiVersion: evaljob.dev/v1alpha1
kind: EvalJob
metadata: {{name: toy}}
spec:
  models:
  - {{name: m, promptFormat: Text, transformers: {{source: pvc://models/m, dtype: float32, device: CPU}}}}
  datasets:
{datasets}
"""
DATASET = '  - {{name: {name}, task: capitals, inline: {{jsonl: "{{}}"}}}}'


class Result(NamedTuple):
    code: int | str | None
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command in this process, with the stand-in for the runner."""

    def run(*argv: str | Path | int) -> Result:
        monkeypatch.setattr(sys, "argv", ["evaljob", *map(str, argv)])
        monkeypatch.setattr(cli, "RUNNER", (sys.executable, "-S", cli_runner.__file__))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Result(ended.value.code, *capsys.readouterr())

    return run


def written(folder: Path, *datasets: str) -> Path:
    path = folder / "toy.yaml"
    path.write_text(EVALJOB.format(datasets="\n".join(DATASET.format(name=d) for d in datasets)))
    return path


def test_run_writes_the_summary_prints_the_table_and_ends_with_0(call: Call, tmp_path: Path) -> None:
    file, out = written(tmp_path, "good", "flaky-0"), tmp_path / "out"
    result = call("run", file, "--mount", f"models={tmp_path}", "--out", out)
    assert result.code == 0
    assert "0.75 ±0.3" in result.out
    assert "Complete: 2 of 2 partitions succeeded" in result.out
    assert "done    m/good: 4 samples" in result.err
    assert {"summary.json", "summary.csv", "summary.md"} <= {p.name for p in out.iterdir()}
    assert call("summary", out / "summary.json").out == result.out
    (out / "summary.json.gz").write_bytes(gzip.compress((out / "summary.json").read_bytes()))
    assert call("summary", out / "summary.json.gz").out == result.out


def test_run_ends_with_1_when_a_partition_failed_and_shows_the_others(call: Call, tmp_path: Path) -> None:
    file = written(tmp_path, "good", "never")
    result = call("run", file, "--mount", f"models={tmp_path}", "--out", tmp_path / "out")
    assert result.code == 1
    assert "missing (BadData)" in result.out
    assert "m / never: BadData: line 3" in result.out
    assert "Failed: 1 of 2 partitions succeeded, 1 failed" in result.out
    assert "0.75" in result.out


def test_run_ends_with_1_when_shards_disagree(call: Call, tmp_path: Path) -> None:
    """Every partition succeeded, and still there is no number."""
    file = written(tmp_path, "disagree")
    file.write_text(file.read_text().replace("task: capitals", "task: capitals, shards: 2"))
    result = call("run", file, "--mount", f"models={tmp_path}", "--out", tmp_path / "out")
    assert "missing (ShardsDisagree)" in result.out
    assert "Failed: 2 of 2 partitions succeeded" in result.out
    assert result.code == 1


def test_a_run_keeps_the_date_of_its_folder(call: Call, tmp_path: Path) -> None:
    """Else the digests of dated chat templates change at midnight, and the next run asks everything again."""
    file, out = written(tmp_path, "good"), tmp_path / "out"
    seen: set[Path] = set()

    def run(*options: str) -> tuple[str, str]:
        """The date that the runner was told, and what was said."""
        result = call("run", file, "--mount", f"models={tmp_path}", "--out", out, *options)
        (plan,) = set(out.glob("attempts/*/run.json")) - seen
        seen.add(plan)
        return json.loads(plan.read_text())["date"], result.err

    date, said = run("--date", "2026-01-02")
    assert (date, "2026-01-02" in said) == ("2026-01-02", False)
    date, said = run()
    assert date == "2026-01-02"
    assert f"evaljob: chat templates see 2026-01-02, the date of earlier runs in {out}; --date gives" in said
    date, said = run("--date", "2026-01-03")
    assert date == "2026-01-03"
    assert f"evaljob: --date 2026-01-03: earlier runs in {out} had 2026-01-02; prompts that" in said
    (out / "date").unlink()
    today, _ = run()
    assert today > date
    assert (out / "date").read_text() == f"{today}\n"
    (out / "date").write_text("tomorrow")
    refused = call("run", file, "--mount", f"models={tmp_path}", "--out", out)
    assert refused.code == 2
    assert refused.err == f"evaljob: {out}/date: not a date: write YYYY-MM-DD, or remove the file\n"


def test_score_only_asks_no_model(call: Call, tmp_path: Path) -> None:
    file = written(tmp_path, "good")
    options = ("--mount", f"models={tmp_path}", "--out", tmp_path / "out")
    refused = call("run", file, *options, "--score-only")
    assert (refused.code, "m / good: SamplesLeft: 4 answers are not in" in refused.out) == (1, True)
    call("run", file, *options)
    assert call("run", file, *options, "--score-only").code == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            ("kind: EvalJob", "kind: Job"),
            [],
            "holds 0 documents of kind EvalJob, give a file with exactly one; there: Namespace, Job\n",
        ),
        (
            ("kind: Namespace", "kind: EvalJob"),
            [],
            "holds 2 documents of kind EvalJob, give a file with exactly",
        ),
        ((" promptFormat: Text,", "\n\tpromptFormat: Text,"), [], "toy.yaml: not YAML: while scanning"),
        (("pvc://models/m", "./m"), [], "spec.models[0].transformers.source: write pvc://CLAIM/PATH"),
        (("float32", "int3"), [], "spec.models[0].transformers.dtype"),
        (("datasets:", "dataset:"), [], "spec.dataset: unknown field"),
        (("name: toy", "name: [toy"), [], 'toy.yaml", line 8, column 22'),
        (
            ("promptFormat", "promtFormat"),
            [],
            "spec.models[0].promtFormat: unknown field, did you mean promptFormat?",
        ),
        (
            ("task: capitals", "task: capitols"),
            [],
            "'capitols' is not in the catalogue; use one of arc, bfcl",
        ),
        (("spec:", "spec:\n  suspend: true"), [], "spec.suspend: true: nothing to run; set it to false"),
        (("", ""), [], "add --mount models=DIR"),
        (("", ""), ["--mount", "models"], "--mount 'models': write NAME=PATH"),
        (("", ""), ["--mount", "models=/not/there"], "/not/there does not exist"),
        (("", ""), ["--mount", f"models={__file__}"], "test_cli_commands.py is no folder"),
        (("", ""), ["--api-key-file", "eval-k/token=/"], "/ is a folder"),
        (
            ("", ""),
            ["--mount", "models=/", "--out", __file__],
            "File exists: give a folder that can be written",
        ),
        (("", ""), ["--mount", "models=/", "--mount", "models=/tmp"], "models is given twice"),
        (("", ""), ["--date", "tomorrow"], "tomorrow"),
        (("", ""), ["--parallelism", "0"], "--parallelism"),
    ],
)
def test_bad_input_ends_with_2_and_names_the_field_the_value_and_the_fix(
    call: Call, tmp_path: Path, change: tuple[str, str], options: list[str], message: str
) -> None:
    file = written(tmp_path, "good")
    file.write_text(file.read_text().replace(*change, 1))
    result = call("run", file, *options)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["plan", "run", "render", "summary", "preview"])
def test_a_file_that_cannot_be_read_ends_with_2(call: Call, tmp_path: Path, command: str) -> None:
    for name, why in (("nothing", "No such file or directory"), (".", "Is a directory")):
        result = call(command, tmp_path / name)
        assert result.code == 2
        assert result.err.startswith(f"evaljob: {tmp_path / name}: {why}: give a ")


DEEP, LONG = b"[" * 5000 + b"]" * 5000, b"a: " + b"1" * 5000
DATES = [b"a: 2026-99-99", b"a: !!timestamp x", b"a: !!int x", b"a: !!bool x"]


@pytest.mark.parametrize("command", ["plan", "import lm-eval"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"- a", b"just text", b"a: {", DEEP, LONG, *DATES])
def test_a_file_of_something_else_ends_with_2(
    call: Call, tmp_path: Path, command: str, content: bytes
) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    result = call(*command.split(), tmp_path / "x.yaml")
    assert (result.code, result.err.startswith(f"evaljob: {tmp_path / 'x.yaml'}: ")) == (2, True)


NO_DATE = "not YAML: a value looks like a date or a number and is none, put it in quotes: month must be in"


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("plan", DEEP, "not YAML: nested too deeply"),
        ("plan", b"a: 2026-99-99", NO_DATE),
        ("import lm-eval", b"a: 2026-99-99", NO_DATE),
    ],
)
def test_a_value_that_yaml_cannot_make_is_refused_with_the_fix(
    call: Call, tmp_path: Path, command: str, content: bytes, words: str
) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    assert words in call(*command.split(), tmp_path / "x.yaml").err


def test_a_full_disk_is_said_without_a_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "evaljob_cli", "tasks"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "evaljob: [Errno 28] No space left on device\n")


COMMANDS = ("run", "plan", "render", "summary", "preview", "tasks", "import", "import lm-eval")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_the_commands_and_is_whole(call: Call, command: str) -> None:
    result = call(*command.split(), "--help")
    usage, text = result.out.split("\n", 1)
    assert usage.startswith(" ".join(["Usage: evaljob", *command.split(), "["]))
    # What does not fit the list of commands is cut and ends with dots.
    assert not [line for line in text.splitlines() if line.endswith("...")]


def test_plan_lists_partitions_in_order_and_what_is_excluded(call: Call) -> None:
    result = call("plan", EXAMPLES / "quickstart.yaml")
    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[0].split() == ["job", "model", "dataset", "shard", "task"]
    assert lines[1].split()[1:] == ["smollm2-chat", "capitals", "0/2", "capitals"]
    assert "9 partitions; excluded: smollm2-text/bfcl" in lines


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_plan_can_be_read_by_programs(call: Call, form: str) -> None:
    loaded = yaml.safe_load(call("plan", EXAMPLES / "quickstart.yaml", "-o", form).out)
    assert len(loaded["partitions"]) == 9
    assert loaded["partitions"][0].keys() == {"job", "model", "dataset", "shard", "task"}
    assert loaded["excluded"] == [{"model": "smollm2-text", "dataset": "bfcl"}]


def test_plan_manifests_are_the_objects_the_operator_creates(call: Call) -> None:
    result = call("plan", EXAMPLES / "quickstart.yaml", "-o", "yaml", "--manifests")
    loaded = yaml.safe_load(result.out)
    assert [item["kind"] for item in loaded["items"]] == ["ConfigMap"] + ["Job"] * 9
    assert loaded["items"][1]["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["--plan", PLAN_DIR]
    assert "&id" not in result.out


def test_a_dataset_of_lm_eval_gets_the_image_that_holds_lm_eval(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(EVALJOB.format(datasets="  - {name: arc, lmEval: {task: arc_easy, metric: acc}}"))
    job = json.loads(call("plan", file, "-o", "json", "--manifests").out)["items"][1]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "set-by-the-chart/lmEval"


def test_manifests_without_a_format_are_refused(call: Call) -> None:
    result = call("plan", EXAMPLES / "quickstart.yaml", "--manifests")
    assert (result.code, result.err) == (2, "evaljob: --manifests: needs -o yaml or -o json\n")


def test_render_shows_the_configuration_with_origins_and_the_prompts(call: Call, tmp_path: Path) -> None:
    result = call("render", written(tmp_path, "good"), "--mount", f"models={tmp_path}", "-n", "2")
    assert (result.code, result.err) == (0, "")
    assert "m/good: prompt format Text, request type Generate" in result.out
    assert "transformers: source pvc://models/m, dtype float32, device CPU, batchSize 16" in result.out
    assert (
        'generation: temperature 0 (default), topK off (default), maxTokens 24 (task), stop "\\n" (task)'
        in result.out
    )
    prompt = (
        "--- africa/0, 3 tokens, digest 0123456789ab, examples africa/7\n"
        "What is the capital of\nMali?\\x1b[2J\n---\nchoice 0: ' Lima', 2 tokens\ntarget: Bamako\n"
    )
    assert result.out.count(prompt) == 2
    assert "token ids" not in result.out


def test_render_shows_token_ids_when_asked(call: Call, tmp_path: Path) -> None:
    result = call("render", written(tmp_path, "good"), "--mount", f"models={tmp_path}", "--token-ids")
    assert "choice 0: ' Lima', 2 tokens: 4 5\n" in result.out
    assert "token ids: 1 22 333\n" in result.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "never"], "m/never: BadData: line 3"),
        (["--model", "x"], "--model x: no such partition; there are m/good, m/never"),
    ],
)
def test_render_refuses_with_the_runners_words(
    call: Call, tmp_path: Path, options: list[str], message: str
) -> None:
    file = written(tmp_path, "good", "never")
    result = call("render", file, "--mount", f"models={tmp_path}", *options)
    assert (result.code, result.err) == (2, f"evaljob: {message}\n")


def test_render_refuses_a_number_of_prompts_that_no_machine_counts_to(call: Call, tmp_path: Path) -> None:
    result = call("render", written(tmp_path, "good"), "-n", 10**20)
    assert result.code == 2
    assert "'-n': Input should be less than or equal to" in result.err


def test_render_says_what_the_real_runner_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaljob_cli", "render", str(written(tmp_path, "good"))]
    done = subprocess.run(
        [*command, "--mount", f"models={tmp_path}"], capture_output=True, text=True, check=False
    )
    message = "m/good: ModelNotFound: pvc://models/m: nothing is there; beside it: toy.yaml"
    assert (done.returncode, done.stderr) == (2, f"evaljob: {message}\n")


def test_a_log_with_broken_characters_is_no_obstacle(call: Call, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\n")
    assert call("preview", tmp_path / "log").out == "no samples yet\n"


def test_tasks_lists_the_catalogue(call: Call) -> None:
    lines = call("tasks").out.splitlines()
    assert lines[0].split("  ")[0] == "task"
    rows = [line.split() for line in lines[1:]]
    assert [name for name, *_ in rows] == sorted(catalogue())
    for row in (["bfcl-simple", "Chat", "field_match,call"], ["mmlu", "LogLikelihood", "acc"]):
        assert row in rows


def test_summary_refuses_a_damaged_archive(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"{}")[:-4])
    result = call("summary", tmp_path / "x.json.gz")
    assert result.code == 2
    assert "a damaged summary.json.gz" in result.err


def test_summary_refuses_what_is_none(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"name": "x"}')
    result = call("summary", tmp_path / "x.json")
    assert result.code == 2
    assert "x.json: not a summary.json: uid: Field required" in result.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": 2}, "v: 2: this evaljob reads 1, use the one that wrote it"),
        ({"cells": []}, "cells: not one for each model on each dataset"),
        ({"models": []}, "cells: not one for each model on each dataset"),
        ({"parts": []}, "cells[0].parts: no primary score"),
        ({"parts": [{"kind": "dataset", "name": "good", "scores": []}]}, "cells[0].parts: no primary score"),
    ],
)
def test_summary_refuses_what_lacks_a_part(
    call: Call, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    call("run", written(tmp_path, "good"), "--mount", f"models={tmp_path}", "--out", tmp_path)
    file = tmp_path / "summary.json"
    found = json.loads(file.read_text())
    if "parts" in change:
        change = {"cells": [found["cells"][0] | change]}
    file.write_text(json.dumps(found | change))
    result = call("summary", file)
    assert (result.code, result.out) == (2, "")
    assert f"summary.json: {words}" in result.err


class Terminal:
    """The command as a process of its own, with the stand-in installed as the module evaljob_runner."""

    def __init__(self, folder: Path, dataset: str) -> None:
        self.folder, self.out = folder, folder / "out"
        module = folder / "path" / "evaljob_runner"
        module.mkdir(parents=True, exist_ok=True)
        (module / "__init__.py").touch()
        (module / "__main__.py").write_text(
            f"import runpy; runpy.run_path({cli_runner.__file__!r}, run_name='__main__')"
        )
        self.file = written(folder, dataset)

    def start(self, *, hang_up: str = "default") -> subprocess.Popen[str]:
        """Whatever these tests inherited, SIGHUP does what it does by default, or the `ignore` of nohup."""
        inherited = os.environ.get("PYTHONPATH", "")
        return subprocess.Popen(
            ["env", f"--{hang_up}-signal=HUP", sys.executable, "-m", "evaljob_cli", "run", self.file,
             "--mount", f"models={self.folder}", "--out", self.out],
            env=os.environ | {"PYTHONPATH": f"{self.folder / 'path'}:{inherited}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def traces(self, name: str) -> list[Path]:
        return list(self.out.glob(f"samples/*/*/{name}-*"))

    def runners(self) -> list[int]:
        return [json.loads(path.read_text())["pid"] for path in self.traces("start")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_runners_and_says_how_to_resume(tmp_path: Path, number: signal.Signals) -> None:
    terminal = Terminal(tmp_path, "paced")
    with terminal.start() as first:
        while not terminal.traces("sample"):
            time.sleep(0.02)
            assert first.poll() is None
        first.send_signal(number)
        err = first.communicate(timeout=10)[1]
    assert first.returncode == 130
    assert "run the same command to resume" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in terminal.runners())


def test_further_hang_ups_do_not_cut_the_grace_period(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "tidy")
    with terminal.start() as run:
        while not terminal.traces("pids"):
            time.sleep(0.02)
            assert run.poll() is None
        for _ in range(3):
            run.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        run.communicate(timeout=10)
    assert run.returncode == 130
    assert list(terminal.out.glob("samples/*/*/terminated"))


def test_a_hang_up_under_nohup_changes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "paced")
    with terminal.start(hang_up="ignore") as run:
        while not terminal.traces("sample"):
            time.sleep(0.02)
            assert run.poll() is None
        run.send_signal(signal.SIGHUP)
        run.communicate(timeout=30)
    assert run.returncode == 0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_summary_is_written_also_where_the_table_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Into a pipe that nobody reads any more, or in an encoding without the table's signs."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    terminal = Terminal(tmp_path, "good")
    with terminal.start() as process:
        assert process.stdout
        if encoding == "utf-8":
            process.stdout.close()
        process.wait(timeout=30)
    assert process.returncode
    assert json.loads((terminal.out / "summary.json").read_text())["succeeded"] == 1


def test_import_writes_a_task_and_says_what_became_of_each_field(call: Call, tmp_path: Path) -> None:
    cases = Path(__file__).parents[1] / "imports"
    equal = call("import", "lm-eval", cases / "letters" / "task.yaml", "-o", tmp_path / "task.yaml")
    assert (equal.code, equal.out) == (0, "")
    assert (tmp_path / "task.yaml").read_text() == (
        "# task.yaml of lm-eval, by evaljob import\n" + (cases / "letters" / "taskSpec.yaml").read_text()
    )
    assert "\ndescription       carried\n" in equal.err
    other = call("import", "lm-eval", cases / "other-scores" / "task.yaml")
    assert other.code == 2
    assert other.out.endswith((cases / "other-scores" / "taskSpec.yaml").read_text())
    assert "metric_list: mcc        dropped, changes scores  no metric of ours\n" in other.err
    python = call("import", "lm-eval", cases / "python" / "task.yaml")
    assert (python.code, python.out) == (2, "")
    assert (
        "process_docs   needs the adapter  Python changes the documents: utils.process_docs\n" in python.err
    )
    missing = call("import", "lm-eval", tmp_path / "none.yaml")
    assert (missing.code, missing.out) == (2, "")
    assert "none.yaml" in missing.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--include-path", "/none"], "--include-path /none: no folder: give one with lm-eval's YAML"),
        (["-o", "/none/x.yaml"], "--output /none/x.yaml: No such file or directory: give a file that can be"),
    ],
)
def test_import_refuses_places_that_are_not_there(call: Call, options: list[str], words: str) -> None:
    task = Path(__file__).parents[1] / "imports" / "letters" / "task.yaml"
    result = call("import", "lm-eval", task, *options)
    assert result.code == 2
    assert words in result.err
