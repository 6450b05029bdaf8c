"""Metrics of libraries, and the process that compares mathematics."""

import random
import sys
import time

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from evaljob.corpus import CORPORA, added
from evaljob.metrics import KINDS
from evaljob.scoring import Metric
from evaljob_runner.metrics import REGISTRY, instructions, mathematics
from evaljob_runner.metrics.base import Compare
from tests.unit.test_runner_metrics import ifeval, verdict


@pytest.mark.parametrize(
    ("name", "answer", "target", "value"),
    [
        # BLEU by hand: 6 of 6 words, 4 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples.
        ("sentence_bleu", "the cat sat on a mat", "the cat sat on a mat", 1),
        ("sentence_bleu", "a b c d e f", "a b c d x f", (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25),
        ("sentence_chrf", "same", "same", 1),
        ("rouge1", "the cat sat", "the cat sat down", 2 * 3 / 7),
        ("rouge2", "the cat sat", "the cat sat down", 2 * 2 / 5),
        ("rougeL", "cat the sat", "the cat sat", 2 / 3),
        ("rougeLsum", "b\na", "a\nb", 1),
        ("edit_similarity", "abcd", "abxd", 2 * 3 / 8),
    ],
)
def test_overlap_is_what_the_definition_says(name: str, answer: str, target: str, value: float) -> None:
    assert verdict(name, answer, target).value == pytest.approx(value)


def test_rouge_of_a_language_without_spaces_counts_characters() -> None:
    assert verdict("rougeL", "北京市", "北京", tokenize="characters").value == pytest.approx(4 / 5)
    assert verdict("rougeL", "北京市", "北京").value == 0


def test_the_best_of_several_references_counts() -> None:
    assert verdict("rouge1", "a b", "x", "a b").value == 1


@pytest.fixture(scope="module")
def equal() -> Compare:
    return mathematics.METRICS["math_equal"].compare(Metric(name="math_equal"))  # type: ignore[misc]


@pytest.fixture(scope="module")
def bare() -> Compare:
    return mathematics.METRICS["math_equal"].compare(Metric(name="math_equal", extract="x"))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("so we get \\boxed{0.5}.", "\\frac{1}{2}", 1),
        ("it is $1+x^2$", "x^2+1", 1),
        ("\\boxed{(1, 2)}", "(1,2)", 1),
        ("The answer is 72.", "72", 1),
        ("The answer is 73.", "72", 0),
        ("I do not know.", "72", 0),
    ],
)
def test_mathematics_is_compared_by_meaning(equal: Compare, answer: str, gold: str, value: float) -> None:
    assert equal(answer, [gold]) == (value, None)


def test_an_extracted_answer_is_bare_latex(bare: Compare) -> None:
    assert bare("11\\sqrt2", ["11\\sqrt{2}"]).value == 1
    assert bare("11", ["11\\sqrt{2}"]).value == 0
    assert bare("\\frac12", ["3", "0.5"]).value == 1


def test_a_comparison_that_hangs_is_ended_and_the_next_one_works() -> None:
    """A child that answers its first line and sleeps on "hang"."""
    child = (
        "import json, sys, time\n"
        "for line in sys.stdin:\n"
        "    gold, answer = json.loads(line)\n"
        "    time.sleep(60 if answer == 'hang' else 0)\n"
        "    print(json.dumps(gold == answer), flush=True)\n"
    )
    verifier = mathematics.Verifier(limit=0.5, command=(sys.executable, "-c", child))
    assert verifier.equal("1", "1").value == 1
    before = time.monotonic()
    value, explanation = verifier.equal("1", "hang")
    assert (value, explanation) == (0, "the comparison was ended after 0.5 seconds, or crashed")
    assert verifier.equal("1", "1").value == 1
    assert time.monotonic() - before < 20


def test_a_child_that_dies_is_no_answer_but_a_wrong_one_and_is_started_again() -> None:
    child = "import sys\nfor line in sys.stdin:\n    'die' in line and sys.exit(1)\n    print('true', flush=True)\n"
    verifier = mathematics.Verifier(command=(sys.executable, "-c", child))
    assert verifier.equal("1", "die").value == 0
    assert verifier.equal("1", "1").value == 1


