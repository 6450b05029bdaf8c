"""lm-eval's results -> sample lines, exact states and groups. Every number is computed again from its samples."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evaljob import stats
from evaljob.lmeval import slug
from evaljob.names import Reason
from evaljob.result import MetricInfo, SubsetResult
from evaljob.scoring import Group, Weighting
from evaljob.stats import Stat
from evaljob_runner.errors import Fatal
from evaljob_runner.samples import Choice, InferenceLine, Outcome, Request, Score, ScoreLine

Results = Mapping[str, Any]
RenderedBy = Literal["Runner", "Server"]
_TOLERANCE = 1e-9
"""Relative: lm-eval adds floats up in order."""
_STDERR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Read:
    """What a partition reports of lm-eval's results."""

    lines: Sequence[tuple[InferenceLine, ScoreLine]]
    metrics: tuple[MetricInfo, ...]
    subsets: tuple[SubsetResult, ...]
    groups: tuple[Group, ...]
    left_out: tuple[str, ...]
    """Metrics that are no mean over samples."""


@dataclass(frozen=True)
class Names:
    """What the lines of this attempt have in common."""

    inference_digest: str
    attempt: str
    rendered_by: RenderedBy


def read(
    results: Results,
    *,
    primary: str,
    is_mean: Callable[[str, str], bool],
    groups: Mapping[str, Sequence[str]],
    weighed: Mapping[str, bool],
    names: Names,
) -> Read:
    """Map and check.

    Args:
        results: of `simple_evaluate`.
        primary: key of the metric that stands in the summary.
        is_mean: (task, metric) -> whether lm-eval takes its mean.
        groups: their tasks, by name.
        weighed: by group with a mean of its own, whether tasks weigh by their size.
        names: of this attempt.

    Raises:
        Fatal: InvalidResult, where lm-eval's numbers are not those of its samples; InvalidNumber; BadConfiguration,
            where the primary metric is not there or no mean.
    """
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
    scores = {task: _scores(rows) for task, rows in samples.items()}
    keys = _shared([list(of_task) for of_task in scores.values()])
    means = [
        k for k in keys if all(is_mean(task, _metric(k)) and _numbers(scores[task][k]) for task in samples)
    ]
    if primary not in means:
        why = "is no mean over samples" if primary in keys else "is not among its metrics"
        raise _no_primary(primary, why, means)
    infos = tuple(_info(key, primary, scores, results) for key in means)
    alone = len(samples) == 1 and not groups
    subsets = tuple(_subset(task, scores[task], infos, results, alone=alone) for task in samples)
    return Read(
        lines=[
            line for task, rows in samples.items() for line in _lines(task, rows, means, names, alone=alone)
        ],
        metrics=infos,
        subsets=subsets,
        groups=tuple(_groups(groups, weighed, infos, subsets, results)),
        left_out=tuple(key for key in keys if key not in means),
    )


def with_primary(metrics: Sequence[MetricInfo], primary: str) -> tuple[MetricInfo, ...]:
    """The metrics of a result that was read before, when perhaps another one stood in the summary.

    Raises:
        Fatal: BadConfiguration, where the primary metric is not among them.
    """
    keys = [metric.key for metric in metrics]
    if primary not in keys:
        raise _no_primary(primary, "is not among its means over samples", keys)
    return tuple(metric.model_copy(update={"primary": metric.key == primary}) for metric in metrics)


def _no_primary(primary: str, why: str, means: Sequence[str]) -> Fatal:
    use = ", ".join(means) or "none"
    return Fatal(Reason.BAD_CONFIGURATION, f"lmEval.metric: {primary} {why}; use one of {use}")


def _key(metric: str, pipeline: str) -> str:
    """lm-eval's `acc,none` is our `acc`."""
    return metric if pipeline == "none" else f"{metric},{pipeline}"


def _metric(key: str) -> str:
    return key.partition(",")[0]


def _theirs(key: str) -> str:
    return key if "," in key else f"{key},none"


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """By metric: the score of each document, in order."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        for metric in row["metrics"]:
            found.setdefault(_key(metric, row["filter"]), []).append(row[metric])
    return found


def _shared(keys: Sequence[Sequence[str]]) -> list[str]:
    """What all tasks measure, in the order of the first."""
    return [key for key in keys[0] if all(key in others for others in keys[1:])]


def _numbers(scores: Sequence[object]) -> bool:
    return all(isinstance(score, bool | int | float) for score in scores)


def _info(
    key: str,
    primary: str,
    scores: Mapping[str, Mapping[str, Sequence[Any]]],
    results: Results,
) -> MetricInfo:
    values = [float(score) for of_task in scores.values() for score in of_task[key]]
    if not all(map(math.isfinite, values)):
        raise Fatal(Reason.INVALID_NUMBER, f"lm-eval's metric {key} has scores that are not finite")
    better = [m.get(_metric(key)) for m in results.get("higher_is_better", {}).values()]
    return MetricInfo(
        key=key,
        primary=key == primary,
        higher_is_better=next((b for b in better if b is not None), True),
        binary=all(value in (0, 1) for value in values),
    )


def _subset(
    task: str,
    scores: Mapping[str, Sequence[Any]],
    metrics: Sequence[MetricInfo],
    results: Results,
    *,
    alone: bool,
) -> SubsetResult:
    states = []
    for metric in metrics:
        units = [stats.to_units(float(score), metric.unit) for score in scores[metric.key]]
        state = stats.accumulate((score, None) for score in units)
        _verify(task, metric, state, results["results"][task])
        states.append(state)
    count = results["n-samples"][task]
    return SubsetResult(
        name="" if alone else task,
        size=int(count["original"]),
        expected=int(count["effective"]),
        stats=tuple(states),
    )


def _verify(task: str, metric: MetricInfo, state: Stat, reported: Mapping[str, Any]) -> None:
    """lm-eval's mean and analytic standard error against those of its samples."""
    name, pipeline = _theirs(metric.key).split(",", 1)
    value, error = reported[f"{name},{pipeline}"], reported.get(f"{name}_stderr,{pipeline}")
    ours = stats.estimate(state, metric.unit)
    if ours is None or not math.isclose(ours.value, float(value), rel_tol=_TOLERANCE, abs_tol=1e-12):
        raise _disagrees(task, metric.key, "mean", ours and ours.value, value)
    if ours.stderr is None or not isinstance(error, int | float):
        return
    if not math.isclose(ours.stderr, float(error), rel_tol=_STDERR_TOLERANCE, abs_tol=1e-9):
        raise _disagrees(task, metric.key, "standard error", ours.stderr, error)


