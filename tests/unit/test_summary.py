"""What a team reads: whole, and never greener than it is."""

import csv
import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.corpus import chrf
from evaljob.framing import InvalidResultError, decode, encode
from evaljob.merge import summarize
from evaljob.plan import Partition, Plan
from evaljob.result import Failure, Lint, MetricInfo, Outcomes, PartitionResult, Seconds, SubsetResult, Tokens
from evaljob.stats import (
    EMPTY,
    UNIT_REAL,
    Aggregation,
    LabelCount,
    Stat,
    Weighted,
    accumulate,
    accumulate_weighted,
    estimate,
    wilson,
)
from evaljob.summary import Cell, CellState, Part, Summary
from evaljob.tables import files, table
from tests.unit import builders
from tests.unit.builders import TASK, dataset, evaljob, model, scored

GROUPS = [
    {"name": "americas", "members": ["north", "south"]},
    {"name": "world", "members": ["africa", "americas"]},
]
GROUPED: dict[str, Any] = {**TASK, "subsets": {"column": "continent"}, "groups": GROUPS}
# right of n, full size
COUNTS = {"africa": (6, 10, 10), "north": (1, 4, 4), "south": (3, 6, 6)}


def part(name: str, right: int, n: int, size: int) -> SubsetResult:
    return SubsetResult(name=name, size=size, expected=n, stats=(Stat(n, right, right),))


def grouped(
    counts: dict[str, tuple[int, int, int]],
    groups: list[dict[str, Any]] | None = None,
    **more: Any,  # noqa: ANN401
) -> Cell:
    """The cell of one model on one dataset with groups."""
    task = {**GROUPED, "groups": groups or GROUPS}
    plan = builders.plan(evaljob(datasets=[dataset(task=task)]))
    result = scored(plan.partitions[0], *(part(k, *v) for k, v in counts.items()), **more)
    return summarize(plan, {plan.partitions[0]: result}, state="Complete").cells[0]


def the(cell: Cell, kind: str, name: str) -> Part:
    return next(p for p in cell.parts if (p.kind, p.name) == (kind, name))


def value(cell: Cell, kind: str, name: str) -> float | None:
    return the(cell, kind, name).scores[0].value


def sharded(*outcomes: PartitionResult | Failure | None, **more: Any) -> tuple[Plan, Summary]:  # noqa: ANN401
    plan = builders.plan(evaljob(datasets=[dataset(shards=len(outcomes), **more)]))
    known = {p: o for p, o in zip(plan.partitions, outcomes, strict=True) if o is not None}
    return plan, summarize(plan, known, state="Running")


def shard(k: int, of: int, **more: Any) -> PartitionResult:  # noqa: ANN401
    return scored(Partition(model="m", dataset="d", shard=k, shards=of), **more)


def markdown(summary: Summary) -> str:
    return files(summary)["summary.md"]


def text_of(summary: Summary) -> str:
    return table(summary).rows[0][1]


