"""The lm-eval adapter as Kubernetes sees it: a real process, and the numbers of lm-eval alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaljob import stats
from evaljob.names import Reason
from evaljob.plan import PlannedDataset
from evaljob.result import PartitionResult
from evaljob.spec import Dataset, Model
from tests.parity import cases
from tests.runner_plans import TINY, tiny_model
from tests.stub_server import Script, serve
from tests.torch.processes import Ended, end, lines, start

TASKS = Path(__file__).parents[1] / "lmeval_tasks"
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def harness(task: str, metric: str, data: str, **more: Any) -> PlannedDataset:  # noqa: ANN401 - fields of a dataset
    own = {"task": task, "metric": metric, "includePath": "pvc://tasks/lmeval_tasks"}
    spec = Dataset.model_validate({"name": "set", "lmEval": own, "source": f"pvc://rows/{data}", **more})
    return PlannedDataset(dataset=spec, task_name=task)


def run(
    folder: Path, dataset: PlannedDataset, *options: str, attempt: str = "a-1", prompt_format: str = "Text"
) -> Ended:
    """A partition; 15 s on an idle machine, nearly all of them imports."""
    model = tiny_model(promptFormat=prompt_format)
    return end(start(folder, model, dataset, *options, attempt=attempt), folder, timeout=600)


def mounts(rows: Path) -> tuple[str, ...]:
    """The data sets of the tiny model, as claim `rows`, and the tasks."""
    cases.write_data(rows / "rows", None)
    return ("--mount", f"tasks={TASKS.parent}", "--mount", f"rows={rows}")


def values(result: PartitionResult) -> dict[str, tuple[float, float | None]]:
    """By task and metric: value and standard error."""
    found = {}
    for subset in result.subsets:
        for metric, state in zip(result.metrics, subset.stats, strict=True):
            estimate = stats.estimate(state, metric.unit)
            assert estimate is not None
            found[f"{subset.name}/{metric.key}"] = estimate.value, estimate.stderr
    return found


def alone(task: str, data: Path) -> dict[str, Any]:
    """lm-eval itself, on the files that the source holds, with the model arguments of its own command line."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    def config(name: str) -> dict[str, Any]:
        found: dict[str, Any] = load_yaml(TASKS / f"{name}.yaml")
        files = {split: str(data / found["dataset_name"] / f"{split}.jsonl") for split in ("test", "dev")}
        return found | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}

    found = simple_evaluate(
        "hf",
        model_args=f"pretrained={TINY / 'model'},dtype=float32",
        device="cpu",
        batch_size=16,
        tasks=[config(name) for name in ("tiny_mc", "tiny_kind")]
        if task == "tiny_choices"
        else [config(task)],
        task_manager=TaskManager(include_defaults=False),
        fewshot_random_seed=0,
        bootstrap_iters=2,
    )
    return dict(found or {})


def test_a_group_gives_lm_evals_numbers_and_a_finished_partition_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python of the task, random examples by the seed, documents of the source, a folder for each dataset_name."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    mounted = mounts(tmp_path)
    dataset = harness("tiny_choices", "acc", "rows")
    ended = run(tmp_path, dataset, *mounted)
    assert ended.code == 0, ended.logged
    theirs = alone("tiny_choices", tmp_path / "rows")["results"]
    mine = values(ended.result)
    assert mine.keys() == {f"{task}/{metric}" for task in theirs for metric in ("acc", "acc_norm")}
    for name, (value, error) in mine.items():
        task, metric = name.split("/")
        assert value == pytest.approx(theirs[task][f"{metric},none"], rel=1e-9)
        assert error == pytest.approx(theirs[task][f"{metric}_stderr,none"], rel=1e-6)
    assert [(g.name, g.members) for g in ended.result.groups] == [("tiny_choices", ("tiny_mc", "tiny_kind"))]
    assert ended.result.device == "cpu"
    assert ended.result.provenance.keys() >= {"lm-eval", "weights"}
    logged = [json.loads(text) for text in lines(tmp_path)]
    assert len([x for x in logged if x["kind"] == "inference"]) == ended.result.outcomes.expected
    again = run(tmp_path, dataset, *mounted, "--score-only", attempt="a-2")
    assert again.result.subsets == ended.result.subsets
    assert (again.result.attempt, again.result.outcomes.from_log) == ("a-2", ended.result.outcomes.expected)


def test_what_lm_eval_does_not_do_is_said(tmp_path: Path) -> None:
    """The wrong primary metric, found after the run, names those that there are; a task that is not there."""
    mounted = mounts(tmp_path)
    corpus = harness("tiny_gsm", "bleu", "rows/gsm", limit=2)
    ended = run(tmp_path / "a", corpus, *mounted, prompt_format="Chat")
    assert ended.failure.reason == Reason.BAD_CONFIGURATION
    assert ended.failure.message == (
        "lmEval.metric: bleu is no mean over samples; use one of exact_match,strict-match, exact_match"
    )
    assert ended.code == 78


def test_a_server_is_asked_by_lm_eval_with_our_limits(tmp_path: Path) -> None:
    script = Script(answer="#### 33")
    with serve(script) as url:
        openai = {"url": url, "model": "stub", "maxConcurrency": 2}
        served = Model.model_validate(
            {"name": "m", "promptFormat": "Chat", "openai": openai, "generation": {"maxTokens": 9}}
        )
        dataset = harness("tiny_gsm", "exact_match,strict-match", "rows/gsm", limit=3)
        ended = end(start(tmp_path, served, dataset, *mounts(tmp_path)), tmp_path, timeout=600)
    assert [s.stats[0] for s in ended.result.subsets] == [stats.Stat(3, 1, 1)]
    assert ended.result.limited
    bodies = [request["body"] for request in script.requests]
    assert [(b["max_tokens"], b["temperature"], b["seed"]) for b in bodies] == [(9, 0.0, 0)] * 3
    assert [b["messages"][0]["role"] for b in bodies] == ["user"] * 3
