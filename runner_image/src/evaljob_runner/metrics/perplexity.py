"""Metrics of the log-likelihood of a whole text, per word or byte of it, as lm-eval counts them."""

import math
import re
from collections.abc import Mapping
from functools import partial

from evaljob_runner.metrics.base import Definition


def _words(text: str) -> int:
    """Words between white space; one more for white space at each end."""
    return len(re.split(r"\s+", text))


def _bytes(text: str) -> int:
    return len(text.encode())


def _nats(log_likelihood: float) -> float:
    return -log_likelihood


def _bits(log_likelihood: float) -> float:
    return -log_likelihood / math.log(2)


def _empty(text: str) -> str | None:
    return None if text else "the text is empty"


_definition = partial(Definition, check=_empty, higher_is_better=False)
METRICS: Mapping[str, Definition] = {
    "word_perplexity": _definition(measure=_nats, weight=_words),
    "byte_perplexity": _definition(measure=_nats, weight=_bytes),
    "bits_per_byte": _definition(measure=_bits, weight=_bytes),
}
