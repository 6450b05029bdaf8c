"""A partition from documents to a result, with a scripted model."""

import dataclasses
import hashlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evaljob import corpus, framing, stats
from evaljob.backends import PromptFormat
from evaljob.judges import Judge
from evaljob.names import Reason
from evaljob.result import Failure, PartitionResult
from evaljob.spec import Model
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Overflow, Reply, Unavailable
from evaljob_runner.backends.scripted import ScriptedBackend
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.ending import EXIT_FAILED, EXIT_TRY_AGAIN, Ending
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.evaluate import GIVE_UP_AFTER, Shell, evaluate
from evaljob_runner.metrics import choices
from evaljob_runner.metrics.base import Choice
from evaljob_runner.progress import Progress, Stopwatch
from evaljob_runner.render import render
from evaljob_runner.samplelog import SampleLog
from tests.runner_plans import assignment, planned, tiny_dataset, tiny_model, tiny_task
from tests.unit.test_runner_data import lines, task

SERVED = Model.model_validate(
    {"name": "served", "promptFormat": "Chat", "openai": {"url": "http://x/v1", "model": "m"}}
)


@dataclass
class Outside:
    """Everything a partition needs of the outside, and what it did there."""

    backend: ScriptedBackend = field(default_factory=ScriptedBackend)
    opened: int = 0
    said: io.StringIO = field(default_factory=io.StringIO)
    logs: list[SampleLog] = field(default_factory=list)

    def open(self, _: Assignment, __: Checkpoint | None) -> ScriptedBackend:
        self.opened += 1
        return self.backend

    def run(self, work: Assignment) -> PartitionResult:
        return evaluate(work, Shell(self.open, Progress(self.said), Stopwatch(), self.logs.append))


def run(work: Assignment, backend: ScriptedBackend | None = None) -> PartitionResult:
    return Outside(backend or ScriptedBackend()).run(work)


def answers(said: Callable[[str], str | Reply], **more: Any) -> ScriptedBackend:  # noqa: ANN401 - any field
    return ScriptedBackend(answer=said, **more)


CAPITALS = [{"q": f"q{i}", "a": f"a{i}"} for i in range(6)]


def capitals(out: Path, rows: list[dict[str, str]] | None = None, **more: Any) -> Assignment:  # noqa: ANN401
    dataset = planned(task(), inline={"jsonl": lines(rows or CAPITALS)})
    return assignment(more.pop("model", tiny_model()), dataset, out, **more)


def logged(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.rglob("*.jsonl"))
    return [json.loads(text) for path in files for text in path.read_text().splitlines()]


def test_a_partition_ends_with_a_valid_result_and_a_line_of_each_kind(tmp_path: Path) -> None:
    found = run(capitals(tmp_path), answers(lambda q: q.replace("q", "It is a")))
    assert framing.decode(framing.encode(found)) == found
    assert found.subsets[0].stats[0] == (6, 6, 6, None)
    assert found.samples == "test/tiny/set"
    by_kind = defaultdict(list)
    for item in logged(tmp_path):
        by_kind[item["kind"]].append(item)
    assert len(by_kind["inference"]) == len(by_kind["score"]) == 6
    first = by_kind["inference"][0]["requests"][0]
    assert (first["prompt"], first["output"], first["renderedBy"]) == ("q0", "It is a0", "Runner")
    assert first["params"]["max_tokens"] == 256


def test_a_second_attempt_asks_only_what_is_missing(tmp_path: Path) -> None:
    def dies(question: str) -> str:
        if question == "q4":
            raise KeyboardInterrupt
        return "a"

    with pytest.raises(KeyboardInterrupt):
        run(capitals(tmp_path), answers(dies))
    again = answers(lambda _: "a")
    found = run(capitals(tmp_path, attempt="a-2"), again)
    assert [r.key for r in again.asked] == ["4#0", "5#0"]
    assert (found.outcomes.completed, found.outcomes.from_log) == (6, 4)
    whole = run(capitals(tmp_path / "other"), answers(lambda _: "a"))
    assert found.subsets == whole.subsets
    assert found.prompt_digest == whole.prompt_digest


def test_a_lost_score_line_is_made_again_without_inference(tmp_path: Path) -> None:
    run(capitals(tmp_path), answers(lambda _: "a0"))
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_text("".join(x for x in path.read_text().splitlines(keepends=True) if '"score"' not in x))
    again = ScriptedBackend()
    run(capitals(tmp_path, attempt="a-2"), again)
    assert not again.asked
    assert sum(item["kind"] == "score" for item in logged(tmp_path)) == 6


def test_an_empty_shard_is_complete_before_any_model_loads(tmp_path: Path) -> None:
    outside = Outside()
    found = outside.run(capitals(tmp_path, rows=CAPITALS[:1], shard=(0, 2)))
    assert outside.opened == 0
    assert found.outcomes.expected == 0
    assert framing.decode(framing.encode(found)) == found
    other = run(capitals(tmp_path, rows=CAPITALS[:1], shard=(1, 2)))
    assert (other.outcomes.expected, other.inference_digest) == (1, found.inference_digest)


