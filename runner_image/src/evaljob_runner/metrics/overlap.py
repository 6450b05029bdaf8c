"""Metrics that count what an answer and a reference have in common. Scores of single answers lie between 0 and 1.

BLEU, chrF and TER of a corpus are made of the n-grams or edits of all samples: they are no means.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from evaljob import corpus
from evaljob.corpus import Counts
from evaljob.scoring import Metric
from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Compare, Count, Definition, Verdict, as_text, best_of, library

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。、；：？！“”‘’（）《》【】…—·")  # noqa: RUF001


def _squad_tokens(text: str, *, characters: bool) -> list[str]:
    """As SQuAD's evaluation (Rajpurkar et al. 2016): case, punctuation and articles do not count."""
    plain = text.lower().translate(_PUNCTUATION)
    if characters:
        return list("".join(plain.split()))
    return _ARTICLES.sub(" ", plain).split()


def f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over tokens as a bag; two empty texts are equal."""
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def _token_f1(metric: Metric) -> Compare:
    characters = metric.args.get("tokenize") == "characters"

    def score(value: Json, target: str) -> float:
        return f1(*(_squad_tokens(t, characters=characters) for t in (as_text(value), target)))

    return best_of(score)


def _bleu(metric: Metric) -> Count:
    bleu = library("sacrebleu.metrics").BLEU(tokenize=metric.args.get("tokenize", "13a"))

    def count(answer: str, targets: Sequence[str]) -> Counts:
        found = bleu.corpus_score([answer], [[target] for target in targets])
        return found.sys_len, found.ref_len, *found.counts, *found.totals

    return count


_Ngrams = Sequence[Counter[Hashable]]
"""By length."""


def _chrf(ngrams: Callable[[str], _Ngrams]) -> Callable[[Metric], Count]:
    """Of several references the one that the answer is most like, as in sacrebleu."""

    def count(answer: str, targets: Sequence[str]) -> Counts:
        said = ngrams(answer)
        return max((_shared(said, ngrams(target)) for target in targets), key=corpus.chrf)

    return lambda _metric: count


def _counted(items: Sequence[Hashable], longest: int) -> _Ngrams:
    lengths = range(1, longest + 1)
    return [Counter(items[i : i + n] for i in range(len(items) - n + 1)) for n in lengths]


def _of_characters(text: str) -> _Ngrams:
    """White space does not count."""
    return _counted("".join(text.split()), corpus.CHRF_ORDER)


def _of_characters_and_words(text: str) -> _Ngrams:
    words = tuple(part for word in text.split() for part in _without_mark(word))
    return [*_of_characters(text), *_counted(words, corpus.CHRF_WORD_ORDER)]


def _without_mark(word: str) -> tuple[str, ...]:
    """A mark at the end, else one at the beginning, is a word of its own."""
    if len(word) == 1:
        return (word,)
    if word[-1] in string.punctuation:
        return word[:-1], word[-1]
    return (word[0], word[1:]) if word[0] in string.punctuation else (word,)


def _ter(_metric: Metric) -> Count:
    ter = library("sacrebleu.metrics").TER()

    def count(answer: str, targets: Sequence[str]) -> Counts:
        found = ter.corpus_score([answer], [[target] for target in targets])
        return found.num_edits, round(found.ref_length * corpus.TER_UNIT)

    return count


def _shared(said: _Ngrams, wanted: _Ngrams) -> Counts:
    # An order that the reference does not have counts for nobody.
    answers = [s.total() if w else 0 for s, w in zip(said, wanted, strict=True)]
    both = [(s & w).total() for s, w in zip(said, wanted, strict=True)]
    return *answers, *(w.total() for w in wanted), *both


def _sentence_bleu(metric: Metric) -> Compare:
    bleu = library("sacrebleu.metrics").BLEU(
        tokenize=metric.args.get("tokenize", "13a"), effective_order=True
    )
    return lambda value, targets: Verdict(bleu.sentence_score(as_text(value), list(targets)).score / 100)


def _sentence_chrf(_metric: Metric) -> Compare:
    chrf = library("sacrebleu.metrics").CHRF()
    return lambda value, targets: Verdict(chrf.sentence_score(as_text(value), list(targets)).score / 100)


class _Characters:
    """The tokenizer that rouge-score calls: its own drops everything but Latin letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        return [c for c in text.lower() if c.isalnum()]


def _rouge(kind: str) -> Callable[[Metric], Compare]:
    def prepare(metric: Metric) -> Compare:
        scorer = library("rouge_score.rouge_scorer").RougeScorer(
            [kind],
            use_stemmer=metric.args.get("stemmer") == "true",
            tokenizer=_Characters() if metric.args.get("tokenize") == "characters" else None,
        )
        return best_of(lambda value, target: scorer.score(target, as_text(value))[kind].fmeasure)

    return prepare


def _edit_similarity(_metric: Metric) -> Compare:
    ratio = library("rapidfuzz.fuzz").ratio
    return best_of(lambda value, target: ratio(as_text(value), target) / 100)


def _references_found(value: Json, targets: Sequence[str]) -> Verdict:
    text = as_text(value).lower()
    return Verdict(sum(target.lower() in text for target in targets) / len(targets))


METRICS: Mapping[str, Definition] = {
    "token_f1": Definition(_token_f1),
    "bleu": Definition(count=_bleu),
    "chrf": Definition(count=_chrf(_of_characters)),
    "chrf_pp": Definition(count=_chrf(_of_characters_and_words)),
    "ter": Definition(count=_ter, higher_is_better=False),
    "sentence_bleu": Definition(_sentence_bleu),
    "sentence_chrf": Definition(_sentence_chrf),
    **{kind: Definition(_rouge(kind)) for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")},
    # The share of equal letters in two texts, twice the longest common subsequence over both lengths.
    "edit_similarity": Definition(_edit_similarity),
    # The share of all references that stand in the answer, without regard to case (RULER's string match).
    "references_found": Definition(lambda _metric: _references_found),
}
