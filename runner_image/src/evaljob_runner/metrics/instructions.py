"""IFEval: instructions that a program can verify.

Zhou et al. (2023), "Instruction-Following Evaluation for Large Language Models", arXiv 2311.07911: all 25
instructions, with the tools of the published code (langdetect, NLTK's words, Punkt's English sentences). An
instruction that is not in `CHECKS` is refused before the model loads. A target is JSON:
`{"instructions": [id, …], "kwargs": [{…}, …]}`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from evaljob.scoring import Metric
from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Compare, Definition, Verdict, as_text, library

Options = Mapping[str, Any]


class Language(Protocol):
    """What some instructions need to know about a text."""

    def of(self, text: str) -> str | None:
        """The ISO 639-1 code of its language; None where it cannot be told."""

    def sentences(self, text: str) -> Sequence[str]:
        """Its sentences, as English."""

    def words(self, sentence: str) -> Sequence[str]:
        """The words and signs of a sentence."""


class _Libraries:
    """The libraries of the paper's code, seeded so that equal texts give equal answers."""

    def __init__(self) -> None:
        self._langdetect = library("langdetect")
        self._langdetect.DetectorFactory.seed = 0
        punkt = library("punkt")
        self._sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
        self._words = library("nltk.tokenize").NLTKWordTokenizer()

    def of(self, text: str) -> str | None:
        try:
            return str(self._langdetect.detect(text))
        except self._langdetect.LangDetectException:
            return None

    def sentences(self, text: str) -> Sequence[str]:
        return list(self._sentences.tokenize(text))

    def words(self, sentence: str) -> Sequence[str]:
        return list(self._words.tokenize(sentence))


class Given(NamedTuple):
    """What a check sees."""

    text: str
    options: Options
    language: Language


def _compared(number: int, relation: str, bound: int) -> bool:
    return number < bound if relation == "less than" else number >= bound


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _keyword_frequency(g: Given) -> bool:
    number = len(re.findall(g.options["keyword"], g.text, re.IGNORECASE))
    return _compared(number, g.options["relation"], g.options["frequency"])


def _letter_frequency(g: Given) -> bool:
    number = g.text.lower().count(g.options["letter"].lower())
    return _compared(number, g.options["let_relation"], g.options["let_frequency"])


def _in_language(g: Given, code: str) -> bool:
    # A text without letters is in no language, and passes.
    return g.language.of(g.text) in (code, None)


def _number_paragraphs(g: Given) -> bool:
    """Paragraphs between `***`; nothing before the first and after the last mark is no paragraph."""
    first, *rest = re.split(r"\s?\*\*\*\s?", g.text)
    inner, last = rest[:-1], rest[-1:]
    if not all(part.strip() for part in inner):
        return False
    number = len(inner) + sum(bool(part.strip()) for part in (first, *last))
    return bool(number == g.options["num_paragraphs"])


def _nth_paragraph_first_word(g: Given) -> bool:
    """Paragraphs between blank lines; the n-th begins with a word."""
    parts = g.text.split("\n\n")
    number = sum(bool(part.strip()) for part in parts)
    n = g.options["nth_paragraph"]
    if n > number or not parts[n - 1].strip():
        return False
    word = parts[n - 1].split()[0].lstrip("'").lstrip('"')
    begin = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    return bool(number == g.options["num_paragraphs"] and begin == g.options["first_word"].lower())


def _postscript(g: Given) -> bool:
    marker = g.options["postscript_marker"]
    patterns = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    pattern = patterns.get(marker, r"\s*" + marker.lower() + r".*$")
    return re.search(pattern, g.text.lower(), re.MULTILINE) is not None


def _number_bullet_lists(g: Given) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", g.text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", g.text, re.MULTILINE)
    return bool(len(stars) + len(dashes) == g.options["num_bullets"])


def _number_highlighted_sections(g: Given) -> bool:
    single = [m for m in re.findall(r"\*[^\n\*]*\*", g.text) if m.strip("*").strip()]
    double = [m for m in re.findall(r"\*\*[^\n\*]*\*\*", g.text) if m[2:-2].strip()]
    return bool(len(single) + len(double) >= g.options["num_highlights"])


def _multiple_sections(g: Given) -> bool:
    parts = re.split(r"\s?" + g.options["section_spliter"] + r"\s?\d+\s?", g.text)
    return bool(len(parts) - 1 >= g.options["num_sections"])


def _json_format(g: Given) -> bool:
    text = g.text.strip()
    for mark in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(mark)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(g: Given) -> bool:
    return any(t.lstrip("<").rstrip(">").strip() for t in re.findall(r"<<[^\n]+>>", g.text))


