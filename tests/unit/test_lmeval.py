"""Datasets whose task lm-eval runs: what a spec may say, the pod, the model as lm-eval takes it, and its results."""

import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaljob import jobs
from evaljob.framing import decode, encode
from evaljob.lmeval import LmEval, slug
from evaljob.merge import summarize
from evaljob.names import Reason, State
from evaljob.plan import PlannedDataset, from_data, to_data
from evaljob.planning import Settings
from evaljob.result import MetricInfo, PartitionResult, SubsetResult
from evaljob.scoring import Group, Weighting
from evaljob.spec import Dataset, InvalidSpecError, Model
from evaljob.stats import Stat
from evaljob.task import Generation, Task
from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal
from evaljob_runner.lmeval import arguments, reading
from evaljob_runner.lmeval import documents as documents_of
from evaljob_runner.lmeval.documents import Documents
from evaljob_runner.lmeval.reading import Names, Read
from evaljob_runner.sources import uris
from tests.runner_plans import assignment, planned, tiny_model
from tests.unit import builders
from tests.unit.builders import SETTINGS, TASK, endpoint, evaljob, model

OWN = {"task": "arc_easy", "metric": "acc_norm"}
DATASET = planned(Task.model_validate(TASK), source="pvc://data/x")
IMAGES = Settings(images={**SETTINGS.images, "lmEval": "runner-lm-eval:1"})


def harness(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a dataset
    return {"name": "arc", "lmEval": OWN, **more}


def refusal(dataset: dict[str, Any], of: dict[str, Any] | None = None) -> str:
    with pytest.raises(InvalidSpecError) as error:
        builders.plan(evaljob([of or model()], [dataset]))
    return str(error.value)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (harness(task="mmlu"), "exactly one of task, taskSpec and lmEval"),
        (harness(inline={"jsonl": "{}"}), "with lmEval at most source"),
        (harness(shards=2), "with lmEval shards and repeats must be 1"),
        (harness(repeats=2), "with lmEval shards and repeats must be 1"),
        (harness(lmEval={"task": "arc_easy"}), "lmEval.metric: Field required"),
        (harness(lmEval={**OWN, "task": "arc_easy,gsm8k"}), "lmEval.task: String should match"),
        (harness(lmEval={**OWN, "includePath": "hf://a/b@c"}), "lmEval.includePath: String should match"),
        (harness(lmEval={**OWN, "numFewshot": 65}), "lmEval.numFewshot: Input should be less than"),
    ],
)
def test_what_a_dataset_cannot_say(dataset: dict[str, Any], words: str) -> None:
    assert words in refusal(dataset)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (model(reasoning={"maxTokens": 8}), "lmEval scores thoughts as answers, model m has reasoning"),
        (model(generation={"stop": ["x"]}), "generation.stop of model m would replace"),
        (endpoint(chatTemplateArgs={"a": "b"}), "chatTemplateArgs of model served: lm-eval sends none"),
    ],
)
def test_models_that_lm_eval_would_run_otherwise_are_refused_with_the_way_out(
    of: dict[str, Any], words: str
) -> None:
    said = refusal(harness(), of)
    assert words in said
    assert f"exclude: [{{model: {of['name']}, dataset: arc}}]" in said


def job(dataset: dict[str, Any], settings: Settings = IMAGES) -> dict[str, Any]:
    of = evaljob([model()], [dataset])
    plan = builders.plan(of, settings)
    pod: dict[str, Any] = jobs.job(of, plan, plan.partitions[0])["spec"]["template"]["spec"]
    return pod


def test_its_pod_has_an_image_of_its_own_or_the_models() -> None:
    assert job(harness())["containers"][0]["image"] == "runner-lm-eval:1"
    assert job(harness(), SETTINGS)["containers"][0]["image"] == "runner:1"
    assert job(builders.dataset())["containers"][0]["image"] == "runner:1"


