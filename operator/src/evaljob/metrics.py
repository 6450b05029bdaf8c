"""The metrics that a task can name, and what it may tell each: checked at acceptance, implemented by the runner."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from evaljob.requests import RequestType
from evaljob.scoring import Metric
from evaljob.stats import Aggregation
from evaljob.task import Task, Turns

_ANSWERS = frozenset({RequestType.GENERATE, RequestType.CHAT})
_CHOICES = frozenset({RequestType.LOG_LIKELIHOOD})
_TEXTS = frozenset({RequestType.LOG_LIKELIHOOD_ROLLING})
_FLAG = "true|false"
_TEXT = "(?s:.+)"


@dataclass(frozen=True)
class Kind:
    """What is known of a metric without computing it."""

    requests: frozenset[RequestType] = _ANSWERS
    """The request types that give what it scores."""
    args: Mapping[str, str] = field(default_factory=dict)
    """Known arguments, each with the pattern of its values."""
    required: frozenset[str] = frozenset()
    """Arguments that have no default."""
    executes: bool = False
    """It runs what a model wrote: needs `program` and `tests`."""
    judged: bool = False
    """An LLM scores: needs `judge`, whose labels say whether scores are 0 or 1."""
    binary: bool = True
    """Scores are 0 or 1. Otherwise any finite number."""
    picks: bool = False
    """Of choices it compares several; others look at the right one, which may be the only one."""
    aggregation: Aggregation = Aggregation.MEAN
    """How the number is made of the scores of samples. MacroF1 is of the labels in args.labels (`a|b|c`)."""

    @property
    def compares(self) -> bool:
        """Whether it gives an answer 0 or 1 at once."""
        return self.binary and not (self.executes or self.judged or self.labelled)

    @property
    def labelled(self) -> bool:
        """Whether labels are counted."""
        return self.aggregation is Aggregation.MACRO_F1


_IGNORED = "regexes_to_ignore"
"""Patterns, one a line, whose matches are deleted from answer and target one after the other, as in lm-eval."""
_NORMALISATIONS = {
    "ignore_case": _FLAG,
    "ignore_punctuation": _FLAG,
    "ignore_numbers": _FLAG,
    _IGNORED: _TEXT,
}
_TOKENIZE = {"tokenize": "words|characters"}
_BLEU = {"tokenize": "13a|intl|char|zh|none"}
_CHOICE = Kind(_CHOICES, picks=True)
_PERPLEXITY = Kind(_TEXTS, binary=False, aggregation=Aggregation.PERPLEXITY)
_SHARE = Kind(binary=False)
_ORDER = {"order": "any|strict"}
_ROUGE = Kind(args=_TOKENIZE | {"stemmer": _FLAG}, binary=False)
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "acc": _CHOICE,
        "acc_norm": _CHOICE,
        "acc_bytes": _CHOICE,
        "mc2": Kind(_CHOICES, picks=True, binary=False),
        "greedy_match": Kind(_CHOICES),
        "perplexity": Kind(_CHOICES, binary=False, aggregation=Aggregation.PERPLEXITY),
        # Of choices the labels are their indexes.
        "f1_macro": Kind(
            _ANSWERS | _CHOICES,
            args={"labels": _TEXT},
            required=frozenset({"labels"}),
            picks=True,
            aggregation=Aggregation.MACRO_F1,
        ),
        "word_perplexity": _PERPLEXITY,
        "byte_perplexity": _PERPLEXITY,
        "bits_per_byte": Kind(_TEXTS, binary=False),
        "exact_match": Kind(args=_NORMALISATIONS),
        "contains": Kind(args=_NORMALISATIONS),
        "json_valid": Kind(),
        "field_match": Kind(args={"field": _TEXT}, required=frozenset({"field"})),
        "token_f1": Kind(args=_TOKENIZE, binary=False),
        "bleu": Kind(args=_BLEU, binary=False, aggregation=Aggregation.CORPUS_BLEU),
        "chrf": Kind(binary=False, aggregation=Aggregation.CORPUS_CHRF),
        "chrf_pp": Kind(binary=False, aggregation=Aggregation.CORPUS_CHRF_PP),
        "ter": Kind(binary=False, aggregation=Aggregation.CORPUS_TER),
        "sentence_bleu": Kind(args=_BLEU, binary=False),
        "sentence_chrf": _SHARE,
        "rouge1": _ROUGE,
        "rouge2": _ROUGE,
        "rougeL": _ROUGE,
        "rougeLsum": _ROUGE,
        "edit_similarity": _SHARE,
        "references_found": _SHARE,
        "tool_call": Kind(args=_ORDER),
        "tool_call_name": Kind(args=_ORDER),
        "tool_call_parts": _SHARE,
        "tool_call_valid": Kind(),
        "math_equal": Kind(),
        "ifeval_prompt_strict": Kind(),
        "ifeval_prompt_loose": Kind(),
        "ifeval_instruction_strict": _SHARE,
        "ifeval_instruction_loose": _SHARE,
        "code_exec": Kind(executes=True),
        "llm_judge": Kind(judged=True),
    }
)


def binary(metric: Metric) -> bool:
    """Whether each score of an answer is 0 or 1."""
    return metric.judge.binary if metric.judge else KINDS[metric.name].binary


def problem(task: Task) -> str | None:
    """The first thing in a task's metrics that can never be computed: its field, its value, and the fix; or None."""
    found = ((i, m, _problem(m, task)) for i, m in enumerate(task.metrics))
    return next((f"metrics[{i}]: {m.key}: {why}" for i, m, why in found if why), None)


