"""Scores of a whole corpus, made of counts that shards add up: those of sacrebleu, with its defaults."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from evaljob.stats import Aggregation

BLEU_ORDER, CHRF_ORDER, CHRF_WORD_ORDER = 4, 6, 2
"""Longest n-grams: of words, of characters, and of words in chrF++."""
CORPUS_MAX = 100
TER_UNIT = math.lcm(*range(1, 17))
"""Of words: the mean length of up to 16 references is a whole number of them."""
_RECALL_WEIGHT = 2**2
"""chrF2: recall counts twice as much as precision, squared."""
Counts = tuple[int, ...]


def bleu(counts: Counts) -> float:
    """BLEU (Papineni et al. 2002), 0 to 100; orders without a match are smoothed exponentially, as mteval does.

    Args:
        counts: words of the answers, of the references; then by order matches, then by order n-grams of the answers.
    """
    said, wanted, *rest = counts
    matches, totals = rest[:BLEU_ORDER], rest[BLEU_ORDER:]
    if not all(totals) or not any(matches):
        return 0.0
    smoothing, logs = 1, 0.0
    for match, total in zip(matches, totals, strict=True):
        if not match:
            smoothing *= 2
        logs += math.log(100 * match / total if match else 100 / (smoothing * total))
    penalty = 1.0 if said >= wanted else math.exp(1 - wanted / said)
    return penalty * math.exp(logs / BLEU_ORDER)


def chrf(counts: Counts) -> float:
    """ChrF (Popović 2015) and chrF++ (2017), 0 to 100: precision and recall averaged over the orders that both have.

    Args:
        counts: by order n-grams of the answers; of the references; of both.
    """
    orders = [(said, wanted, both) for said, wanted, both in _by_order(counts) if said and wanted]
    precision = sum(both / said for said, _, both in orders)
    recall = sum(both / wanted for _, wanted, both in orders)
    if not precision + recall:
        return 0.0
    return (
        100 * (1 + _RECALL_WEIGHT) * precision * recall / (_RECALL_WEIGHT * precision + recall) / len(orders)
    )


def ter(counts: Counts) -> float:
    """TER (Snover et al. 2006), 0 or more: edits for each 100 words of the references.

    Args:
        counts: edits; words of the references, where a sample has several their mean, in `TER_UNIT`.
    """
    edits, wanted = counts
    if not wanted:
        return 100.0 if edits else 0.0
    return 100 * edits * TER_UNIT / wanted


def _by_order(counts: Counts) -> list[Counts]:
    orders = len(counts) // 3
    return list(zip(counts[:orders], counts[orders:-orders], counts[-orders:], strict=True))


def _bleu_possible(counts: Counts) -> bool:
    matches, totals = counts[2:-BLEU_ORDER], counts[-BLEU_ORDER:]
    return (
        all(match <= total for match, total in zip(matches, totals, strict=True)) and totals[0] <= counts[0]
    )


def _chrf_possible(counts: Counts) -> bool:
    return all(both <= min(said, wanted) for said, wanted, both in _by_order(counts))


class Corpus(NamedTuple):
    """A score of a corpus."""

    size: int
    """How many counts it is made of."""
    score: Callable[[Counts], float]
    possible: Callable[[Counts], bool]
    """Whether some corpus has these counts."""
    unit: int = 1
    """Of what is counted."""


CORPORA: Mapping[Aggregation, Corpus] = {
    Aggregation.CORPUS_BLEU: Corpus(2 + 2 * BLEU_ORDER, bleu, _bleu_possible),
    Aggregation.CORPUS_CHRF: Corpus(3 * CHRF_ORDER, chrf, _chrf_possible),
    Aggregation.CORPUS_CHRF_PP: Corpus(3 * (CHRF_ORDER + CHRF_WORD_ORDER), chrf, _chrf_possible),
    Aggregation.CORPUS_TER: Corpus(2, ter, lambda _: True, TER_UNIT),
}


def valid(aggregation: Aggregation, counts: Counts) -> bool:
    """Whether some corpus has these counts."""
    corpus = CORPORA[aggregation]
    return len(counts) == corpus.size and corpus.possible(counts)


def added(a: Counts, b: Counts) -> Counts:
    """The counts of two disjoint sets of samples together; the empty set has no counts at all."""
    return tuple(x + y for x, y in zip(a, b, strict=True)) if a and b else a or b