def test_an_image_that_the_evaljob_names_comes_before_that_of_lm_eval() -> None:
    models = [model(runner={"image": "mine:1"}), model("other")]

    def images(**spec: Any) -> list[str | None]:  # noqa: ANN401 - fields of a spec
        plan = from_data(to_data(builders.plan(evaljob(models, [harness()], **spec), IMAGES)))
        return [plan.image(partition) for partition in plan.partitions]

    assert images() == ["mine:1", "runner-lm-eval:1"]
    assert images(runner={"image": "ours:1"}) == ["mine:1", "ours:1"]


def test_documents_of_the_hub_need_room_those_of_a_source_do_not() -> None:
    env = [e["name"] for e in job(harness())["containers"][0]["env"]]
    assert "HF_HOME" in env
    pod = job(harness(source="pvc://data/arc", lmEval={**OWN, "includePath": "configmap://tasks/a.yaml"}))
    assert "HF_HOME" not in [e["name"] for e in pod["containers"][0]["env"]]
    said = " ".join(pod["containers"][0]["args"])
    assert "--mount data=/mnt/source/data --config-map tasks=/mnt/config/tasks" in said


def test_a_model_is_told_everything() -> None:
    local = {"dtype": "float32", "batchSize": 4, "source": "pvc://models/model"}
    work = assignment(tiny_model(promptFormat="Chat", transformers=local), DATASET, Path("out"))
    name, found = arguments.engine(work, Path("/m"), {"device": "cpu", "max_length": 64})
    clock = found["chat_template_args"].pop("strftime_now")
    assert clock("%Y") == "2026"
    assert (name, found) == (
        "hf",
        {
            "pretrained": "/m",
            "dtype": "float32",
            "batch_size": 4,
            "device": "cpu",
            "max_length": 64,
            "trust_remote_code": False,
            "chat_template_args": {},
        },
    )


def test_a_server_is_asked_by_its_prompt_format() -> None:
    def asked(prompt_format: str) -> arguments.Engine:
        served = Model.model_validate(endpoint(promptFormat=prompt_format))
        return arguments.engine(assignment(served, DATASET, Path("out")), None, {})

    text, chat = asked("Text"), asked("Chat")
    assert (text.name, text.arguments["base_url"]) == ("local-completions", "http://llm/v1/completions")
    assert (chat.name, chat.arguments["base_url"]) == (
        "local-chat-completions",
        "http://llm/v1/chat/completions",
    )
    assert chat.arguments["num_concurrent"] == 8
    assert chat.arguments["timeout"] == 300


def test_vllm_is_told_its_shape() -> None:
    of = Model.model_validate(builders.vllm(engine={"maxModelLen": 512, "tensorParallelSize": 2}))
    name, found = arguments.engine(assignment(of, DATASET, Path("out")), Path("/m"), {})
    assert name == "vllm"
    assert (found["max_model_len"], found["tensor_parallel_size"], found["dtype"]) == (512, 2, "bfloat16")
    assert (found["seed"], found["generation_config"]) == (0, "vllm")


def test_a_models_sampling_replaces_the_tasks() -> None:
    assert arguments.generation(Generation()) is None
    given = Generation(temperature=0.5, top_p=0.9, max_tokens=8)
    assert arguments.generation(given) == {
        "temperature": 0.5,
        "do_sample": True,
        "top_p": 0.9,
        "max_gen_toks": 8,
    }
    assert arguments.generation(Generation(temperature=0)) == {"temperature": 0, "do_sample": False}


def rows(task: str, *scores: float, pipelines: tuple[str, ...] = ("none",)) -> list[dict[str, Any]]:
    """Samples as lm-eval gives them: a row per filter and document."""
    return [
        {
            "doc_id": i,
            "doc": {"q": i},
            "target": 1,
            "arguments": [(f"{task} {i}", " a"), (f"{task} {i}", " bé")],
            "resps": [[(-1.5, True)], [(-2.5, False)]],
            "filtered_resps": [(-1.5, True), (-2.5, False)],
            "filter": pipeline,
            "metrics": ["acc", "ppl"],
            "doc_hash": "d" * 64,
            "acc": score,
            "ppl": (score, 3),
        }
        for pipeline in pipelines
        for i, score in enumerate(scores)
    ]


