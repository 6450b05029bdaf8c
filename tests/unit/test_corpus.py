"""Scores of a corpus from counts: shards add them up, and what no texts can have is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.corpus import CORPORA, TER_UNIT, added, bleu, chrf, ter, valid
from evaljob.stats import Aggregation

BLEU = (8, 9, 7, 5, 3, 2, 8, 7, 6, 5)
CHRF = (9, 8, 7, 6, 5, 4, 10, 9, 8, 7, 6, 5, 8, 6, 4, 2, 1, 0)


def test_bleu_is_the_geometric_mean_of_precisions_under_the_brevity_penalty() -> None:
    expected = 100 * math.exp(1 - 9 / 8) * (7 / 8 * 5 / 7 * 3 / 6 * 2 / 5) ** (1 / 4)
    assert bleu(BLEU) == pytest.approx(expected)


def test_orders_of_bleu_without_a_match_are_halved_each_time() -> None:
    counts = (8, 8, 7, 5, 0, 0, 8, 7, 6, 5)
    assert bleu(counts) == pytest.approx(100 * (7 / 8 * 5 / 7 / (2 * 6) / (4 * 5)) ** (1 / 4))


@pytest.mark.parametrize(
    "counts", [(0,) * 10, (3, 9, 3, 2, 1, 0, 3, 2, 1, 0), (9, 9, 0, 0, 0, 0, 9, 8, 7, 6)]
)
def test_bleu_is_zero_without_any_match_or_without_long_n_grams(counts: tuple[int, ...]) -> None:
    assert bleu(counts) == 0


def test_chrf_averages_over_the_orders_that_both_sides_have() -> None:
    assert chrf((2, 1, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 1, 1, 0, 0, 0, 0)) == pytest.approx(
        100 * 5 * 0.75 * (1 / 4 + 1 / 3) / 2 / (4 * 0.75 + (1 / 4 + 1 / 3) / 2)
    )
    assert chrf((0,) * 18) == 0


def test_chrf_counts_orders_of_words_like_those_of_characters() -> None:
    characters = (2, 2, 1), (1, 1, 1)
    with_words = (*characters, *[(0, 0, 0)] * 4, (2, 2, 1), (1, 1, 0))
    counts = tuple(n for side in zip(*with_words, strict=True) for n in side)
    assert valid(Aggregation.CORPUS_CHRF_PP, counts)
    assert chrf(counts) == pytest.approx(100 * (1 / 2 + 1 + 1 / 2 + 0) / 4)


@pytest.mark.parametrize(("edits", "words", "score"), [(3, 12, 25), (30, 12, 250), (0, 0, 0), (5, 0, 100)])
def test_ter_is_edits_by_words(edits: int, words: int, score: float) -> None:
    assert ter((edits, words * TER_UNIT)) == score


@given(st.lists(st.lists(st.integers(0, 99), min_size=10, max_size=10).map(tuple), max_size=8), st.data())
def test_any_cut_of_a_corpus_adds_up_to_the_same_counts(
    rows: list[tuple[int, ...]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    parts: list[tuple[int, ...]] = []
    for some in (rows, rows[:cut], rows[cut:]):
        total: tuple[int, ...] = ()
        for row in some:
            total = added(total, row)
        parts.append(total)
    assert parts[0] == added(parts[1], parts[2])


@pytest.mark.parametrize(
    ("aggregation", "counts"),
    [
        (Aggregation.CORPUS_BLEU, BLEU[:-1]),
        (Aggregation.CORPUS_BLEU, (8, 9, 9, 5, 3, 2, 8, 7, 6, 5)),
        (Aggregation.CORPUS_BLEU, (7, *BLEU[1:])),
        (Aggregation.CORPUS_CHRF, (*CHRF, 1)),
        (Aggregation.CORPUS_CHRF, (*CHRF[:-1], 6)),
    ],
)
def test_counts_that_no_texts_have(aggregation: Aggregation, counts: tuple[int, ...]) -> None:
    assert not valid(aggregation, counts)


def test_counts_that_texts_may_have() -> None:
    assert valid(Aggregation.CORPUS_BLEU, BLEU)
    assert valid(Aggregation.CORPUS_CHRF, CHRF)
    assert set(CORPORA) == {a for a in Aggregation if a.counted} - {Aggregation.MACRO_F1}