def _problem(metric: Metric, task: Task) -> str | None:
    kind, request = KINDS.get(metric.name), task.request_type
    if kind is None:
        return f"unknown, use one of {_names(request)}"
    if request not in kind.requests:
        return f"not for requestType {request}, use one of {_names(request)}"
    misfit = next((why for bad, why in _misfits(metric, kind, task) if bad), None)
    return misfit or _argument_problem(metric.args, kind)


def _misfits(metric: Metric, kind: Kind, task: Task) -> tuple[tuple[bool, str], ...]:
    """Everything about a metric's fields that can be wrong, and how to say it."""
    request = task.request_type
    answers = request in _ANSWERS
    passes = metric.reduce is not None and metric.reduce.pass_at_k is not None
    return (
        (metric.extract is not None and not answers, f"extract: not used with requestType {request}"),
        (
            kind.labelled and answers and metric.extract is None,
            "counts what a pipeline finds: needs extract",
        ),
        (
            kind.labelled and task.references is not None,
            "references: a sample has one label, its target: leave references out",
        ),
        (
            metric.reduce is not None and kind.aggregation.counted,
            "reduce: made of counts over all samples, and not of their scores: leave reduce out",
        ),
        (
            (metric.program is not None) != kind.executes,
            "program and tests: needed by code_exec, and only there",
        ),
        (
            task.turns is not Turns.LAST and (kind.executes or kind.aggregation.counted),
            f"scores one answer of each sample, not with turns {task.turns}",
        ),
        ((metric.judge is not None) != kind.judged, "judge: needed by llm_judge, and only there"),
        _unless_misfit(metric, task),
        (passes and not binary(metric), "reduce.passAtK needs a metric whose scores are 0 or 1"),
    )


def _unless_misfit(metric: Metric, task: Task) -> tuple[bool, str]:
    unless = metric.judge.unless if metric.judge else None
    known = [m.key for m in task.metrics if (k := KINDS.get(m.name)) and k.compares]
    turns = "" if task.turns is Turns.LAST else f", and not with turns {task.turns}"
    wrong = unless is not None and (unless not in known or bool(turns))
    names = ", ".join(known) or "none here"
    return wrong, f"judge.unless: {unless!r}: must be a metric that compares to 0 or 1 ({names}){turns}"


def _names(request: RequestType) -> str:
    return ", ".join(sorted(name for name, kind in KINDS.items() if request in kind.requests))


def _argument_problem(args: Mapping[str, str], kind: Kind) -> str | None:
    if unknown := args.keys() - kind.args.keys():
        known = ", ".join(sorted(kind.args)) or "none"
        return f"unknown args {', '.join(sorted(unknown))}; known: {known}"
    if missing := kind.required - args.keys():
        return f"needs args {', '.join(sorted(missing))}"
    wrong = ((n, v) for n, v in args.items() if not re.fullmatch(kind.args[n], v))
    problems = (f"args.{n}: {v!r} does not match {kind.args[n]}" for n, v in wrong)
    return next(problems, None) or _pattern_problem(args.get(_IGNORED, ""))


def _pattern_problem(patterns: str) -> str | None:
    for pattern in patterns.split("\n"):
        try:
            re.compile(pattern)
        except re.error as error:
            return f"args.{_IGNORED}: {pattern!r}: not a regular expression of Python: {error}"
    return None