RESULTS: dict[str, Any] = {
    "samples": {"a": rows("a", 1.0, 0.0, 0.0), "b": rows("b", 1.0, 1.0)},
    "results": {
        "a": {"alias": "a", "acc,none": 1 / 3, "acc_stderr,none": 1 / 3, "ppl,none": 2.0},
        "b": {"alias": "b", "acc,none": 1.0, "acc_stderr,none": 0.0, "ppl,none": 2.0},
    },
    "groups": {"all": {"acc,none": 3 / 5}},
    "higher_is_better": {"a": {"acc": True, "ppl": False}},
    "n-samples": {"a": {"original": 9, "effective": 3}, "b": {"original": 2, "effective": 2}},
}


def read(primary: str = "acc", results: dict[str, Any] | None = None, **more: Any) -> Read:  # noqa: ANN401
    given: dict[str, Any] = {"groups": {"all": ["a", "b"]}, "weighed": {"all": True}} | more
    return reading.read(
        results or RESULTS,
        primary=primary,
        is_mean=lambda _, metric: metric == "acc",
        names=Names("e" * 64, "pod", "Runner"),
        **given,
    )


def changed(path: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(RESULTS)
    *parents, last = path.split("/")
    node: Any = found
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value
    return found


def test_samples_become_lines_and_exact_states() -> None:
    found = read()
    assert found.metrics == (MetricInfo(key="acc", primary=True),)
    assert found.left_out == ("ppl",)
    assert found.subsets == (
        SubsetResult(name="a", size=9, expected=3, stats=(Stat(3, 1, 1),)),
        SubsetResult(name="b", size=2, expected=2, stats=(Stat(2, 2, 2),)),
    )
    assert found.groups == (Group(name="all", members=("a", "b"), weighting=Weighting.BY_SIZE),)
    assert [line.id for line, _ in found.lines] == ["a/0", "a/1", "a/2", "b/0", "b/1"]
    line, scores = found.lines[0]
    first, second = (choice for request in line.requests for choice in request.logprobs or ())
    assert (first.text, first.sum, first.greedy) == (" a", -1.5, True)
    assert (second.characters, second.bytes) == (3, 4)
    assert (line.subset, line.target, scores.scores["acc"].value) == ("a", "1", 1.0)


def test_a_task_alone_has_no_subset_and_a_filter_is_part_of_its_metrics_name() -> None:
    samples = {"a": rows("a", 0.5, 1.0, pipelines=("none", "strict"))}
    of = dict.fromkeys(("acc,none", "acc,strict"), 0.75)
    results = RESULTS | {
        "samples": samples,
        "results": {"a": of},
        "n-samples": {"a": {"original": 2, "effective": 2}},
    }
    found = read("acc,strict", results, groups={}, weighed={})
    assert [(m.key, m.primary, m.binary) for m in found.metrics] == [
        ("acc", False, False),
        ("acc,strict", True, False),
    ]
    assert [s.name for s in found.subsets] == [""]
    assert [line.id for line, _ in found.lines] == ["0", "1"]
    assert found.lines[0][1].scores.keys() == {"acc", "acc,strict"}


@pytest.mark.parametrize(
    ("results", "reason", "words"),
    [
        (
            changed("results/a/acc,none", 0.34),
            Reason.INVALID_RESULT,
            "a: lm-eval says 0.34 is the mean of acc",
        ),
        (changed("results/a/acc_stderr,none", 0.3), Reason.INVALID_RESULT, "is the standard error of acc"),
        (changed("groups/all/acc,none", 2 / 3), Reason.INVALID_RESULT, "all: lm-eval says 0.66"),
        (
            changed("samples/a/0/acc", float("nan")),
            Reason.INVALID_NUMBER,
            "acc has scores that are not finite",
        ),
    ],
)
def test_numbers_that_are_not_those_of_the_samples_are_no_result(
    results: dict[str, Any], reason: Reason, words: str
) -> None:
    with pytest.raises(Fatal, match=words) as caught:
        read(results=results)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("primary", "words"),
    [
        ("ppl", "lmEval.metric: ppl is no mean over samples; use one of acc"),
        ("acc_norm", "lmEval.metric: acc_norm is not among its metrics; use one of acc"),
    ],
)
def test_the_primary_metric_must_be_a_mean_that_is_there(primary: str, words: str) -> None:
    with pytest.raises(Fatal, match=words):
        read(primary)


