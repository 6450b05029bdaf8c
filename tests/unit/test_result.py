"""Reports survive their channel whole, or say that they did not."""

import base64
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.corpus import CORPORA, TER_UNIT
from evaljob.framing import (
    DECODED_MAX,
    ENCODED_MAX,
    PLAIN_MAX,
    InvalidResultError,
    Size,
    TooLargeError,
    decode,
    encode,
    size,
)
from evaljob.plan import Partition
from evaljob.result import (
    Failure,
    Lint,
    MetricInfo,
    Outcomes,
    PartitionResult,
    Seconds,
    SubsetResult,
    Tokens,
    failure,
)
from evaljob.sizing import worst_case
from evaljob.stats import Aggregation, Clusters, LabelCount, Stat, accumulate
from tests.unit.builders import BINARY, scored

PARTITION = Partition(model="qwen2-72b", dataset="mmlu", shard=0, shards=2)
ACC_NORM = MetricInfo(key="acc_norm")
PERPLEXITY = MetricInfo(key="perplexity", higher_is_better=False, binary=False)
LEVELS = ("high_school", "college", "professional")
FIELDS = ("history", "physics", "medicine", "law", "biology", "chemistry", "psychology")
SUBJECTS = [f"{a}_{b}_{c}" for a in LEVELS for b in ("european", "us", "world") for c in FIELDS][:57]