def test_a_result_that_would_not_fit_is_refused_before_any_model_loads(tmp_path: Path) -> None:
    rows = [{"q": "q", "a": "a", "s": hashlib.sha256(b"%d" % i).hexdigest()} for i in range(400)]
    dataset = planned(task(subsets={"column": "s"}), inline={"jsonl": lines(rows)})
    outside = Outside()
    with pytest.raises(Fatal, match="400 subsets x 1 metrics") as caught:
        outside.run(assignment(tiny_model(), dataset, tmp_path))
    assert caught.value.reason is Reason.RESULT_TOO_LARGE
    assert outside.opened == 0


def test_some_samples_without_an_answer_are_left_for_the_next_attempt(tmp_path: Path) -> None:
    def flaky(question: str) -> str | Reply:
        return Unavailable("3#0", "connection refused") if question == "q3" else "a"

    with pytest.raises(Retry, match=r"1 samples got no answer, 5 did; .*connection refused") as caught:
        run(capitals(tmp_path), answers(flaky))
    assert caught.value.reason is Reason.SAMPLES_LEFT
    again = answers(lambda _: "a")
    assert run(capitals(tmp_path, attempt="a-2"), again).outcomes.from_log == 5
    assert [r.key for r in again.asked] == ["3#0"]


def test_a_server_that_is_gone_is_not_asked_for_ever(tmp_path: Path) -> None:
    rows = [{"q": str(i), "a": "a"} for i in range(50)]
    backend = answers(lambda q: Unavailable(f"{q}#0", "gone"))
    with pytest.raises(Retry) as caught:
        run(capitals(tmp_path, rows=rows), backend)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert len(backend.asked) == GIVE_UP_AFTER


def test_a_prompt_longer_than_the_window_is_scored_at_the_floor_and_counted(tmp_path: Path) -> None:
    rows = [{"q": "q" * 1000, "a": "a"}, {"q": "q", "a": "a"}]
    backend = answers(lambda _: "a", window=300)
    found = run(capitals(tmp_path, rows=rows), backend)
    assert [r.key for r in backend.asked] == ["1#0"]
    assert (found.outcomes.context_overflow, found.outcomes.answered) == (1, 1)
    assert found.subsets[0].stats[0][:2] == (2, 1)
    overflow = next(x for x in logged(tmp_path) if x.get("outcome") == "ContextOverflow")
    assert "1256 tokens, the window has 300" in overflow["error"]["message"]


@pytest.mark.parametrize(("how", "seen"), [("Start", "789" + "Z" * 41), ("Middle", "A" * 22 + "Z" * 22)])
def test_a_prompt_longer_than_the_window_may_be_shortened(tmp_path: Path, how: str, seen: str) -> None:
    """The window has 300 tokens, the answer 256 of them: 44 are left for the prompt."""
    question = "A" * 50 + "0123456789" + "Z" * 41
    rows = [{"q": question, "a": "a"}, {"q": "short", "a": "a"}]
    dataset = planned(task(truncate=how), inline={"jsonl": lines(rows)})
    backend = answers(lambda _: "a", window=300)
    found = run(assignment(tiny_model(), dataset, tmp_path), backend)
    assert (found.outcomes.context_overflow, found.outcomes.answered) == (0, 2)
    prompts = ["".join(map(chr, r.prompt.ids)) for r in backend.asked]  # type: ignore[union-attr]
    assert prompts == [seen, "short"]
    cuts = [x["requests"][0].get("promptCut") for x in logged(tmp_path) if x["kind"] == "inference"]
    assert cuts == [len(question) - 44, None]


def test_an_answer_that_fills_the_window_overflows_all_the_same(tmp_path: Path) -> None:
    dataset = planned(task(truncate="Middle"), inline={"jsonl": lines(CAPITALS)})
    found = run(assignment(tiny_model(), dataset, tmp_path), answers(lambda _: "a", window=256))
    assert found.outcomes.context_overflow == 6


def test_a_server_may_say_that_a_prompt_is_too_long(tmp_path: Path) -> None:
    backend = answers(lambda _: Overflow("0#0", "maximum context length"), tokenizer=None)
    found = run(capitals(tmp_path, rows=CAPITALS[:1], model=SERVED), backend)
    assert found.outcomes.context_overflow == 1
    request = next(x for x in logged(tmp_path) if x["kind"] == "inference")["requests"][0]
    assert (request["renderedBy"], request["messages"]) == ("Server", [{"role": "user", "content": "q0"}])


def test_answers_that_hit_max_tokens_are_truncated_and_suspect_when_many(tmp_path: Path) -> None:
    found = run(capitals(tmp_path), answers(lambda _: "a" * 300))
    assert found.outcomes.truncated == 6
    assert ("ManyTruncated", 6) in [(item.code, item.count) for item in found.lint]


def test_blank_prompts_are_suspect_although_everything_succeeded(tmp_path: Path) -> None:
    rows = [{"q": "\n", "a": ""} for _ in range(6)]
    found = run(capitals(tmp_path, rows=rows), answers(lambda _: "x"))
    assert {item.code for item in found.lint} == {"BlankPrompt", "IdenticalPrompts"}


@pytest.mark.parametrize(
    ("model", "dataset", "words"),
    [
        (tiny_model(), "chat", r"needs promptFormat Chat.*exclude: \[{model: tiny, dataset: chat}\]"),
        (SERVED, "kind", r"needs promptFormat Text.*exclude: \[{model: served, dataset: kind}\]"),
    ],
)
def test_a_pair_that_cannot_work_is_refused_before_the_data_is_read(
    tmp_path: Path, model: Model, dataset: str, words: str
) -> None:
    work = assignment(model, tiny_dataset(dataset, source="pvc://nowhere/x"), tmp_path)
    with pytest.raises(Fatal, match=words) as caught:
        run(work)
    assert caught.value.reason is Reason.UNSUPPORTED_REQUEST