RIGHT_AND_WRONG = [
    ("keywords:existence", {"keywords": ["apple", "pear"]}, "Apple and pear", "apple"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a A", "a"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "a Cat"),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 2, "let_relation": "less than"},
        "e",
        "ee",
    ),
    (
        "language:response_language",
        {"language": "de"},
        "Das ist ein ganzer Satz.",
        "This is a whole sentence.",
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "Dr. Smith went home. He slept.",
        "One. Two. Three.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n***\n***\ntwo"),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        "one, two three",
        "one two",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "first\n\n'then, second",
        "first\n\nsecond",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] and [address]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\nP.S. one more", "Bye"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye\np. p. s one more", "P.S. no"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi!"),
    ("startend:end_checker", {"end_phrase": "The end."}, 'It is. the end."', "It is."),
    ("startend:quotation", {}, '"quoted"', 'not "quoted"'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "The USA and NATO.",
        "The USA.",
    ),
    (
        "change_case:english_capital",
        {},
        "THE PEOPLE OF THE CITY WERE NOT THERE WHEN WE CAME",
        "The people were there",
    ),
    ("change_case:english_lowercase", {}, "this is an english sentence", "Das ist ein ganzer deutscher Satz"),
    ("punctuation:no_comma", {}, "one two", "one, two"),
]


@pytest.mark.parametrize(("name", "options", "right", "wrong"), RIGHT_AND_WRONG)
def test_an_instruction_tells_right_from_wrong(
    name: str, options: dict[str, object], right: str, wrong: str
) -> None:
    target = ifeval(name, **options)
    assert instructions.problem(target) is None
    assert verdict("ifeval_prompt_strict", right, target).value == 1
    assert verdict("ifeval_prompt_strict", wrong, target).value == 0


def test_every_instruction_of_the_paper_is_tested() -> None:
    assert {name for name, *_ in RIGHT_AND_WRONG} == instructions.CHECKS.keys()
    assert len(instructions.CHECKS) == 25


def test_the_loose_score_forgives_an_introduction_and_asterisks() -> None:
    target = ifeval("startend:quotation", "punctuation:no_comma")
    answer = 'Sure, here it is:\n*"quoted"*'
    assert [verdict(f"ifeval_prompt_{kind}", answer, target).value for kind in ("strict", "loose")] == [0, 1]
    assert [verdict(f"ifeval_instruction_{kind}", answer, target).value for kind in ("strict", "loose")] == [
        0,
        1,
    ]


def test_instructions_are_weighed_one_by_one() -> None:
    target = ifeval("startend:quotation", "punctuation:no_comma")
    assert verdict("ifeval_instruction_strict", "one two", target).value == 0.5
    weight = REGISTRY["ifeval_instruction_strict"].weight
    assert weight is not None
    assert weight(target) == 2


@pytest.mark.parametrize(
    ("name", "references"),
    [("bleu", 1), ("bleu", 3), ("chrf", 1), ("chrf", 3), ("chrf_pp", 1), ("chrf_pp", 3), ("ter", 1)],
)
def test_the_counts_of_samples_make_sacrebleus_score_of_the_corpus(name: str, references: int) -> None:
    """40 answers of random words, some empty, some short, against one or three references."""
    draw = random.Random(references)  # noqa: S311 - no secret
    words = ["the", "cat", "sat", "on", "a", "mat", "today,", "ist", "北京", "5.4", "don't", "(so)", "?!"]

    def text(shortest: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(shortest, 12)))

    answers = [text(0) for _ in range(40)]
    wanted = [[text(1) for _ in range(references)] for _ in answers]
    count = REGISTRY[name].count
    assert count is not None
    counts: tuple[int, ...] = ()
    for answer, targets in zip(answers, wanted, strict=True):
        counts = added(counts, count(Metric(name=name))(answer, targets))
    corpus = CORPORA[KINDS[name].aggregation]
    library = {"bleu": BLEU(), "chrf": CHRF(), "chrf_pp": CHRF(word_order=2), "ter": TER()}[name]
    expected = library.corpus_score(answers, [list(stream) for stream in zip(*wanted, strict=True)]).score
    assert corpus.possible(counts)
    assert corpus.score(counts) == pytest.approx(expected, rel=1e-12)