class TestCell:
    def test_all_shards_make_one_number(self) -> None:
        _, summary = sharded(shard(0, 2), shard(1, 2))
        cell = summary.cells[0]
        score = cell.parts[0].scores[0]
        assert (cell.state, cell.shards, cell.shards_done) == (CellState.COMPLETE, 2, 2)
        assert (score.value, score.n, score.expected) == (0.75, 8, 8)
        assert (score.low, score.high) == wilson(6, 8)

    def test_a_missing_shard_makes_it_partial_without_a_number(self) -> None:
        _, summary = sharded(shard(0, 2), None)
        assert (summary.cells[0].state, summary.cells[0].parts) == (CellState.PARTIAL, ())
        assert text_of(summary) == "partial 1/2"

    def test_a_failed_shard_says_why(self) -> None:
        _, summary = sharded(shard(0, 2), Failure(reason="OOMKilled", message="4Gi"))
        assert text_of(summary) == "partial 1/2 (OOMKilled)"
        assert "- m / d: OOMKilled: 4Gi" in markdown(summary)

    def test_without_any_result_it_is_missing(self) -> None:
        _, summary = sharded(Failure(reason="OOMKilled"))
        assert (summary.cells[0].state, text_of(summary)) == (CellState.MISSING, "missing (OOMKilled)")

    def test_without_any_outcome_it_is_pending(self) -> None:
        assert text_of(sharded(None)[1]) == "pending"

    def test_an_excluded_pair_is_named_so(self) -> None:
        exclude = [{"model": "m", "dataset": "x"}]
        plan = builders.plan(evaljob([model("m")], [dataset("x"), dataset("d")], exclude=exclude))
        summary = summarize(plan, {}, state="Running")
        assert summary.cells[0].state is CellState.EXCLUDED
        assert text_of(summary) == "excluded"
        assert [r["dataset"] for r in rows(summary)] == ["d"]

    @pytest.mark.parametrize(
        "change",
        [
            {"inference_digest": "other"},
            {"metrics": (MetricInfo(key="acc", primary=True),)},
            {"subsets": (part("", 3, 4, 99),)},
            {"subsets": (SubsetResult(name="", size=4, expected=4, stats=(accumulate([(1, "a")] * 4),)),)},
        ],
        ids=["model, data or parameters", "metrics", "sizes", "clusters"],
    )
    def test_shards_that_disagree_give_no_number(self, change: dict[str, Any]) -> None:
        other = shard(1, 2).model_copy(update=change)
        plan, summary = sharded(shard(0, 2), other)
        assert text_of(summary) == "missing (ShardsDisagree)"
        done = summarize(
            plan, dict(zip(plan.partitions, (shard(0, 2), other), strict=True)), state="Complete"
        )
        assert done.state == "Failed"

    def test_an_empty_shard_changes_nothing(self) -> None:
        empty = shard(1, 2).model_copy(
            update={"subsets": (part("", 0, 0, 4),), "outcomes": Outcomes(expected=0, completed=0)}
        )
        _, summary = sharded(shard(0, 2), empty)
        assert summary.cells[0].parts[0].scores[0].n == 4

    def test_counts_tokens_and_times_add_up(self) -> None:
        more = {
            "tokens": Tokens(prompt=5, output=2),
            "seconds": Seconds(load=1.5),
            "lint": (Lint(code="DoubledBos", count=1),),
        }
        cell = sharded(shard(0, 2, **more), shard(1, 2, **more))[1].cells[0]
        assert cell.tokens == Tokens(prompt=10, output=4)
        assert cell.seconds == Seconds(load=3.0)
        assert cell.lint == (Lint(code="DoubledBos", count=2),)
        assert cell.outcomes is not None
        assert cell.outcomes.answered == 8

    def test_a_dataset_whose_samples_are_all_in_empty_subsets_has_no_value(self) -> None:
        cell = grouped({"africa": (0, 0, 0)})
        assert cell.parts[0].scores[0].value is None


