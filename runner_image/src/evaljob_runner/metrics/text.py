"""Metrics that compare texts letter by letter."""

import re
import string
from collections.abc import Mapping

from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Args, Definition, as_text, simple


def _normal(text: str, args: Args) -> str:
    """lm-eval's order: patterns, case, punctuation, numbers."""
    for pattern in args.get("regexes_to_ignore", "").split("\n"):
        text = re.sub(pattern, "", text)
    if args.get("ignore_case") == "true":
        text = text.lower()
    if args.get("ignore_punctuation") == "true":
        text = text.translate(str.maketrans("", "", string.punctuation))
    if args.get("ignore_numbers") == "true":
        text = re.sub("[0-9]", "", text)
    return text


def _exact_match(value: Json, target: str, args: Args) -> bool:
    return _normal(as_text(value), args) == _normal(target, args)


def _contains(value: Json, target: str, args: Args) -> bool:
    return _normal(target, args) in _normal(as_text(value), args)


METRICS: Mapping[str, Definition] = {
    "f1_macro": Definition(simple(_exact_match), choose=lambda choice: choice.total),
    "contains": Definition(simple(_contains)),
    "exact_match": Definition(simple(_exact_match)),
}