def test_of_a_finished_partition_another_metric_may_stand_in_the_summary() -> None:
    metrics = (MetricInfo(key="acc", primary=True), MetricInfo(key="acc_norm", binary=False))
    assert reading.with_primary(metrics, "acc_norm") == (
        MetricInfo(key="acc"),
        MetricInfo(key="acc_norm", primary=True, binary=False),
    )
    with pytest.raises(Fatal, match=r"lmEval\.metric: f1 is not among its .*; use one of acc, acc_norm"):
        reading.with_primary(metrics, "f1")


def test_a_conversation_that_a_server_renders_is_logged_as_one() -> None:
    row = rows("a", 1.0)[0] | {"arguments": [(('[{"role": "user", "content": "Q"}]',), {"until": ["x"]})]}
    given = {
        "samples": {"a": [row | {"resps": [["A"]], "filtered_resps": ["A"]}]},
        "n-samples": {"a": {"original": 1, "effective": 1}},
    }
    found = read(results=RESULTS | given | {"results": {"a": {"acc,none": 1.0}}}, groups={}, weighed={})
    (request,) = found.lines[0][0].requests
    assert (request.messages, request.prompt) == ([{"role": "user", "content": "Q"}], None)
    assert (request.output, request.params) == ("A", {"until": ["x"]})


def test_groups_travel_in_the_result_and_stand_in_the_summary() -> None:
    plan = builders.plan(evaljob([model()], [harness()]))
    found = read()
    metrics = tuple(m.model_copy(update={"key": "acc_norm"}) for m in found.metrics)
    result = builders.scored(plan.partitions[0], *found.subsets, metrics=metrics, groups=found.groups)
    back = decode(encode(result))
    assert isinstance(back, PartitionResult)
    summary = summarize(plan, {plan.partitions[0]: back}, state=State.COMPLETE)
    (cell,) = summary.cells
    assert [(p.kind, p.name, p.scores[0].value) for p in cell.parts] == [
        ("dataset", "arc", 0.6),
        ("group", "all", 0.6),
        ("subset", "a", 1 / 3),
        ("subset", "b", 1.0),
    ]
    assert (summary.datasets[0].primary, summary.datasets[0].task_version) == ("acc_norm", None)


def test_names_of_groups_become_ours() -> None:
    assert slug("mmlu::humanities (x)") == "mmlu-humanities-x"
    assert slug("::") == "x"


def test_a_planned_dataset_travels_without_a_task() -> None:
    (found,) = builders.plan(evaljob([model()], [harness()])).datasets
    assert json.loads(found.to_json())["dataset"]["lmEval"] == OWN
    assert found.dataset.lm_eval == LmEval.model_validate(OWN)
    assert found.task is None


def documents(folder: Path, uri: str) -> Documents:
    return Documents(uris.open_source(uri, None, Places({"data": folder}, {}, folder), folder))


def written(path: Path, *rows_: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_))


def test_splits_are_files_of_the_source_or_of_a_folder_by_dataset_name(tmp_path: Path) -> None:
    for name in ("north", "south"):
        written(tmp_path / "all" / name / "test.jsonl", {"q": name})
        written(tmp_path / "all" / name / "dev.jsonl", {"q": f"{name} example"})
    one = documents(tmp_path, "pvc://data/all/north")
    assert one.splits(["test", "dev", "test"], "x") == {
        "test": [{"q": "north"}],
        "dev": [{"q": "north example"}],
    }
    every = documents(tmp_path, "pvc://data/all")
    assert every.splits(["test"], "south") == {"test": [{"q": "south"}]}
    with pytest.raises(Fatal, match="split test: no rows for dataset_name 'west'"):
        every.splits(["test"], "west")
    with pytest.raises(Fatal, match="no split 'train'"):
        one.splits(["train"], "north")


def test_a_column_that_the_first_row_lacks_is_there_in_all() -> None:
    rows_: list[dict[str, Any]] = [{"q": 1}, {"q": 2, "hint": "x"}]
    assert documents_of.columns(rows_) == {"q": [1, 2], "hint": [None, "x"]}