@pytest.mark.parametrize("shards", [1, 2, 7, 64])
def test_any_number_of_shards_gives_the_same_numbers(shards: int) -> None:
    """To the last bit, with subsets, a real metric and an interval."""
    scores = [(i * 7919 * 10**9) % (UNIT_REAL + 1) for i in range(130)]
    metric = MetricInfo(key="exact_match", primary=True, binary=False)

    def piece(k: int) -> PartitionResult:
        mine = scores[130 * k // shards : 130 * (k + 1) // shards]
        stat = accumulate((s, None) for s in mine)
        subset = SubsetResult(name="", size=130, expected=len(mine), stats=(stat,))
        return shard(k, shards).model_copy(update={"subsets": (subset,), "metrics": (metric,)})

    score = sharded(*map(piece, range(shards)))[1].cells[0].parts[0].scores[0]
    assert (score.value, score.stderr, score.low, score.high) == estimate(
        accumulate((s, None) for s in scores), UNIT_REAL
    )


class TestGroups:
    def test_by_size_pools_the_samples(self) -> None:
        cell = grouped(COUNTS)
        assert value(cell, "group", "americas") == 4 / 10
        assert value(cell, "group", "world") == value(cell, "dataset", "d") == 10 / 20
        assert (
            the(cell, "group", "world").scores[0].low,
            the(cell, "group", "world").scores[0].high,
        ) == wilson(10, 20)

    def test_equal_weighs_members_alike(self) -> None:
        groups = [{**GROUPS[0], "weighting": "Equal"}, {**GROUPS[1], "weighting": "Equal"}]
        cell = grouped(COUNTS, groups)
        assert value(cell, "group", "americas") == pytest.approx((1 / 4 + 3 / 6) / 2)
        assert value(cell, "group", "world") == pytest.approx((6 / 10 + (1 / 4 + 3 / 6) / 2) / 2)

    def test_own_weights_count_by_their_ratios(self) -> None:
        """Members of any kind, each with the error of its share."""
        weights = {"africa": 30, "americas": 10}
        cell = grouped(COUNTS, [GROUPS[0], {**GROUPS[1], "weighting": "Weights", "weights": weights}])
        world = the(cell, "group", "world").scores[0]
        assert world.value == pytest.approx(0.75 * 6 / 10 + 0.25 * 4 / 10)
        errors = [the(cell, *p).scores[0].stderr or 0 for p in (("subset", "africa"), ("group", "americas"))]
        assert world.stderr == pytest.approx(math.hypot(0.75 * errors[0], 0.25 * errors[1]))

    def test_by_size_over_equal_weighs_by_the_groups_size(self) -> None:
        cell = grouped(COUNTS, [{**GROUPS[0], "weighting": "Equal"}, GROUPS[1]])
        assert value(cell, "group", "world") == pytest.approx((6 / 10 * 10 + (1 / 4 + 3 / 6) / 2 * 10) / 20)

    def test_with_a_limit_full_sizes_weigh(self) -> None:
        """Two samples of each: a small subset must not count as much as a large one."""
        cell = grouped({"africa": (2, 2, 600), "north": (1, 2, 300), "south": (0, 2, 100)}, limited=True)
        assert value(cell, "group", "americas") == pytest.approx((0.5 * 300 + 0 * 100) / 400)
        assert value(cell, "group", "world") == pytest.approx((1 * 600 + 0.5 * 300) / 1000)
        assert value(cell, "dataset", "d") == pytest.approx((1 * 600 + 0.5 * 300) / 1000)

    def test_equal_with_a_limit(self) -> None:
        groups = [{**GROUPS[0], "weighting": "Equal"}]
        cell = grouped({"north": (1, 2, 300), "south": (0, 2, 100)}, groups, limited=True)
        assert value(cell, "group", "americas") == pytest.approx(0.25)

    def test_the_error_of_a_weighted_group_is_that_of_independent_strata(self) -> None:
        cell = grouped({"north": (1, 4, 300), "south": (2, 4, 100)}, [GROUPS[0]], limited=True)
        errors = [math.sqrt(p * (1 - p) / 3) for p in (0.25, 0.5)]
        assert the(cell, "group", "americas").scores[0].stderr == pytest.approx(
            math.sqrt((0.75 * errors[0]) ** 2 + (0.25 * errors[1]) ** 2)
        )

    def test_an_incomplete_group_has_no_value_and_says_how_much_is_there(self) -> None:
        cell = grouped({"africa": (6, 10, 10), "north": (1, 4, 4)})
        americas, world = the(cell, "group", "americas"), the(cell, "group", "world")
        assert (americas.scores[0].value, americas.present, americas.members) == (None, 1, 2)
        assert (world.scores[0].value, world.present, world.members) == (None, 2, 3)
        assert value(cell, "dataset", "d") == 7 / 14

    def test_a_group_named_like_a_subset_does_not_hide_it(self) -> None:
        cell = grouped(COUNTS, [{"name": "africa", "members": ["north", "south"]}])
        assert (value(cell, "group", "africa"), value(cell, "subset", "africa")) == (4 / 10, 6 / 10)

    def test_groups_come_outermost_first_and_indented(self) -> None:
        assert [(p.kind, p.name, p.depth) for p in grouped(COUNTS).parts] == [
            ("dataset", "d", 0),
            ("group", "world", 1),
            ("group", "americas", 2),
            ("subset", "africa", 1),
            ("subset", "north", 1),
            ("subset", "south", 1),
        ]

    def test_more_subsets_than_a_group_may_have_members(self) -> None:
        counts = {f"s{i}": (1, 1, 1) for i in range(300)}
        assert value(grouped(counts), "dataset", "d") == 1.0


class TestTable:
    PLAN = builders.plan(
        evaljob([model("a", displayName="A 1"), model("b")], [dataset(task=GROUPED, displayName="Geo")])
    )

    def shown(self, *outcomes: PartitionResult | Failure, state: str = "Complete") -> Summary:
        return summarize(self.PLAN, dict(zip(self.PLAN.partitions, outcomes, strict=False)), state=state)

    def result(self, k: int, **more: Any) -> PartitionResult:  # noqa: ANN401
        return scored(self.PLAN.partitions[k], *(part(n, *c) for n, c in COUNTS.items()), **more)

    def test_datasets_are_rows_and_models_columns(self) -> None:
        shown = table(self.shown(self.result(0), self.result(1)))
        assert shown.header == ["dataset (metric)", "A 1", "b"]
        assert shown.rows == [
            ["Geo (exact_match)", "0.50 ±0.20 (20/20)", "0.50 ±0.20 (20/20)"],
            ["  world", "0.50 ±0.20 (20/20)", "0.50 ±0.20 (20/20)"],
            ["    americas", "0.40 ±0.26 (10/10)", "0.40 ±0.26 (10/10)"],
        ]
        assert shown.footer == "Complete: 2 of 2 partitions succeeded"

    def test_marks_are_explained(self) -> None:
        summary = self.shown(
            self.result(0, limited=True, lint=(Lint(code="DoubledBos", count=3),)), self.result(1)
        )
        assert table(summary).rows[0][1].endswith("(20/20) ~!")
        assert table(summary).rows[0][2].endswith("(20/20)")
        text = markdown(summary)
        assert "~ limited: only the first samples of each subset were used" in text
        assert "! suspect: DoubledBos; look at the samples before using the number" in text

    def test_no_mark_without_reason(self) -> None:
        text = markdown(self.shown(self.result(0), self.result(1)))
        assert "limited" not in text
        assert "suspect" not in text

    def test_a_failure_is_a_cell_a_reason_and_a_count(self) -> None:
        summary = self.shown(Failure(reason="OOMKilled", message="4Gi"), self.result(1), state="Failed")
        assert table(summary).rows[0][1] == "missing (OOMKilled)"
        assert table(summary).rows[1][1] == ""
        assert table(summary).footer == "Failed: 1 of 2 partitions succeeded, 1 failed"

    def test_an_incomplete_group_is_partial(self) -> None:
        summary = self.shown(scored(self.PLAN.partitions[0], part("north", 1, 4, 4)))
        assert [r[1] for r in table(summary).rows[1:]] == ["partial, 1 of 3", "partial, 1 of 2"]

    def test_one_sample_has_no_interval(self) -> None:
        _, summary = sharded(shard(0, 1).model_copy(update={"subsets": (part("", 1, 1, 1),)}))
        assert text_of(summary) == "1.00 (1/1)"


def rows(summary: Summary) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files(summary)["summary.csv"], newline="")))


