"""Sampling parameters: resolved once, each with its origin, and the seed of each sample."""

import hashlib
from collections.abc import Callable
from typing import Any

from evaljob.task import Generation
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Sampling
from evaljob_runner.data import Sample

NEUTRAL = Generation(temperature=0, top_p=1, max_tokens=256)
"""Greedy, 256 tokens as in lm-eval. An absent topK or repetitionPenalty is off."""
_SCALARS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")


def resolve(task: Generation, model: Generation) -> Sampling:
    """Neutral defaults < task < model, field by field; `stop` is a union."""
    values = {name: value for name, (value, _) in _with_origins(task, model).items()}
    return Sampling(**values, stop=tuple(dict.fromkeys(task.stop + model.stop)))


def origins(task: Generation, model: Generation) -> dict[str, dict[str, Any]]:
    """Each resolved value with where it comes from, for people who check a configuration."""
    found: dict[str, dict[str, Any]] = {
        Generation.model_fields[name].alias or name: {"value": value, "origin": origin}
        for name, (value, origin) in _with_origins(task, model).items()
    }
    stops = dict.fromkeys(model.stop, "model") | dict.fromkeys(task.stop, "task")
    return found | {"stop": {"value": list(dict.fromkeys(task.stop + model.stop)), "origin": stops}}


def _with_origins(task: Generation, model: Generation) -> dict[str, tuple[Any, str]]:
    levels = (("model", model), ("task", task), ("default", NEUTRAL))
    return {
        name: next(
            ((value, origin) for origin, level in levels if (value := getattr(level, name)) is not None),
            (None, "default"),
        )
        for name in _SCALARS
    }


def seed_of(*, run: int, task: str, subset: str, sample: str, repeat: int, turn: int = 0) -> int:
    """The seed of one answer: the same in any shard, order and batch. 31 bits, as servers take them."""
    later = (str(turn),) if turn else ()
    identity = "\0".join((str(run), task, subset, sample, str(repeat), *later))
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]) >> 1


def example_seed(work: Assignment) -> Callable[[Sample], int]:
    """The seed of a sample's random few-shot examples, the same for all its repeats."""
    run, task = work.run.seed, work.planned.task_name
    return lambda sample: seed_of(run=run, task=task, subset=sample.subset, sample=sample.id, repeat=-1)