def _two_responses(g: Given) -> bool:
    """Two different answers around `******`; only the outermost parts may be empty."""
    parts = g.text.split("******")
    if not all(part.strip() for part in parts[1:-1]):
        return False
    answers = [part.strip() for part in parts if part.strip()]
    return len(answers) == 2 and answers[0] != answers[1]


def _end(g: Given) -> bool:
    end: str = g.options["end_phrase"].strip().lower()
    return g.text.strip().strip('"').lower().endswith(end)


def _quotation(g: Given) -> bool:
    text = g.text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_word_frequency(g: Given) -> bool:
    words = [w for sentence in g.language.sentences(g.text) for w in g.language.words(sentence)]
    number = sum(word.isupper() for word in words)
    return _compared(number, g.options["capital_relation"], g.options["capital_frequency"])


_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
CHECKS: Mapping[str, Callable[[Given], bool]] = {
    "keywords:existence": lambda g: all(_found(k, g.text) for k in g.options["keywords"]),
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": lambda g: (
        not any(_found(rf"\b{word}\b", g.text) for word in g.options["forbidden_words"])
    ),
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": lambda g: _in_language(g, g.options["language"]),
    "length_constraints:number_sentences": lambda g: _compared(
        len(g.language.sentences(g.text)), g.options["relation"], g.options["num_sentences"]
    ),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": lambda g: _compared(
        len(re.findall(r"\w+", g.text)), g.options["relation"], g.options["num_words"]
    ),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": lambda g: (
        len(re.findall(r"\[.*?\]", g.text)) >= g.options["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": lambda g: any(a in g.text for a in _CONSTRAINED),
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda g: (
        g.text.strip().lower().startswith(g.options["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": lambda g: g.text.isupper() and _in_language(g, "en"),
    "change_case:english_lowercase": lambda g: g.text.islower() and _in_language(g, "en"),
    "punctuation:no_comma": lambda g: "," not in g.text,
}


def variants(text: str) -> Iterator[str]:
    """The texts of the loose score: without the first or last line, without asterisks (section 2.3)."""
    lines = text.split("\n")
    cut = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    for variant in (text, *cut):
        yield variant
        yield variant.replace("*", "")


def followed(text: str, target: str, language: Language, *, loose: bool) -> list[bool]:
    """Which instructions a text follows, in their order."""
    wanted = json.loads(target)
    texts = list(variants(text)) if loose else [text]
    return [
        any(
            CHECKS[name](Given(t, {k: v for k, v in options.items() if v is not None}, language))
            for t in texts
            if t.strip()
        )
        for name, options in zip(wanted["instructions"], wanted["kwargs"], strict=True)
    ]


class _NoLanguage:
    """Enough to run a check for its options only."""

    def of(self, _text: str) -> None:
        return None

    def sentences(self, _text: str) -> Sequence[str]:
        return ()

    def words(self, _sentence: str) -> Sequence[str]:
        return ()


def problem(target: str) -> str | None:
    """What is wrong with a target: its form, an instruction that cannot be verified, or one that lacks kwargs."""
    try:
        wanted = json.loads(target)
        names, options = wanted["instructions"], wanted["kwargs"]
        if not names or len(names) != len(options):
            return f"{len(names)} instructions with {len(options)} kwargs"
    except (ValueError, TypeError, KeyError) as error:
        return f'must be {{"instructions": [id, …], "kwargs": [{{…}}, …]}}: {error!r}'
    if unknown := sorted(set(names) - CHECKS.keys()):
        return f"unknown instructions {', '.join(unknown)}"
    try:
        followed("text", target, _NoLanguage(), loose=False)
    except (KeyError, TypeError, AttributeError, re.error) as error:
        return f"kwargs do not fit the instructions {', '.join(names)}: {error!r}"
    return None


def _count(target: str) -> int:
    return len(json.loads(target)["instructions"])


def _prepare(*, loose: bool, each: bool) -> Callable[[Metric], Compare]:
    def prepare(_metric: Metric) -> Compare:
        language = _Libraries()

        def compare(value: Json, targets: Sequence[str]) -> Verdict:
            found = followed(as_text(value), targets[0], language, loose=loose)
            return Verdict(sum(found) / len(found) if each else float(all(found)))

        return compare

    return prepare


METRICS: Mapping[str, Definition] = {
    "ifeval_prompt_strict": Definition(_prepare(loose=False, each=False), check=problem),
    "ifeval_prompt_loose": Definition(_prepare(loose=True, each=False), check=problem),
    "ifeval_instruction_strict": Definition(_prepare(loose=False, each=True), weight=_count, check=problem),
    "ifeval_instruction_loose": Definition(_prepare(loose=True, each=True), weight=_count, check=problem),
}