class TestFiles:
    def test_three_files_that_say_the_same(self) -> None:
        _, summary = sharded(shard(0, 1))
        found = files(summary)
        assert set(found) == {"summary.json", "summary.csv", "summary.md"}
        assert Summary.model_validate_json(found["summary.json"]) == summary
        (row,) = rows(summary)
        assert row | {"low": "", "high": "", "stderr": ""} == {
            "model": "m", "dataset": "d", "kind": "dataset", "name": "d", "metric": "exact_match", "primary": "True",
            "value": "0.75", "stderr": "", "low": "", "high": "", "n": "4", "expected": "4", "state": "Complete",
            "reason": "", "limited": "False", "lint": "",
        }  # fmt: skip

    def test_a_cell_without_numbers_has_its_line(self) -> None:
        _, summary = sharded(Failure(reason="BadData", message="line 3"))
        (row,) = rows(summary)
        assert (row["state"], row["reason"], row["value"]) == ("Missing", "BadData", "")

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
    def test_names_of_subsets_come_out_of_the_csv_as_they_went_in(self, name: str) -> None:
        plan = builders.plan(evaljob(datasets=[dataset(task={**TASK, "subsets": {"column": "s"}})]))
        summary = summarize(
            plan, {plan.partitions[0]: scored(plan.partitions[0], part(name, 1, 1, 1))}, state="Complete"
        )
        assert rows(summary)[1]["name"] == name.replace("\r", " ")


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        ("a|b", "| a\\|b (exact_match) |"),
        ("a\\|b", "| a\\\\\\|b (exact_match) |"),
        ("a\n| --- |\nb", "| a \\| --- \\| b (exact_match) |"),
        ("<script>x</script>", "| &lt;script>x&lt;/script> (exact_match) |"),
        ("![x](http://e/i.png)", "| ![x]\\(http://e/i.png) (exact_match) |"),
        ("  two", "| &nbsp;&nbsp;two (exact_match) |"),
        ("[basene][chat-128k] Qwen2", "| [basene][chat-128k] Qwen2 (exact_match) |"),
    ],
)
def test_a_display_name_stays_in_its_cell(shown: str, line: str) -> None:
    plan = builders.plan(evaljob(datasets=[dataset(displayName=shown)]))
    text = markdown(summarize(plan, {}, state="Running"))
    assert f"{line} pending |" in text