def test_one_file_is_one_split_or_examples_would_hold_the_question(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", {"q": 1})
    one = documents(tmp_path, "pvc://data/a.jsonl")
    assert one.splits(["test"], None) == {"test": [{"q": 1}]}
    with pytest.raises(
        Fatal, match=r"one file, but the task has the splits test, dev: use a folder with test\.jsonl"
    ):
        one.splits(["test", "dev"], None)


def identity(folder: Path, include: str = "pvc://data/tasks", source: str = "pvc://data/set") -> str:
    spec = harness(source=source, lmEval={**OWN, "includePath": include})
    given = PlannedDataset(dataset=Dataset.model_validate(spec), task_name="a")
    work = assignment(tiny_model(), given, folder, data=folder)
    work = replace(work, places=replace(work.places, config_maps={"tasks": folder / "mounted"}))
    with tempfile.TemporaryDirectory() as scratch:
        tasks = documents_of.copy_tasks(work, Path(scratch) / "tasks")
        return documents_of.identity(work, documents(folder, source).source, tasks)


@pytest.mark.parametrize("include", ["pvc://data/tasks", "pvc://data/tasks/a.yaml"])
@pytest.mark.parametrize(
    "file",
    [
        "tasks/a.yaml",
        "tasks/_default_template_yaml",
        "tasks/utils.py",
        "tasks/in/prompt.jinja",
        "set/test.jsonl",
    ],
)
def test_the_digest_of_tasks_and_documents_changes_with_every_file(
    tmp_path: Path, include: str, file: str
) -> None:
    """A task includes files of any name, also where one file alone is named."""
    for name in ("tasks/a.yaml", "set/test.jsonl", file):
        written(tmp_path / name, {"q": 1})
    before = identity(tmp_path, include)
    assert identity(tmp_path, include) == before
    written(tmp_path / file, {"q": 2})
    assert identity(tmp_path, include) != before


def test_the_digest_of_tasks_is_the_same_after_lm_eval_itself_has_run_there(tmp_path: Path) -> None:
    for name in ("tasks/a.yaml", "tasks/inner/utils.py", "set/test.jsonl"):
        written(tmp_path / name, {"q": 1})
    before = identity(tmp_path)
    for folder in ("tasks", "tasks/inner"):
        written(tmp_path / folder / "__pycache__" / "utils.cpython-311.pyc", {"q": 1})
    assert identity(tmp_path) == before


def test_the_digest_of_a_config_map_is_not_that_of_its_mount(tmp_path: Path) -> None:
    """A kubelet puts the files into a folder named by the time, and links them."""
    written(tmp_path / "set" / "test.jsonl", {"q": 1})

    def mounted(time: str) -> str:
        written(tmp_path / "mounted" / time / "a.yaml", {"task": "a"})
        for link, to in (("..data", time), ("a.yaml", "..data/a.yaml")):
            (tmp_path / "mounted" / link).unlink(missing_ok=True)
            (tmp_path / "mounted" / link).symlink_to(to)
        return identity(tmp_path, "configmap://tasks/a.yaml")

    assert mounted("..2026_01_01") == mounted("..2026_01_02")


def test_the_beginning_of_the_names_of_a_splits_files_has_a_digest_too(tmp_path: Path) -> None:
    written(tmp_path / "tasks" / "a.yaml", {"task": "a"})
    found = []
    for row in range(2):
        written(tmp_path / "set" / "test-00000-of-00001.jsonl", {"q": row})
        found.append(identity(tmp_path, source="pvc://data/set/test"))
    assert found[0] != found[1]


def test_tasks_that_cannot_be_copied_are_refused_by_their_uri(tmp_path: Path) -> None:
    written(tmp_path / "set" / "test.jsonl", {"q": 1})
    written(tmp_path / "tasks" / "a.yaml", {"task": "a"})
    (tmp_path / "tasks" / "gone.py").symlink_to("nowhere.py")
    with pytest.raises(Fatal, match=r"lmEval\.includePath: pvc://data/tasks: cannot be copied: .*gone\.py"):
        identity(tmp_path)