def judge(context: str, continuation: str) -> float:
    """Some opinion about each choice, right more often than not."""
    return -float(sum(map(ord, context + continuation)) % 97)


def recounted(out: Path) -> dict[str, dict[str, list[int]]]:
    """Subset → metric → [right, all], from the sample log alone: nothing here is the runner's code."""
    subset_of, found = {}, defaultdict(lambda: defaultdict(lambda: [0, 0]))  # type: ignore[var-annotated]
    for item in logged(out):
        if item["kind"] == "inference":
            subset_of[item["id"]] = item["subset"]
            sums = [(c["sum"], c["sum"] / len(c["text"])) for c in item["requests"][0]["logprobs"]]
            for metric, values in zip(("acc", "acc_norm"), zip(*sums, strict=True), strict=True):
                best = max(range(len(values)), key=lambda i: (values[i], -i))
                found[item["subset"]][metric][0] += best == int(item["target"])
                found[item["subset"]][metric][1] += 1
    return {subset: dict(metrics) for subset, metrics in found.items()}


@pytest.mark.parametrize("limit", [None, 4])
def test_any_number_of_shards_adds_up_to_the_log(tmp_path: Path, limit: int | None) -> None:
    """Seven subsets of different size, pool and description; groups of two levels; a limit per subset."""
    merged = {}
    for n in (1, 2, 7):
        out = tmp_path / str(n)
        dataset = tiny_dataset("mc", limit=limit, shards=n)
        parts = [
            run(
                assignment(tiny_model(), dataset, out, shard=(k, n), attempt=f"a-{k}"),
                ScriptedBackend(weight=judge),
            )
            for k in range(n)
        ]
        assert len({p.inference_digest for p in parts}) == 1
        merged[n] = {
            s.name: [sum(st, start=st[0].__class__(0, 0, 0)) for st in zip(*rows, strict=True)]
            for s, rows in (
                (s, [q.stats for p in parts for q in p.subsets if q.name == s.name]) for s in parts[0].subsets
            )
        }
        counted = {
            name: {
                key: [state.total, state.n] for key, state in zip(("acc", "acc_norm"), states, strict=True)
            }
            for name, states in merged[n].items()
        }
        assert counted == recounted(out)
        assert [(s.name, s.size) for s in parts[0].subsets][:2] == [("animal", 17), ("color", 13)]
        assert parts[0].limited == (limit is not None)
    assert merged[1] == merged[2] == merged[7]
    assert 0 < sum(states[0].total for states in merged[1].values()) < sum(s[0].n for s in merged[1].values())


def test_every_sampled_answer_has_a_seed_of_its_own_that_no_shard_changes(tmp_path: Path) -> None:
    warm = tiny_model(generation={"temperature": 1})
    whole, part = ScriptedBackend(), ScriptedBackend()
    run(capitals(tmp_path / "1", model=warm), whole)
    run(capitals(tmp_path / "2", model=warm, shard=(1, 2)), part)
    seeds = {r.key: r.seed for r in whole.asked}  # type: ignore[union-attr]
    assert len(set(seeds.values())) == 6
    assert {r.key: r.seed for r in part.asked} == {k: seeds[k] for k in ("3#0", "4#0", "5#0")}  # type: ignore[union-attr]


WARM = tiny_model(generation={"temperature": 1})
SET = {"extract": {"a": [{"regex": "a\\d"}]}}


def repeated(out: Path, n: int = 4, **more: Any) -> Assignment:  # noqa: ANN401
    metrics = [
        {"name": "contains", "primary": True},
        {"name": "exact_match", "extract": "a", "reduce": {"passAtK": [1, 2, 4, 8]}},
        {"name": "exact_match", "extract": "a", "reduce": {"majority": {}}},
    ]
    dataset = planned(task(metrics=metrics, **SET), inline={"jsonl": lines(CAPITALS)}, repeats=n)
    return assignment(WARM, dataset, out, **more)


def turn_by_turn(*said: str) -> ScriptedBackend:
    """The n-th answer to a question is the n-th text."""
    turns: dict[str, int] = defaultdict(int)

    def answer(question: str) -> str:
        turns[question] += 1
        return said[turns[question] - 1].replace("*", question.replace("q", "a"))

    return answers(answer)