def _disagrees(where: str, key: str, what: str, ours: object, theirs: object) -> Fatal:
    return Fatal(
        Reason.INVALID_RESULT,
        f"{where}: lm-eval says {theirs} is the {what} of {key}, its samples give {ours}",
    )


def _groups(
    groups: Mapping[str, Sequence[str]],
    weighed: Mapping[str, bool],
    metrics: Sequence[MetricInfo],
    subsets: Sequence[SubsetResult],
    results: Results,
) -> Iterator[Group]:
    """The groups that have a mean, each checked against lm-eval's."""
    by_name = {s.name: s for s in subsets}
    for name, by_size in weighed.items():
        tasks = groups[name]
        for i, metric in enumerate(metrics):
            reported = results.get("groups", {}).get(name, {}).get(_theirs(metric.key))
            states = [by_name[task].stats[i] for task in tasks]
            if reported is None or not all(s.n for s in states):
                continue
            values = [(s.value(metric.unit) or 0.0, s.n if by_size else 1) for s in states]
            ours = math.fsum(v * w for v, w in values) / sum(w for _, w in values)
            if not math.isclose(ours, float(reported), rel_tol=_TOLERANCE, abs_tol=1e-12):
                raise _disagrees(name, metric.key, "mean", ours, reported)
        yield Group(
            name=slug(name), members=tuple(tasks), weighting=Weighting.BY_SIZE if by_size else Weighting.EQUAL
        )


def _lines(
    task: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], names: Names, *, alone: bool
) -> Iterator[tuple[InferenceLine, ScoreLine]]:
    """One answer and its scores per document; lm-eval has a row for each of its filters too."""
    by_document: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_document.setdefault(int(row["doc_id"]), []).append(row)
    for number, same in by_document.items():
        name = str(number) if alone else f"{task}/{number}"
        yield _inference(name, "" if alone else task, same[0], names), _score(name, same, keys, names)


def _inference(name: str, subset: str, row: Mapping[str, Any], names: Names) -> InferenceLine:
    requests = [
        _request(arguments, answers, names)
        for arguments, answers in zip(row["arguments"], row["resps"], strict=True)
    ]
    return InferenceLine(
        id=name,
        subset=subset,
        doc_digest=row["doc_hash"],
        inference_digest=names.inference_digest,
        attempt=names.attempt,
        outcome=Outcome.ANSWERED,
        requests=requests,
        target=_text(row["target"]),
    )


def _request(arguments: Sequence[Any], answers: Sequence[Any], names: Names) -> Request:
    """A generation, or the weight of one continuation."""
    last = answers[0]
    digest = hashlib.sha256(json.dumps(list(map(_text, arguments))).encode()).hexdigest()
    common = {**_asked(arguments[0]), "rendered_by": names.rendered_by, "prompt_digest": digest}
    if isinstance(last, str):
        return Request(**common, output=last, params=_parameters(arguments))
    text = str(arguments[1 if len(arguments) > 1 else 0])
    weight, greedy = last if isinstance(last, list | tuple) else (last, False)
    choice = Choice(
        text=text, sum=float(weight), characters=len(text), bytes=len(text.encode()), greedy=bool(greedy)
    )
    return Request(**common, logprobs=[choice])


def _asked(prompt: object) -> dict[str, Any]:
    """A text; or a conversation, which lm-eval wraps as JSON where a server renders it."""
    if isinstance(prompt, tuple):
        return {"messages": json.loads(prompt[0])}
    return {"prompt": str(prompt)}


def _parameters(arguments: Sequence[Any]) -> dict[str, Any] | None:
    given = arguments[1] if len(arguments) > 1 else None
    return (
        {k: v if isinstance(v, str | int | float | list) else str(v) for k, v in given.items()}
        if isinstance(given, dict)
        else None
    )


def _score(name: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], names: Names) -> ScoreLine:
    scores = {}
    for row in rows:
        for metric in row["metrics"]:
            if (key := _key(metric, row["filter"])) in keys:
                scores[key] = Score(extracted=_extracted(row), value=float(row[metric]))
    return ScoreLine(id=name, inference_digest=names.inference_digest, scores=scores)


def _extracted(row: Mapping[str, Any]) -> str | None:
    """What a filter made of the answer, where there is one."""
    found = row["filtered_resps"]
    return _text(found[0]) if row["filter"] != "none" and isinstance(found[0], str) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