def test_a_message_stays_in_its_line() -> None:
    _, summary = sharded(Failure(reason="BadData", message="line 3\n# heading\n| x |"))
    assert "- m / d: BadData: line 3 # heading \\| x \\|\n" in markdown(summary)


F1 = MetricInfo(key="f1_macro", primary=True, aggregation=Aggregation.MACRO_F1)


def labelled(k: int, of: int, yes: LabelCount, no: LabelCount, **more: Any) -> PartitionResult:  # noqa: ANN401
    n, right = yes.actual + no.actual, yes.right + no.right
    labels = {"f1_macro": {"yes": yes, "no": no}}
    subset = SubsetResult(name="", size=12, expected=n, stats=(Stat(n, right, right),), labels=labels)
    partition = Partition(model="m", dataset="d", shard=k, shards=of)
    return scored(partition, subset, metrics=(F1,), **more)


def test_macro_f1_is_made_of_the_counts_of_all_shards() -> None:
    """The mean of the shards' own values, (2/3 + 1 + 1/2 + 2/3) / 4, is another number."""
    first = labelled(0, 2, LabelCount(1, 1, 2), LabelCount(4, 5, 4))
    second = labelled(1, 2, LabelCount(1, 3, 1), LabelCount(2, 2, 4))
    _, found = sharded(first, second)
    score = found.cells[0].parts[0].scores[0]
    assert score.value == pytest.approx((2 * 2 / (4 + 3) + 2 * 6 / (7 + 8)) / 2)
    assert (score.stderr, score.n, score.expected) == (None, 11, 11)


def test_a_result_whose_labels_do_not_add_up_is_invalid() -> None:
    wrong = labelled(0, 1, LabelCount(2, 1, 2), LabelCount(4, 5, 4))
    with pytest.raises(InvalidResultError, match="labels that do not add up"):
        decode(encode(wrong))


PERPLEXITY = MetricInfo(
    key="byte_perplexity",
    primary=True,
    higher_is_better=False,
    binary=False,
    weighted=True,
    aggregation=Aggregation.PERPLEXITY,
)


def texts(k: int, of: int, *samples: tuple[float, int], **more: Any) -> PartitionResult:  # noqa: ANN401
    """A shard of texts, each of (nats, bytes)."""
    stat = accumulate_weighted((Weighted(round(nats * UNIT_REAL), size), None) for nats, size in samples)
    subset = SubsetResult(name="", size=3, expected=len(samples), stats=(stat,))
    return scored(
        Partition(model="m", dataset="d", shard=k, shards=of), subset, metrics=(PERPLEXITY,), **more
    )


def test_a_perplexity_is_made_of_the_nats_and_bytes_of_all_shards() -> None:
    """And not of the shards' own perplexities."""
    shards = [texts(0, 2, (60.0, 100), (10.0, 20)), texts(1, 2, (5.0, 5))]
    _, found = sharded(*shards)
    score = found.cells[0].parts[0].scores[0]
    assert score.value == pytest.approx(math.exp(75 / 125))
    assert (score.n, score.expected, score.higher_is_better) == (3, 3, False)
    mean = estimate(sum((r.subsets[0].stats[0] for r in shards), EMPTY), UNIT_REAL)
    assert mean is not None
    assert mean.low is not None
    assert score.low == pytest.approx(math.exp(mean.low))


def test_a_perplexity_above_all_numbers_is_invalid() -> None:
    with pytest.raises(InvalidResultError, match="a perplexity above all numbers"):
        decode(encode(texts(0, 1, (3010.0, 10))))


ITEMS = MetricInfo(key="bits_per_byte", primary=True, binary=False, weighted=True)
NATS = PERPLEXITY.model_copy(update={"key": "perplexity", "weighted": False})