def test_each_repeat_is_a_request_with_a_seed_of_its_own(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    run(repeated(tmp_path), backend)
    assert sorted(r.key for r in backend.asked)[:4] == ["0#0", "0#1", "0#2", "0#3"]
    assert len({r.seed for r in backend.asked}) == 24  # type: ignore[union-attr]


def test_repeats_are_reduced_per_sample_and_errors_count_samples(tmp_path: Path) -> None:
    """Of four answers two are right; the wrong ones differ, so that the vote is won; one more has no answer."""
    found = run(repeated(tmp_path), turn_by_turn("a9", "*", "none", "*"))
    assert framing.decode(framing.encode(found)) == found
    assert [m.key for m in found.metrics] == ["contains", "pass@1,a", "pass@2,a", "pass@4,a", "majority,a"]
    assert [m.binary for m in found.metrics] == [False, False, False, True, True]
    values = [s.value(m.unit) for s, m in zip(found.subsets[0].stats, found.metrics, strict=True)]
    assert values == [0.5, 0.5, pytest.approx(1 - 1 / 6), 1, 1]
    assert {s.n for s in found.subsets[0].stats} == {6}
    assert (found.outcomes.expected, found.repeats) == (24, 4)


def test_a_second_attempt_asks_only_the_missing_repeats(tmp_path: Path) -> None:
    whole = run(repeated(tmp_path, n=2), answers(lambda _: "a0"))
    more = answers(lambda _: "a0")
    found = run(repeated(tmp_path, n=3, attempt="a-2"), more)
    assert sorted(r.key for r in more.asked) == [f"{i}#2" for i in range(6)]
    assert found.inference_digest == whole.inference_digest
    assert found.prompt_digest == whole.prompt_digest


def test_a_cluster_lies_within_its_subset(tmp_path: Path) -> None:
    """Ids may begin anew in each. Questions that stand in several subsets are clusters without subsets only."""
    rows = [{"q": f"q{i}", "a": "q0", "s": s, "c": str(i)} for s in ("en", "de") for i in range(4)]

    def clusters(subsets: dict[str, str] | None) -> list[tuple[int, int]]:
        dataset = planned(task(cluster="{{ c }}", subsets=subsets), inline={"jsonl": lines(rows)})
        found = run(assignment(tiny_model(), dataset, tmp_path / str(subsets)), answers(lambda q: q))
        known = [s.stats[0].clusters for s in found.subsets]
        return [(c.number, c.sum_squares) for c in known if c]

    assert clusters({"column": "s"}) == [(4, 1), (4, 1)]
    assert clusters(None) == [(4, 4)]


F1: dict[str, Any] = {
    "extract": {"a": [{"regex": "yes|no"}]},
    "metrics": [
        {"name": "f1_macro", "extract": "a", "primary": True, "args": {"labels": "yes|no|maybe"}},
        {"name": "exact_match", "extract": "a"},
    ],
}


def test_macro_f1_is_made_of_counts_that_any_number_of_shards_adds_up(tmp_path: Path) -> None:
    """Against the definition: yes has 2 right of 3 answers and 2 targets, no 1 of 1 and 3; maybe never occurs."""
    rows = [
        {"q": q, "a": a}
        for q, a in (("yes", "yes"), ("yes 2", "yes"), ("yes 3", "no"), ("no", "no"), ("?", "no"))
    ]
    shards = {}
    for n in (1, 3):
        dataset = planned(task(**F1), inline={"jsonl": lines(rows)}, shards=n)
        parts = [
            run(
                assignment(tiny_model(), dataset, tmp_path / f"{n}", shard=(k, n), attempt=f"a-{k}"),
                answers(lambda q: q),
            )
            for k in range(n)
        ]
        assert [framing.decode(framing.encode(part)) for part in parts] == parts
        counts: dict[str, stats.LabelCount] = {}
        for part in parts:
            counts = stats.merge_labels(counts, part.subsets[0].labels["f1_macro,a"])
        shards[n] = counts
    assert shards[1] == shards[3] == {"yes": (2, 3, 2), "no": (1, 1, 3), "maybe": (0, 0, 0)}
    assert stats.macro_f1(shards[1]) == pytest.approx((4 / 5 + 2 / 4) / 2)


def test_a_target_that_is_no_label_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    dataset = planned(task(**F1), inline={"jsonl": lines([{"q": "q", "a": "perhaps"}])})
    outside = Outside()
    with pytest.raises(Fatal, match=r"'perhaps' is not among args.labels, yes\|no\|maybe"):
        outside.run(assignment(tiny_model(), dataset, tmp_path))
    assert outside.opened == 0


CALL = {"name": "f", "arguments": {"x": "ü"}}


@pytest.mark.parametrize(
    ("metric", "references", "field"),
    [
        ("tool_call", [[CALL], "f(x)"], "references[1]"),
        ("tool_call_parts", ["f(x)"], "references[0]"),
        ("ifeval_prompt_strict", [{"instructions": ["no:such"], "kwargs": [{}]}], "references[0]"),
    ],
)
def test_a_reference_that_a_metric_cannot_read_is_refused_before_the_model_loads(
    tmp_path: Path, metric: str, references: list[Any], field: str
) -> None:
    changes = {"references": "{{ r }}", "metrics": [{"name": metric, "primary": True}]}
    dataset = planned(task(**changes), inline={"jsonl": lines([{"q": "q", "a": "", "r": references}])})
    outside = Outside()
    with pytest.raises(Fatal) as caught:
        outside.run(assignment(tiny_model(), dataset, tmp_path))
    assert caught.value.reason is Reason.BAD_DATA
    assert str(caught.value).startswith(f"{field}: metric {metric}: ")
    assert outside.opened == 0


@pytest.mark.parametrize(
    ("references", "field"), [("{{ r }}", "references"), ("{{ [r.y] }}", "references[0]")]
)
def test_a_later_row_without_references_is_named(tmp_path: Path, references: str, field: str) -> None:
    rows = [
        {"q": "q", "a": "a", "r": row} for row in ([["b"], "b"] if field == "references" else [{"y": 1}, {}])
    ]
    dataset = planned(task(references=references), inline={"jsonl": lines(rows)})
    with pytest.raises(Fatal) as caught:
        run(assignment(tiny_model(), dataset, tmp_path))
    assert caught.value.reason is Reason.BAD_DATA
    assert str(caught.value).startswith(f"{field}: ")
    assert "line 2" in str(caught.value)


def test_references_that_are_lists_or_objects_are_read_as_json(tmp_path: Path) -> None:
    """The target is not compared with where there are references."""
    changes = {"references": "{{ r }}", "metrics": [{"name": "tool_call", "primary": True}]}
    rows = [{"q": "q", "a": "none", "r": [[CALL, CALL], CALL]}]
    dataset = planned(task(**changes), inline={"jsonl": lines(rows)})
    found = run(assignment(tiny_model(), dataset, tmp_path), answers(lambda _: json.dumps(CALL)))
    assert found.subsets[0].stats[0].total == 1


def test_macro_f1_is_not_made_of_repeats(tmp_path: Path) -> None:
    dataset = planned(task(**F1), inline={"jsonl": lines([{"q": "q", "a": "yes"}])}, repeats=2)
    with pytest.raises(Fatal, match="repeats: 2, but f1_macro,a counts one answer of each sample"):
        run(assignment(WARM, dataset, tmp_path))


def test_macro_f1_of_choices_counts_their_indexes(tmp_path: Path) -> None:
    choice = tiny_task("mc", metrics=[{"name": "f1_macro", "primary": True, "args": {"labels": "0|1|2|3"}}])
    work = assignment(tiny_model(), planned(choice, source="pvc://data/mc.jsonl", limit=2), tmp_path)
    found = run(work, ScriptedBackend(weight=judge))
    assert found.subsets[0].labels["f1_macro"].keys() == {"0", "1", "2", "3"}
    assert sum(c.actual for c in found.subsets[0].labels["f1_macro"].values()) == 2


TEXTS = {
    "requestType": "LogLikelihoodRolling",
    "prompt": None,
    "metrics": [
        {"name": "bits_per_byte", "primary": True},
        {"name": "byte_perplexity"},
        {"name": "word_perplexity"},
    ],
}
PAGES = [{"q": "", "a": text} for text in ("One page.", "Zwölf Wörter, über\nzwei Zeilen.", "x", "The end")]


def test_counts_of_the_corpus_are_those_of_any_number_of_shards(tmp_path: Path) -> None:
    """Also of a sample without an answer: its reference counts."""
    chrf = [{"name": "chrf", "primary": True}]
    rows = [{"q": q, "a": a} for q, a in (("abc", "abd"), ("x" * 1000, "no"), ("same text", "same text"))]
    totals = {}
    for n in (1, 3):
        dataset = planned(task(metrics=chrf), inline={"jsonl": lines(rows)}, shards=n)
        parts = [
            run(
                assignment(tiny_model(), dataset, tmp_path / f"{n}", shard=(k, n), attempt=f"a-{k}"),
                answers(lambda q: q, window=300),
            )
            for k in range(n)
        ]
        assert [framing.decode(framing.encode(part)) for part in parts] == parts
        counts: corpus.Counts = ()
        for part in parts:
            counts = corpus.added(counts, part.subsets[0].ngrams["chrf"])
        totals[n] = counts
    assert totals[1] == totals[3]
    assert totals[1][0] == len("abc" + "sametext")
    assert totals[1][corpus.CHRF_ORDER] == len("abd" + "no" + "sametext")
    assert parts[0].metrics[0].estimate(parts[0].subsets[0].stats[0]) is None  # a corpus score is no mean


def test_a_corpus_score_has_one_answer_of_each_sample(tmp_path: Path) -> None:
    metrics = [{"name": "chrf", "primary": True}]
    dataset = planned(task(metrics=metrics), inline={"jsonl": lines([{"q": "q", "a": "a"}])}, repeats=2)
    with pytest.raises(Fatal, match="chrf counts one answer of each sample, use 1"):
        run(assignment(WARM, dataset, tmp_path))


def test_several_choices_may_be_right(tmp_path: Path) -> None:
    """The likeliest is among them; and their part in the whole, against the definition."""
    logs = {"a": -1.0, "b": -3.0, "c": -2.0}
    choice = task(
        requestType="LogLikelihood",
        choices={"template": "{{ c }}"},
        target="1",
        references="{{ r }}",
        metrics=[{"name": "mc2", "primary": True}, {"name": "acc"}],
    )
    row = {"q": "Which?", "c": list(logs), "r": [0, 1]}
    work = assignment(tiny_model(), planned(choice, inline={"jsonl": lines([row])}), tmp_path)
    run(work, ScriptedBackend(weight=lambda _, text: logs[text.strip()]))
    scores = logged(tmp_path)[-1]["scores"]
    whole = sum(map(math.exp, logs.values()))
    assert scores["mc2"]["value"] == pytest.approx((math.exp(-1) + math.exp(-3)) / whole)
    assert scores["acc"]["value"] == 1


def test_a_right_choice_that_there_is_not_is_refused(tmp_path: Path) -> None:
    choice = task(
        requestType="LogLikelihood",
        choices={"values": ["a", "b"]},
        target="0",
        references="{{ [0, 2] }}",
        metrics=[{"name": "mc2", "primary": True}],
    )
    work = assignment(tiny_model(), planned(choice, inline={"jsonl": lines([{"q": "Which?"}])}), tmp_path)
    with pytest.raises(Fatal, match="references: must be the index of a choice, 0 to 1, got '2'"):
        run(work)


def test_the_share_of_choices_that_are_all_very_unlikely_is_a_number() -> None:
    share = choices.METRICS["mc2"].right
    assert share is not None
    weighed = [Choice(-2000.0 - i, 1, 1, greedy=False) for i in range(2)]
    assert share(weighed, {0}) == pytest.approx(1 / (1 + math.exp(-1)))


def test_one_choice_is_for_metrics_that_look_at_the_right_one(tmp_path: Path) -> None:
    """With `acc` it would be right for ever."""
    inline = {"jsonl": lines([{"q": "The sky is", "word": " blue"}])}

    def scored(*metrics: str) -> PartitionResult:
        listed = [{"name": name, "primary": name == metrics[0]} for name in metrics]
        alone = task(
            requestType="LogLikelihood", choices={"template": "{{ [word] }}"}, target="0", metrics=listed
        )
        return run(assignment(tiny_model(), planned(alone, inline=inline), tmp_path))

    (subset,) = scored("greedy_match", "perplexity").subsets
    assert [stat.n for stat in subset.stats] == [1, 1]
    with pytest.raises(Fatal, match="must yield a list of texts, 2 or more"):
        scored("greedy_match", "acc")


def test_texts_are_weighed_whole_and_the_sums_of_shards_add_up(tmp_path: Path) -> None:
    """Two nats a token, a token per character: every number is known."""
    totals = {}
    for n in (1, 3):
        dataset = planned(task(**TEXTS), inline={"jsonl": lines(PAGES)}, shards=n)
        backend = ScriptedBackend(weight=lambda _, text: -2.0 * len(text), rolling_window=4)
        parts = [
            run(assignment(tiny_model(), dataset, tmp_path / f"{n}", shard=(k, n), attempt=f"a-{k}"), backend)
            for k in range(n)
        ]
        assert [framing.decode(framing.encode(part)) for part in parts] == parts
        totals[n] = [
            sum(states, stats.EMPTY) for states in zip(*(p.subsets[0].stats for p in parts), strict=True)
        ]
    assert totals[1] == totals[3]
    texts = [page["a"] for page in PAGES]
    characters, size = len("".join(texts)), len("".join(texts).encode())
    words = sum(len(text.split()) for text in texts)
    values = [info.estimate(stat) for info, stat in zip(parts[0].metrics, totals[3], strict=True)]
    assert [v.value for v in values if v] == pytest.approx(
        [
            2 * characters / size / math.log(2),
            math.exp(2 * characters / size),
            math.exp(2 * characters / words),
        ]
    )
    assert {m.higher_is_better for m in parts[0].metrics} == {False}


def test_the_log_holds_a_weighed_text_once_and_its_scores_are_made_again_from_it(tmp_path: Path) -> None:
    work = assignment(tiny_model(), planned(task(**TEXTS), inline={"jsonl": lines(PAGES)}), tmp_path)
    first = run(work, ScriptedBackend(weight=lambda _, text: -float(len(text))))
    (line, *_) = (item for item in logged(tmp_path) if item["kind"] == "inference")
    assert json.dumps(line).count("One page.") == 1
    assert line["requests"][0]["logprobs"] == [
        {"text": "", "sum": -9.0, "tokens": 9, "characters": 9, "bytes": 9, "greedy": False}
    ]
    assert run(dataclasses.replace(work, attempt="a-2"), ScriptedBackend()).subsets == first.subsets


def test_a_text_that_is_empty_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    outside = Outside()
    with pytest.raises(Fatal, match="target: metric bits_per_byte: the text is empty"):
        outside.run(
            assignment(tiny_model(), planned(task(**TEXTS), inline={"jsonl": lines([{"a": ""}])}), tmp_path)
        )
    assert outside.opened == 0


def test_words_of_a_language_without_spaces_give_no_perplexity(tmp_path: Path) -> None:
    dataset = planned(task(**TEXTS), inline={"jsonl": lines([{"a": "天" * 400}])})
    with pytest.raises(Fatal, match=r"word_perplexity: more than 300 nats per item .* use byte_perplexity"):
        run(assignment(tiny_model(), dataset, tmp_path), ScriptedBackend(weight=lambda _, t: -float(len(t))))


def test_texts_are_not_weighed_behind_a_server(tmp_path: Path) -> None:
    work = assignment(SERVED, planned(task(**TEXTS), inline={"jsonl": lines(PAGES)}), tmp_path)
    with pytest.raises(
        Fatal, match=r"LogLikelihoodRolling cuts texts with the model's tokenizer.*exclude: \["
    ):
        run(work)


def test_repeats_at_temperature_0_are_refused(tmp_path: Path) -> None:
    work = repeated(tmp_path)
    with pytest.raises(Fatal, match="4 answers at temperature 0 would be equal"):
        run(dataclasses.replace(work, model=tiny_model()))


def test_progress_is_told_at_the_start_each_ten_seconds_and_at_the_end() -> None:
    now = iter([0.0, 4.0, 10.0, 15.0, 16.0])
    out = io.StringIO()
    progress = Progress(out, lambda: next(now))
    progress.start(done=1, total=5)
    for _ in range(4):
        progress.step()
    told = [json.loads(text) for text in out.getvalue().splitlines()]
    assert [t["done"] for t in told] == [1, 3, 5]
    assert told[1] == {"type": "progress", "done": 3, "total": 5, "rate": 0.2, "secondsLeft": 10}


def test_render_shows_prompts_tokens_and_origins_without_a_model(tmp_path: Path) -> None:
    out = io.StringIO()
    render(assignment(tiny_model(), tiny_dataset("gsm"), tmp_path), ScriptedBackend().tokenizer, 2, out)
    first, second = (json.loads(text) for text in out.getvalue().splitlines())
    assert first["text"].startswith("Question: ")
    assert first["tokenIds"] == list(map(ord, first["text"]))
    assert second["generation"]["maxTokens"] == {"value": 80, "origin": "task"}


def test_render_shows_choices_and_examples(tmp_path: Path) -> None:
    out = io.StringIO()
    work = assignment(tiny_model(promptFormat="Chat"), tiny_dataset("mc"), tmp_path)
    render(work, ScriptedBackend().tokenizer, 1, out)
    line = json.loads(out.getvalue())
    assert line["text"].startswith("<user>Questions about animal.")
    assert len(line["fewShotIds"]) == 2
    assert [c["text"] for c in line["choices"]] == ["purple", "pear", "peach", "goat"]
    assert "generation" not in line


def test_render_shows_what_a_server_gets(tmp_path: Path) -> None:
    out = io.StringIO()
    render(assignment(SERVED, tiny_dataset("gsm"), tmp_path), None, 1, out)
    line = json.loads(out.getvalue())
    assert line["renderedBy"] == "Server"
    assert line["messages"][0]["role"] == "user"


def test_render_shows_the_choices_that_a_server_weighs(tmp_path: Path) -> None:
    out = io.StringIO()
    served = SERVED.model_copy(update={"prompt_format": PromptFormat.TEXT})
    render(assignment(served, tiny_dataset("mc"), tmp_path), None, 1, out)
    line = json.loads(out.getvalue())
    assert line["text"].endswith("Answer:")
    assert line["choices"] == [{"text": t} for t in ("purple", "pear", "peach", "goat")]


def test_render_shows_what_a_judge_would_be_asked(tmp_path: Path) -> None:
    rubric = {
        "name": "gpt",
        "prompt": "{{ q }}: {{ answer }} or {{ target }}?",
        "extract": "x",
        "labels": {"C": 1},
    }
    metrics = [{"name": "llm_judge", "primary": True, "judge": rubric}]
    dataset = planned(
        task(metrics=metrics, extract={"x": [{"strip": {}}]}), inline={"jsonl": lines(CAPITALS)}
    )
    judge = Judge.model_validate({"name": "gpt", "openai": {"url": "http://x/v1", "model": "m"}})
    work = assignment(SERVED, dataset.model_copy(update={"judges": (judge,)}), tmp_path)
    out = io.StringIO()
    render(work, None, 1, out)
    asked = {"role": "user", "content": "q0: <the answer> or a0?"}
    assert json.loads(out.getvalue())["judges"] == {"llm_judge": [asked]}


def test_a_task_that_cannot_score_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    broken = tiny_task("gsm", metrics=[{"name": "acuracy", "primary": True}])
    outside = Outside()
    with pytest.raises(Fatal, match="acuracy"):
        outside.run(assignment(tiny_model(), planned(broken, source="pvc://data/gsm.jsonl"), tmp_path))
    assert outside.opened == 0


def reported(path: Path) -> PartitionResult | Failure:
    return framing.decode(path.read_text())


def test_reports_are_written_into_the_file_that_is_there(tmp_path: Path) -> None:
    """The termination log is a bind mount: a rename would put the report where nobody looks."""
    path = tmp_path / "log"
    path.write_text("x" * 5000)
    inode = path.stat().st_ino
    ending = Ending(path)
    ending.know(attempt="a-1", durable=True)
    assert ending.stop(Fatal(Reason.BAD_DATA, "line 3")) == 78
    assert reported(path) == Failure(reason="BadData", message="line 3", attempt="a-1")
    assert ending.stop(Retry(Reason.SAMPLES_LEFT, "2 left")) == EXIT_TRY_AGAIN
    assert ending.crash(RuntimeError("boom")) == EXIT_FAILED
    assert reported(path) == Failure(reason="RunnerFailed", message="RuntimeError: boom", attempt="a-1")
    assert path.stat().st_ino == inode


def talk(**columns: Any) -> dict[str, Any]:  # noqa: ANN401 - a document
    """Two questions with their answers; `t` is what is expected."""
    turns = [("user", "q0"), ("assistant", "gold"), ("user", "q1")]
    return {"m": [{"role": role, "content": text} for role, text in turns], "t": ["a0", "a1"]} | columns


def talks(out: Path, rows: list[dict[str, Any]], *, turns: str = "Every", **more: Any) -> Assignment:  # noqa: ANN401
    asked = task(
        requestType="Chat", prompt=None, messages="{{ m }}", turns=turns, target="{{ t[turn] }}", **more
    )
    dataset = planned(asked, inline={"jsonl": lines(rows)})
    return assignment(tiny_model(promptFormat="Chat"), dataset, out)


def asked_of(backend: ScriptedBackend) -> list[str]:
    return ["".join(map(chr, r.prompt.ids)) for r in backend.asked]  # type: ignore[union-attr]


@pytest.mark.parametrize(("turns", "told"), [("Every", "a0!"), ("EveryWithGold", "gold")])
def test_each_turn_is_asked_behind_the_answers_before_it(tmp_path: Path, turns: str, told: str) -> None:
    def says(conversation: str) -> str:
        return "none" if "q1" in conversation else "a0!"

    backend = answers(says)
    found = run(talks(tmp_path, [talk()], turns=turns), backend)
    assert asked_of(backend) == [
        "<user>q0<assistant>",
        f"<user>q0<assistant>{told}<user>q1<assistant>",
    ]
    assert [r.key for r in backend.asked] == ["0#0", "0#0#1"]
    assert found.subsets[0].stats[0][:2] == (1, stats.UNIT_REAL // 2)  # the mean of 1 and 0
    assert framing.decode(framing.encode(found)) == found
    line, scores = logged(tmp_path)
    assert [r["output"] for r in line["requests"]] == ["a0!", "none"]
    assert line["turns"] == [{"target": "a0"}, {"target": "a1"}]
    assert [s["value"] for s in scores["scores"]["contains"]["turns"]] == [1, 0]


def test_conversations_of_different_length_end_when_they_end(tmp_path: Path) -> None:
    """In the log the short ones come first, and no other conversation gets in between."""
    long = [{"role": "user", "content": f"q{i}"} for i in range(4)]
    rows = [talk(m=long, t=list("abcd")), talk(m=long[:1], t=["a"]), talk(m=long[:2], t=["a", "b"])]
    backend = answers(lambda said: "abcd"[said.count("<user>") - 1])
    found = run(talks(tmp_path, rows), backend)
    assert [x["id"] for x in logged(tmp_path) if x["kind"] == "inference"] == ["1", "2", "0"]
    assert (
        asked_of(backend)[-1]
        == "<user>q0<assistant>a<user>q1<assistant>b<user>q2<assistant>c<user>q3<assistant>"
    )
    assert found.subsets[0].stats[0][:2] == (3, 3 * stats.UNIT_REAL)


def test_a_conversation_that_leaves_the_window_ends_there_and_what_was_said_counts(tmp_path: Path) -> None:
    rows = [talk(m=[{"role": "user", "content": "q" * 20}] * 3, t=["a", "a", "a"])]
    backend = answers(lambda _: "a" * 10, window=100)
    found = run(talks(tmp_path, rows, generation={"max_tokens": 40}), backend)
    assert len(backend.asked) == 1
    assert found.outcomes.context_overflow == 1
    assert found.subsets[0].stats[0][:2] == (1, round(stats.UNIT_REAL / 3))  # of three turns one
    line = logged(tmp_path)[0]
    assert len(line["requests"]) == 2
    assert "the window has 100" in line["error"]["message"]


def test_a_second_attempt_leads_an_unfinished_conversation_from_its_beginning(tmp_path: Path) -> None:
    def dies(said: str) -> str:
        if said.count("<user>") == 3:
            raise KeyboardInterrupt
        return "a"

    short, long = talk(t=["a", "a"]), talk(m=[{"role": "user", "content": "q"}] * 3, t=["a"] * 3)
    with pytest.raises(KeyboardInterrupt):
        run(talks(tmp_path, [short, long]), answers(dies))
    again = answers(lambda _: "a")
    found = run(dataclasses.replace(talks(tmp_path, [short, long]), attempt="a-2"), again)
    assert [r.key for r in again.asked] == ["1#0", "1#0#1", "1#0#2"]
    assert (found.outcomes.completed, found.outcomes.from_log) == (2, 1)


def test_a_turn_without_an_answer_is_tried_again_with_its_conversation(tmp_path: Path) -> None:
    backend = answers(lambda said: Unavailable("0#0#1", "gone") if "q1" in said else "a0")
    with pytest.raises(Retry) as caught:
        run(talks(tmp_path, [talk()]), backend)
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    (line,) = logged(tmp_path)
    assert (line["outcome"], len(line["requests"])) == ("InfraError", 2)


def test_thoughts_are_no_part_of_the_conversation(tmp_path: Path) -> None:
    model = tiny_model(promptFormat="Chat", reasoning={"maxTokens": 50})
    backend = answers(lambda said: "<think>hm</think>a1" if "q1" in said else "<think>so</think>a0")
    found = run(dataclasses.replace(talks(tmp_path, [talk()]), model=model), backend)
    assert asked_of(backend)[1] == "<user>q0<assistant>a0<user>q1<assistant>"
    assert found.subsets[0].stats[0][:2] == (1, stats.UNIT_REAL)
    assert [r["reasoning"] for r in logged(tmp_path)[0]["requests"]] == ["so", "hm"]


def test_a_turn_in_which_nothing_is_found_makes_the_sample_one_without_answer(tmp_path: Path) -> None:
    found = run(
        talks(
            tmp_path,
            [talk(t=["1", "2"])],
            extract={"n": [{"lastNumber": {}}]},
            metrics=[{"name": "exact_match", "extract": "n", "primary": True}],
        ),
        answers(lambda said: "no idea" if "q1" in said else "it is 1"),
    )
    assert found.outcomes.no_answer == 1
    assert found.subsets[0].stats[0][:2] == (1, stats.UNIT_REAL // 2)
