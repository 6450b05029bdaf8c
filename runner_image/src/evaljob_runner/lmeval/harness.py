"""The only module that knows lm-eval. It runs in a process of its own, so what it leaves behind ends with it."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.metrics import mean, nanmean
from lm_eval.api.registry import get_model
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager

from evaljob.lmeval import LmEval
from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.lmeval.arguments import Arguments, Engine
from evaljob_runner.lmeval.documents import Documents, columns

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass(frozen=True)
class Loaded:
    """A task or group, with its documents."""

    tasks: Mapping[str, Task]
    groups: Mapping[str, Group]

    @property
    def generates(self) -> bool:
        """Whether nothing is weighed."""
        return all(task.OUTPUT_TYPE == "generate_until" for task in self.tasks.values())

    @property
    def built(self) -> Sequence[Task | Group]:
        """As lm-eval takes them: groups bring their tasks."""
        inner = {name for group in self.groups.values() for name in _names(group)}
        outer = [group for name, group in self.groups.items() if name not in inner]
        return [*outer, *(task for name, task in self.tasks.items() if name not in inner)]

    def is_mean(self, task: str, metric: str) -> bool:
        """Whether lm-eval makes the mean of a metric's scores."""
        return self.tasks[task].aggregation().get(metric, mean) in (mean, nanmean)

    def members(self, group: str) -> list[str]:
        """The names of all tasks below a group."""
        return [task.task_name for task in self.groups[group].get_all_tasks()]

    @property
    def weighed(self) -> Mapping[str, bool]:
        """By group with a mean of its own: whether its tasks weigh by their size."""
        ways = {
            name: {item.weight_by_size for item in group.aggregate_metric_list or ()}
            for name, group in self.groups.items()
        }
        return {name: way.pop() for name, way in ways.items() if len(way) == 1}


def _names(group: Group) -> list[str]:
    return [task.task_name for task in group.get_all_tasks()] + [g.name for g in group.get_all_groups()]


def load(spec: LmEval, include: Path | None, documents: Documents | None) -> Loaded:
    """Find a task, read its documents.

    Raises:
        Fatal: BadConfiguration, where lm-eval knows no such task; BadData, where its documents are not there.
        Retry: DependencyUnavailable, when a hub does not answer.
    """
    if documents:
        ConfigurableTask.download = _download(documents)
    try:
        found = _found(spec.task, include)
    except KeyError as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"lmEval.task: {spec.task}: {error.args[0]}") from error
    except (ConnectionError, TimeoutError) as error:
        raise Retry(Reason.DEPENDENCY_UNAVAILABLE, f"the documents of {spec.task}: {error}") from error
    except (datasets.exceptions.DatasetsError, FileNotFoundError) as error:
        raise Fatal(Reason.BAD_DATA, f"the documents of {spec.task}: {error}") from error
    return Loaded(found["tasks"], found["groups"])


def _found(task: str, include: Path | None) -> Mapping[str, Any]:
    """A task by name; lm-eval's own, which take seconds to list, only where the user's folder is not enough."""
    if include:
        with contextlib.suppress(KeyError):
            return TaskManager(include_path=str(include), include_defaults=False).load([task])  # type: ignore[no-any-return]
    return TaskManager(include_path=str(include) if include else None).load([task])  # type: ignore[no-any-return]


def _download(documents: Documents) -> Callable[..., None]:
    def download(self: ConfigurableTask, *_: object, **__: object) -> None:
        """Instead of what the task itself would fetch."""
        named = [*(getattr(self.config, field) for field in _SPLITS), self.fewshot_cfg.split]
        rows = documents.splits(filter(None, named), self.DATASET_NAME)
        self.dataset = datasets.DatasetDict(
            {name: datasets.Dataset.from_dict(columns(r)) for name, r in rows.items()}
        )

    return download


def evaluate(
    loaded: Loaded,
    engine: Engine,
    spec: LmEval,
    *,
    limit: int | None,
    seed: int,
    chat: bool,
    generation: Arguments | None,
) -> dict[str, Any]:
    """Run it: lm-eval's results, with all samples.

    Raises:
        Fatal: UnsupportedRequest, where lm-eval would run code that a model wrote.
    """
    unsafe = [name for name, task in loaded.tasks.items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe:
        raise Fatal(
            Reason.UNSUPPORTED_REQUEST,
            f"lmEval.task: {unsafe[0]} runs code that a model wrote, without a sandbox: use metric code_exec",
        )
    # Standard output holds progress lines.
    with contextlib.redirect_stdout(sys.stderr):
        model = get_model(engine.name).create_from_arg_obj(dict(engine.arguments), {})
        found = simple_evaluate(
            model,
            tasks=list(loaded.built),
            num_fewshot=spec.num_fewshot,
            limit=limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            gen_kwargs=dict(generation) if generation else None,
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=2,  # 0 leaves the analytic errors out too; what is no mean is not reported
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    if found is None:
        raise ValueError("lm-eval gave no results on this rank")
    return dict(found)