def in_groups(
    metric: MetricInfo,
    samples: dict[str, list[tuple[float, int]]],
    seen: int,
    **more: Any,  # noqa: ANN401
) -> Cell:
    """A cell in which only so many samples of each subset were used; a sample is (nats, items)."""

    def subset(name: str) -> SubsetResult:
        used = [(round(nats * UNIT_REAL), items) for nats, items in samples[name][:seen]]
        stat = accumulate_weighted((Weighted(*sample), None) for sample in used)
        if not metric.weighted:
            stat = accumulate((nats, None) for nats, _ in used)
        return SubsetResult(name=name, size=len(samples[name]), expected=len(used), stats=(stat,))

    plan = builders.plan(evaljob(datasets=[dataset(task={**GROUPED, **more})]))
    limited = any(len(of) > seen for of in samples.values())
    result = scored(plan.partitions[0], *map(subset, samples), metrics=(metric,), limited=limited)
    return summarize(plan, {plan.partitions[0]: result}, state="Complete").cells[0]


TEXTS = {"africa": [(60.0, 30), (10.0, 12)] * 2, "north": [(3.0, 2), (4.0, 1)] * 6, "south": [(9.0, 9)] * 8}


@pytest.mark.parametrize("metric", [PERPLEXITY, ITEMS, NATS], ids=lambda m: m.key)
@pytest.mark.parametrize("part", [("dataset", "d"), ("group", "world"), ("group", "americas")])
def test_with_a_limit_a_number_is_the_one_that_more_samples_of_the_kind_would_give(
    metric: MetricInfo, part: tuple[str, str]
) -> None:
    """Items weigh by how many a subset has, and perplexities are made of the nats of all."""
    whole, limited = (the(in_groups(metric, TEXTS, seen), *part).scores[0] for seen in (99, 2))
    assert limited.value == pytest.approx(whole.value)
    assert (limited.n, whole.n) in [(6, 24), (4, 20)]
    assert limited.stderr is not None


def test_the_interval_of_a_perplexity_with_a_limit_is_that_of_its_nats() -> None:
    score = the(in_groups(NATS, TEXTS, 2), "dataset", "d").scores[0]
    assert score.value is not None
    assert score.low is not None
    assert score.high is not None
    assert score.low * score.high == pytest.approx(score.value**2)


@pytest.mark.parametrize("seen", [99, 2])
def test_a_group_with_weights_of_its_own_averages_perplexities(seen: int) -> None:
    """As lm-eval does with the numbers of tasks."""
    groups = [{**group, "weighting": "Equal"} for group in GROUPS]
    cell = in_groups(NATS, TEXTS, seen, groups=groups)
    north, south = math.exp(3.5), math.exp(9)
    assert value(cell, "group", "americas") == pytest.approx((north + south) / 2)
    assert value(cell, "group", "world") == pytest.approx((math.exp(35) + (north + south) / 2) / 2)


CHRF = MetricInfo(key="chrf", primary=True, binary=False, aggregation=Aggregation.CORPUS_CHRF)


def shared(k: int, of: int, n: int, counts: tuple[int, ...]) -> PartitionResult:
    subset = SubsetResult(name="", size=9, expected=n, stats=(Stat(n, 0, 0),), ngrams={"chrf": counts})
    partition = Partition(model="m", dataset="d", shard=k, shards=of)
    return scored(partition, subset if n else subset.model_copy(update={"ngrams": {}}), metrics=(CHRF,))


def test_a_corpus_score_is_made_of_the_counts_of_all_shards() -> None:
    first, second = (9, 8, 7, 6, 5, 4) * 2 + (5, 4, 3, 2, 1, 0), (3, 2, 1, 0, 0, 0) * 2 + (3, 2, 1, 0, 0, 0)
    _, found = sharded(shared(0, 3, 2, first), shared(1, 3, 0, ()), shared(2, 3, 1, second))
    score = found.cells[0].parts[0].scores[0]
    assert score.value == pytest.approx(chrf(tuple(map(sum, zip(first, second, strict=True)))))
    assert (score.stderr, score.n, score.expected) == (None, 3, 3)


@pytest.mark.parametrize("counts", [(), (1,) * 17, (1,) * 12 + (2,) * 6])
def test_a_result_whose_n_grams_no_texts_have_is_invalid(counts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidResultError, match="n-grams that no texts can have"):
        decode(encode(shared(0, 1, 2, counts)))
