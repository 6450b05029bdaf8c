"""Which solved examples stand before a question: a pure function of (task, pool, seed, sample), never of a shard."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from evaljob.names import Reason
from evaljob.task import FewShot, Pool, Sampler
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal
from evaljob_runner.metrics.base import library

Picker = Callable[[Sequence[Sample], Sample], Sequence[Sample]]
"""(pool, sample) -> examples, in the order of the prompt; may hold too few, or one too many."""
# A word, or one letter of a script that has no spaces between words.
_TOKEN = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")


class Examples:
    """Picks the examples of a task.

    Args:
        few_shot: how many and how; None for none.
        pools: candidates by subset, under "" where all share one; all different.
        question: what a sample is compared by (Similar).
        seed: of one sample (Random).

    Raises:
        Fatal: BadData, for a fixed example that is not in the pool.
    """

    def __init__(
        self,
        few_shot: FewShot | None,
        pools: Mapping[str, tuple[Sample, ...]],
        *,
        question: Callable[[Sample], str],
        seed: Callable[[Sample], int],
    ) -> None:
        self._few_shot, self._pools = few_shot, pools
        pickers: Mapping[Sampler, Picker] = {
            Sampler.FIRST: _first,
            Sampler.RANDOM: lambda pool, sample: _random(pool, self._count + 1, seed(sample)),
            Sampler.SIMILAR: _similar(question, pools),
            Sampler.FIXED: lambda pool, _sample: _fixed(pool, (few_shot and few_shot.ids) or ()),
        }
        self._pick = pickers[few_shot.sampler] if few_shot else _first
        self._count = few_shot.wanted if few_shot else 0

    def of(self, sample: Sample) -> tuple[Sample, ...]:
        """The examples of one sample; its own document is never among them, unless the task fixes it.

        Raises:
            Fatal: BadData, when there are too few.
        """
        if self._few_shot is None or not self._count:
            return ()
        one_pool = self._few_shot.pool is Pool.ALL
        pool = self._pools.get("" if one_pool else sample.subset, ())
        picked = self._pick(pool, sample)
        if self._few_shot.sampler is not Sampler.FIXED:
            picked = [s for s in picked if s.digest != sample.digest]
        if len(picked) < self._count:
            of = "" if one_pool else f" of subset {sample.subset!r}"
            raise Fatal(
                Reason.BAD_DATA,
                f"fewShot.count is {self._count}, but the pool{of} has {len(picked)} other examples",
            )
        # The most similar examples stand last, next to the question.
        last = self._few_shot.sampler is Sampler.SIMILAR
        return tuple(picked[-self._count :] if last else picked[: self._count])


def _first(pool: Sequence[Sample], _sample: Sample) -> Sequence[Sample]:
    return pool


def _random(pool: Sequence[Sample], count: int, seed: int) -> Sequence[Sample]:
    return random.Random(seed).sample(pool, min(count, len(pool)))  # noqa: S311 - no secret


def _fixed(pool: Sequence[Sample], ids: Sequence[str]) -> Sequence[Sample]:
    by_id = {s.id: s for s in pool}
    if missing := [i for i in ids if i not in by_id]:
        raise Fatal(Reason.BAD_DATA, f"fewShot.ids: {missing[0]!r} is not in the pool")
    return [by_id[i] for i in ids]


def _similar(question: Callable[[Sample], str], pools: Mapping[str, tuple[Sample, ...]]) -> Picker:
    """By BM25 of the questions (Robertson and Zaragoza 2009); of equals the first in the pool."""

    @cache
    def index(key: str) -> Any:  # noqa: ANN401 - bm25s is imported only where it is used
        found = library("bm25s").BM25()
        found.index([_tokens(question(s)) for s in pools[key]], show_progress=False)
        return found

    def pick(pool: Sequence[Sample], sample: Sample) -> Sequence[Sample]:
        if not pool:
            return ()
        key = next(k for k, candidates in pools.items() if candidates is pool)
        scores = index(key).get_scores(_tokens(question(sample))).tolist()
        order = sorted(range(len(pool)), key=lambda i: (-scores[i], i))
        return [pool[i] for i in reversed(order)]

    return pick


def _tokens(text: str) -> list[str]:
    # BM25 of nothing is not defined; a word that no other text has stands for an empty one.
    return _TOKEN.findall(text.lower()) or ["\0"]