def frame(kind: str, payload: str) -> str:
    """As documented: what other programs would write."""
    return f"evaljob/1 {kind} {len(payload)} {zlib.crc32(payload.encode()):08x} {payload}"


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@st.composite
def stats_of(draw: st.DrawFn, n: int, metric: MetricInfo, clustered: bool) -> Stat:
    scores = st.integers(0, 1) if metric.binary else st.integers(-(10**14), 10**14)
    drawn = draw(st.lists(scores, min_size=n, max_size=n))
    return accumulate((s, str(i // 2) if clustered else None) for i, s in enumerate(drawn))


@st.composite
def results(draw: st.DrawFn) -> PartitionResult:
    metrics = draw(st.sampled_from([(BINARY,), (BINARY, ACC_NORM), (BINARY, PERPLEXITY)]))
    clustered = draw(st.booleans())
    subsets = [
        SubsetResult(
            name=name,
            size=n + draw(st.integers(0, 10**6)),
            expected=n,
            stats=tuple(draw(stats_of(n, m, clustered)) for m in metrics),
        )
        for name, n in draw(st.dictionaries(names, st.integers(0, 6), min_size=1, max_size=12)).items()
    ]
    return scored(
        PARTITION,
        *subsets,
        metrics=metrics,
        limited=draw(st.booleans()),
        lint=tuple(Lint(code=c, count=2) for c in draw(st.sets(st.sampled_from(["NoAnswer", "DoubledBos"])))),
        tokens=Tokens(prompt=draw(st.integers(0, 10**12))),
        seconds=Seconds(load=draw(st.floats(0, 1e9))),
        provenance=draw(st.dictionaries(names, names, max_size=3)),
        samples=draw(st.none() | names),
    )


@given(results())
def test_a_result_comes_back_as_it_went(report: PartitionResult) -> None:
    text = encode(report)
    assert text.isascii()
    assert len(text) <= ENCODED_MAX
    assert decode(text) == report
    assert decode(f"  {text}\n") == report


@given(st.text(max_size=1500), st.none() | st.uuids().map(str))
def test_a_failure_always_fits_and_comes_back(message: str, attempt: str | None) -> None:
    report = failure("BadData", message, attempt)
    text = encode(report)
    assert len(text.encode()) <= ENCODED_MAX
    assert decode(text) == report


@pytest.mark.parametrize("char", ["x", '"', "\\", "é", "漢", "😀", "\x00", "\udcff", "\n"])
def test_a_long_message_is_cut_where_it_fits(char: str) -> None:
    report = failure("BadData", char * 5000)
    assert report.message.endswith("…")
    assert len(report.message) > 80
    assert len(encode(report)) <= ENCODED_MAX


def test_messages_hold_nothing_that_a_terminal_obeys() -> None:
    assert failure("BadData", "a\x1b[2Jb\x07\nc").message == "a [2Jb \nc"
    said = frame("f", json.dumps({"reason": "BadData", "message": "\x1b[2J"}))
    assert decode(said) == Failure(reason="BadData", message=" [2J")


def test_small_results_can_be_read_by_people() -> None:
    text = encode(scored(PARTITION))
    assert text.startswith("evaljob/1 j ")
    assert json.loads(text.split(" ", 4)[4])["outcomes"]["expected"] == 4


def mmlu(rng: random.Random, *, subjects: int = 57, samples: int = 246) -> PartitionResult:
    def subset(name: str) -> SubsetResult:
        n = rng.randint(samples // 2, samples)
        right = [rng.randint(n // 2, n) for _ in range(2)]
        return SubsetResult(name=name, size=n, expected=n, stats=tuple(Stat(n, r, r) for r in right))

    return scored(
        PARTITION,
        *(subset(SUBJECTS[i % len(SUBJECTS)] + str(i)) for i in range(subjects)),
        metrics=(BINARY, ACC_NORM),
        attempt="0b5f1d9e-2f6c-4c57-9a5e-6d1f0f6b7a11",
        provenance={name: f"{rng.getrandbits(256):064x}" for name in ("weights", "data")}
        | {"torch": "2.13.0"},
        seconds=Seconds(start=5.123, load=60.456, infer=812.789, score=1.234),
        samples="nightly/qwen2-72b-mmlu-0",
    )


def test_mmlu_with_two_metrics_fits() -> None:
    report = mmlu(random.Random(1))  # noqa: S311 - scores of a test
    size = len(encode(report))
    assert PLAIN_MAX < size < 3000
    assert decode(encode(report)) == report


def counts_of(report: PartitionResult) -> dict[str, tuple[int, int]]:
    return {s.name: (s.size, s.expected) for s in report.subsets}


@pytest.mark.parametrize("subjects", [1, 5, 57, 100])
@pytest.mark.parametrize("samples", [4, 246, 50_000])
def test_the_worst_case_is_a_bound_and_no_fantasy(subjects: int, samples: int) -> None:
    worst = 0
    for seed in range(3):
        report = mmlu(random.Random(seed), subjects=subjects, samples=samples)  # noqa: S311 - scores of a test
        bound = worst_case(partition=PARTITION, metrics=report.metrics, subsets=counts_of(report))
        payload = json.dumps(report.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        packed = len(base64.b85encode(zlib.compress(payload.encode(), 9)))
        assert packed + 40 <= bound.framed
        assert size(report).plain <= bound.plain
        worst = max(worst, packed)
    assert bound.framed < worst * 1.4 + 900


@given(results())
def test_every_result_stays_below_its_worst_case(report: PartitionResult) -> None:
    bound = worst_case(
        partition=PARTITION,
        metrics=report.metrics,
        subsets=counts_of(report),
        clustered=any(x.clusters for s in report.subsets for x in s.stats),
    )
    plain = report.model_copy(update={"provenance": {}, "samples": None})
    text = json.dumps(plain.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    if PERPLEXITY not in report.metrics:
        assert len(base64.b85encode(zlib.compress(text.encode(), 9))) + 40 <= bound.framed


def test_the_worst_case_of_mmlu_fits() -> None:
    report = mmlu(random.Random(1))  # noqa: S311 - scores of a test
    bound = worst_case(partition=PARTITION, metrics=report.metrics, subsets=counts_of(report))
    assert bound.problem is None


LABELS = [f"l{i}" for i in range(20)]
MACRO_F1 = BINARY.model_copy(update={"aggregation": Aggregation.MACRO_F1})


def test_a_small_result_that_no_reader_takes_is_refused_from_the_start() -> None:
    """Counts of zero compress to almost nothing: a shard may hold samples of one subset only."""

    def counted(name: str, n: int) -> SubsetResult:
        labels = dict.fromkeys(LABELS, LabelCount(0, 0, 0)) | {LABELS[0]: LabelCount(n, n, n)}
        stats = (Stat(n, n, n),)
        return SubsetResult(name=name, size=9, expected=n, stats=stats, labels={MACRO_F1.key: labels})

    def report(subsets: int) -> PartitionResult:
        return scored(PARTITION, *(counted(str(i), 4 * (not i)) for i in range(subsets)), metrics=(MACRO_F1,))

    def bound(subsets: int) -> Size:
        labels = {MACRO_F1.key: LABELS}
        counts = counts_of(report(subsets))
        return worst_case(partition=PARTITION, metrics=(MACRO_F1,), subsets=counts, labels=labels)

    assert bound(120).problem is None
    assert decode(encode(report(120))) == report(120)
    assert bound(200).framed < ENCODED_MAX
    assert "as JSON, its readers take 65536" in str(bound(200).problem)
    with pytest.raises(TooLargeError, match=r"200 subsets x 1 metrics takes \d+ bytes as JSON"):
        encode(report(200))


def test_the_worst_case_of_any_number_of_subsets_has_an_answer() -> None:
    subsets = {str(i): (9, 9) for i in range(20_000)}
    assert worst_case(partition=PARTITION, metrics=(BINARY,), subsets=subsets).problem


CORPUS = [a for a in Aggregation if a in CORPORA]


@pytest.mark.parametrize("aggregation", CORPUS)
@pytest.mark.parametrize("samples", [3000, 10**10])
def test_the_worst_case_of_a_score_of_the_corpus_has_an_answer(
    aggregation: Aggregation, samples: int
) -> None:
    metric = BINARY.model_copy(update={"binary": False, "aggregation": aggregation})
    bound = worst_case(partition=PARTITION, metrics=(metric,), subsets={"": (samples, samples)})
    assert bound.problem is None


def test_the_words_of_a_large_shard_come_back_as_they_went() -> None:
    metric = BINARY.model_copy(update={"binary": False, "aggregation": Aggregation.CORPUS_TER})
    words = 10**8 * TER_UNIT
    counted = SubsetResult(
        name="", size=4, expected=4, stats=(Stat(4, 0, 0),), ngrams={metric.key: (7, words)}
    )
    report = scored(PARTITION, counted, metrics=(metric,))
    assert decode(encode(report)) == report


def test_too_large_says_what_to_change() -> None:
    report = mmlu(random.Random(1), subjects=500)  # noqa: S311 - scores of a test
    with pytest.raises(TooLargeError, match=r"500 subsets x 2 metrics takes \d+ bytes, .* 4096: use fewer"):
        encode(report)


GOOD = encode(scored(PARTITION))
PACKED = encode(mmlu(random.Random(1)))  # noqa: S311 - scores of a test


def framed(body: Any, kind: str = "j") -> str:  # noqa: ANN401 - JSON
    return frame(kind, json.dumps(body))


def broken(**changes: Any) -> str:  # noqa: ANN401 - JSON
    return framed(scored(PARTITION).model_dump(mode="json", by_alias=True) | changes)


def packed(data: bytes) -> str:
    return frame("z", base64.b85encode(zlib.compress(data)).decode())


@given(st.binary(max_size=500).map(lambda b: b.decode("latin1")) | st.text(max_size=500))
def test_any_other_text_is_an_invalid_result(text: str) -> None:
    for candidate in (
        text,
        f"evaljob/1 j {len(text)} {zlib.crc32(text.encode(errors='replace')):08x} {text}",
    ):
        with pytest.raises(InvalidResultError):
            decode(candidate)


@given(st.sampled_from([GOOD, PACKED]), st.integers(0, 10**6), st.characters())
def test_a_cut_or_an_edit_is_noticed(text: str, at: int, char: str) -> None:
    at %= len(text)
    edits = [text[at + 1 :], text[:at], text[:at] + char + text[at + 1 :]]
    for edited in edits:
        if edited.strip() != text:
            with pytest.raises(InvalidResultError):
                decode(edited)


STAT = [4, 3, 3, None]
SUBSET = {"name": "", "size": 4, "expected": 4, "stats": [STAT]}
METRIC = {"key": "acc", "primary": True, "binary": False}


def subset(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"subsets": [SUBSET | changes]}


def stat(*numbers: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return subset(stats=[list(numbers)]) | {"metrics": [METRIC]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a report"),
        ("evaljob/2 j 2 00000000 {}", "not a report"),
        (packed(b"0" * (DECODED_MAX + 1)), "more than 65536 bytes"),
        (packed(b"0" * 10**8), "more than 65536 bytes"),
        (framed(["0" * DECODED_MAX]), "more than 65536 bytes"),
        (frame("z", "not base 85 \x7f"), "not decompressible"),
        (frame("z", base64.b85encode(b"no zlib").decode()), "not decompressible"),
        (frame("j", "[" * 20_000), "not a valid PartitionResult"),
        (frame("f", "[" * 20_000), "not a valid Failure"),
        (frame("j", "1" * 20_000), "not a valid PartitionResult"),
        (frame("f", '{"reason": "A", "message": "\\ud800"}'), "not a valid Failure"),
        (framed({"reason": "not a reason", "message": ""}, "f"), "not a valid Failure"),
        (framed({"reason": "A", "message": "x" * 1025}, "f"), "not a valid Failure"),
        (broken(unknown=1), "not a valid PartitionResult"),
        (frame("j", json.dumps({"seconds": {"load": float("nan")}})), "not a valid"),
        (broken(seconds={"load": 1e308}), "not a valid"),
        (broken(lint=[{"code": "not a code\n", "count": 1}]), "not a valid"),
        (broken(tokens={"prompt": 10**13}), "not a valid"),
        (broken(v=2), "version 2, this program reads 1"),
        (broken(outcomes={"expected": 5, "completed": 4, "answered": 4}), "completed 4 of 5"),
        (broken(repeats=2), "expected counts of subsets do not add up"),
        (broken(outcomes={"expected": 4, "completed": 4, "answered": 3}), "outcomes add up to 3, not to 4"),
        (broken(outcomes={"expected": 4, "completed": 4, "answered": 4, "infraError": 1}), "ended in an error"),
        (broken(metrics=[{"key": "acc"}]), "exactly one metric must be primary"),
        (broken(subsets=[SUBSET, SUBSET]), "a subset stands twice"),
        (broken(subsets=[]), "do not add up"),
        (broken(**subset(size=3)), "smaller than what was expected"),
        (broken(**subset(stats=[])), "lacks a metric"),
        (broken(**subset(stats=[[3, 3, 3, None]])), "scored fewer samples"),
        (broken(**subset(stats=[[4, 5, 5, None]])), "0/1 metric outside its range"),
        (broken(**subset(stats=[[4, 3, 2, None]])), "0/1 metric outside its range"),
        (broken(**stat(4, 10**200, 10**400, None)), "sums that no scores can have"),
        (broken(**stat(4, 4, 3, None)), "sums that no scores can have"),
        (broken(**stat(4, 0, -1, None)), "sums that no scores can have"),
        (broken(**stat(4, 4, 4, [2, 8, 9, 8])), "sums that no scores can have"),
        (broken(**stat(4, 4, 4, [0, 8, 8, 8])), "sums that no scores can have"),
        (broken(**stat(4, 4, 4, [2, -8, 8, 8])), "sums that no scores can have"),
        (broken(**stat(4, 4, 4, [2, 10**999, 8, 8])), "sums that no scores can have"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(InvalidResultError) as error:
        decode(text)
    assert words in str(error.value)
    assert len(str(error.value)) < 1100
    assert str(error.value).isprintable()


def test_clusters_in_some_subsets_only_are_refused() -> None:
    parts = (
        SubsetResult(name="a", size=1, expected=1, stats=(Stat(1, 1, 1),)),
        SubsetResult(name="b", size=1, expected=1, stats=(Stat(1, 1, 1, Clusters(1, 1, 1, 1)),)),
    )
    with pytest.raises(InvalidResultError, match="clusters in some subsets only"):
        decode(encode(scored(PARTITION, *parts)))


def test_an_empty_shard_is_a_result() -> None:
    report = scored(PARTITION, SubsetResult(name="", size=3, expected=0, stats=(Stat(0, 0, 0),)))
    assert decode(encode(report)) == report


def test_a_result_knows_its_partition() -> None:
    assert scored(PARTITION).partition == PARTITION


def test_outcomes_are_counts() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Outcomes(expected=-1, completed=0)
