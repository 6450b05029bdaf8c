"""Rows -> samples: what is read, what is refused, and how shards cut."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.names import Reason
from evaljob.plan import Partition, PlannedDataset
from evaljob.task import Task
from evaljob_runner import data
from evaljob_runner.assignment import Places
from evaljob_runner.data import Selection
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris
from evaljob_runner.sources.rows import JsonLines
from tests.runner_plans import planned

NOWHERE = Path("/nowhere")
Rows = Sequence[Mapping[str, Any]]


def task(**changes: Any) -> Task:  # noqa: ANN401 - any field
    base = {"requestType": "Generate", "prompt": "{{ q }}", "target": "{{ a }}"}
    return Task.model_validate(base | {"metrics": [{"name": "contains", "primary": True}]} | changes)


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def select(
    dataset: PlannedDataset, shard: tuple[int, int] = (0, 1), places: Places | None = None
) -> Selection:
    partition = Partition(model="m", dataset="set", shard=shard[0], shards=shard[1])
    assert dataset.task
    return data.select(dataset.dataset, dataset.task, partition, places or Places({}, {}, NOWHERE), NOWHERE)


def inline(rows: Rows | str, *, limit: int | None = None, **changes: Any) -> PlannedDataset:  # noqa: ANN401
    text = rows if isinstance(rows, str) else lines(rows)
    return planned(task(**changes), inline={"jsonl": text}, limit=limit)


def refused(dataset: PlannedDataset, reason: Reason, words: str, places: Places | None = None) -> None:
    with pytest.raises(Fatal, match=words) as caught:
        select(dataset, places=places)
    assert caught.value.reason is reason


def mounted(folder: Path) -> Places:
    return Places({"data": folder}, {"map": folder}, NOWHERE)


QA = [{"q": f"q{i}", "a": "x", "s": "even" if i % 2 == 0 else "odd"} for i in range(7)]


def test_ids_are_rows_of_the_source_and_empty_lines_do_not_count() -> None:
    found = select(inline('{"q": 1}\n\n{"q": 2}'))
    assert [s.id for s in found.samples] == ["0", "1"]
    assert [s.where for s in found.samples] == ["inline.jsonl line 1", "inline.jsonl line 3"]


def test_subsets_come_in_order_of_appearance_and_limit_cuts_each() -> None:
    found = select(inline(QA, subsets={"column": "s"}, limit=2))
    assert [s.id for s in found.samples] == ["even/0", "even/2", "odd/1", "odd/3"]
    assert dict(found.counts) == {"even": (4, 2), "odd": (3, 2)}
    assert found.limited


def test_a_limit_that_cuts_nothing_limits_nothing() -> None:
    assert not select(inline(QA, limit=7)).limited


@given(st.integers(1, 9), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_shards_are_disjoint_complete_in_order_and_never_cut_a_cluster(n: int, clusters: list[int]) -> None:
    rows = [{"q": i, "c": c, "s": c % 2} for i, c in enumerate(clusters)]
    dataset = inline(rows, subsets={"column": "s"}, cluster="{{ c }}")
    whole = select(dataset)
    parts = [select(dataset, (k, n)) for k in range(n)]
    assert [s.id for p in parts for s in p.samples] == [s.id for s in whole.samples]
    homes = [{(s.subset, s.cluster) for s in p.samples} for p in parts]
    assert sum(map(len, homes)) == len(set().union(*homes))
    for name, (size, expected) in whole.counts.items():
        assert sum(p.counts[name].expected for p in parts) == expected == size
    assert {p.digest for p in parts} == {whole.digest}


def test_ids_by_template_must_be_unique_and_both_lines_are_named() -> None:
    rows = [{"n": "a"}, {"n": "b"}, {"n": "a"}]
    refused(
        inline(rows, id="{{ n }}"),
        Reason.BAD_DATA,
        "inline.jsonl line 1 and inline.jsonl line 3 have the same id 'a'",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"q": 1}\n{"q": ', "line 2: not JSON"),
        ("[1]", "line 1: must be a JSON object, got list"),
        ('{"q": NaN}', "line 1: not JSON: NaN is not a JSON number"),
        ("[" * 100_000, "line 1: not JSON"),
        (
            '{"q": "\\\\ud83d \\ud83d\\ude00"}\n{"q": ["a\\uD83D"]}',
            "line 2: column 'q' holds .ud83d, half of a",
        ),
        ('{"q\\ude00": 1}', "line 1: column 'q\ufffd' holds .ude00, half of a"),
    ],
)
def test_a_broken_line_is_named(text: str, words: str) -> None:
    refused(inline(text), Reason.BAD_DATA, words)


def test_bytes_of_half_a_character_are_named_too(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'{"q": "\xed\x95\x9c"}\n{"q": "\xed\xa0\xbd"}\n')
    with pytest.raises(Fatal, match=r"f line 2: column 'q' holds .ud83d"):
        list(JsonLines("f", file).rows())


def test_no_samples_is_an_error_of_its_own() -> None:
    refused(inline(" \n"), Reason.EMPTY_DATASET, "no samples")
    splits = {"eval": "test", "column": "s"}
    refused(inline(QA, splits=splits), Reason.EMPTY_DATASET, "no samples with s = 'test'")


def test_a_missing_subset_column_is_named_with_the_columns_there_are() -> None:
    refused(inline(QA, subsets={"column": "topic"}), Reason.BAD_DATA, "'topic' .*columns are: a, q, s")


def test_derived_columns_build_on_each_other() -> None:
    found = select(inline([{"q": " x "}], fields={"t": "{{ q|trim }}", "u": "{{ t }}{{ t }}"}))
    assert found.samples.first(1)[0].columns["u"] == "xx"


def test_splits_are_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text(lines(QA))
    (tmp_path / "set" / "dev.jsonl").write_text(lines([{"q": "shot", "a": "y"}]))
    few = {"count": 1, "pool": "All"}
    dataset = planned(task(splits={"eval": "test", "fewShot": "dev"}, fewShot=few), source="pvc://data/set")
    found = select(dataset, places=mounted(tmp_path))
    assert len(found.samples) == 7
    assert [s.columns["q"] for s in found.pools[""]] == ["shot"]
    other = planned(task(splits={"eval": "train"}), source="pvc://data/set")
    refused(
        other,
        Reason.BAD_DATA,
        "no split 'train' .*data files there: dev.jsonl, test.jsonl",
        mounted(tmp_path),
    )


def test_folders_are_the_subsets_where_the_rows_do_not_say(tmp_path: Path) -> None:
    """C-Eval has a folder per subject, each with its own splits."""
    for subject in ("law", "art"):
        (tmp_path / "ceval" / subject).mkdir(parents=True)
        for split in ("val", "dev"):
            (tmp_path / "ceval" / subject / f"{split}.jsonl").write_text(
                lines([{"q": f"{subject} {split}", "a": 1}])
            )
    settings = task(
        splits={"eval": "val", "fewShot": "dev"}, subsets={"column": "subject"}, fewShot={"count": 1}
    )
    found = select(planned(settings, source="pvc://data/ceval"), places=mounted(tmp_path))
    assert [(s.id, s.columns["q"], s.columns["subject"]) for s in found.samples] == [
        ("art/0", "art val", "art"),
        ("law/1", "law val", "law"),
    ]
    assert {subset: [s.columns["q"] for s in pool] for subset, pool in found.pools.items()} == {
        "art": ["art dev"],
        "law": ["law dev"],
    }
    assert list(found.counts) == ["art", "law"]


def test_folders_are_no_subsets_of_rows_that_name_theirs(tmp_path: Path) -> None:
    """MMLU has a folder per subject and one with all: every question would count twice."""
    for folder in ("all", "law"):
        (tmp_path / "mmlu" / folder).mkdir(parents=True)
        (tmp_path / "mmlu" / folder / "test.jsonl").write_text(lines([{"q": "1", "subject": "law"}]))
    settings = task(splits={"eval": "test"}, subsets={"column": "subject"})
    dataset = planned(settings, source="pvc://data/mmlu")
    refused(dataset, Reason.BAD_DATA, "has a column 'subject' already.*name one folder", mounted(tmp_path))


@pytest.mark.parametrize(
    "source", ["pvc://data/set/test", "pvc://data/set/test.jsonl", "pvc://data/link.jsonl"]
)
def test_a_table_is_named_with_or_without_the_end_of_its_name(tmp_path: Path, source: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text(lines(QA))
    (tmp_path / "link.jsonl").symlink_to("set/test.jsonl")
    assert len(select(planned(task(), source=source), places=mounted(tmp_path)).samples) == 7


def test_splits_may_be_values_of_a_column() -> None:
    rows: Rows = [*QA, {"q": "shot", "a": "y", "s": "dev"}]
    splits = {"eval": "odd", "fewShot": "dev", "column": "s"}
    found = select(inline(rows, splits=splits, fewShot={"count": 1, "pool": "All"}))
    assert [s.columns["q"] for s in found.samples] == ["q1", "q3", "q5"]
    assert [s.columns["q"] for s in found.pools[""]] == ["shot"]


def test_a_pool_keeps_one_more_than_needed_and_no_document_twice() -> None:
    rows: Rows = [{"q": "same", "a": 1}, {"q": "same", "a": 1}, *QA]
    found = select(inline(rows, fewShot={"count": 2, "pool": "All"}))
    assert [s.columns["q"] for s in found.pools[""]] == ["same", "q0", "q1"]


@pytest.mark.parametrize("few_shot", [{"sampler": "Random", "count": 1}, {"sampler": "Fixed", "ids": ["6"]}])
def test_a_pool_that_does_not_give_its_first_documents_keeps_all(few_shot: dict[str, Any]) -> None:
    found = select(inline(QA, fewShot={**few_shot, "pool": "All"}), shard=(0, 7))
    assert len(found.pools[""]) == len(QA)


@pytest.mark.parametrize("source", ["pvc://data/../secret.jsonl", "pvc://data/link.jsonl"])
def test_a_path_that_leaves_its_claim_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.jsonl").write_text('{"q": 1}')
    (tmp_path / "data" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(Fatal, match="leads out of its volume"):
        uris.resolve(source, mounted(tmp_path / "data"))


def test_a_split_that_links_out_of_the_claim_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text('{"q": 1}')
    (tmp_path / "data" / "set" / "test.jsonl").symlink_to(tmp_path / "secret.jsonl")
    dataset = planned(task(splits={"eval": "test"}), source="pvc://data/set")
    refused(dataset, Reason.BAD_CONFIGURATION, "leads out of its volume", mounted(tmp_path / "data"))


def test_a_config_map_may_link_within_itself(tmp_path: Path) -> None:
    """The kubelet mounts keys as links to a hidden folder beside them."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "key").write_text('{"q": 1}')
    (tmp_path / "key").symlink_to("..data/key")
    found = select(planned(task(), source="configmap://map/key"), places=mounted(tmp_path))
    assert len(found.samples) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    absent = planned(task(), source="pvc://data/no.jsonl")
    refused(
        absent, Reason.BAD_DATA, "pvc://data/no.jsonl: nothing is there; beside it: none", mounted(tmp_path)
    )
    for i in range(12):
        (tmp_path / f"set{i:02}.jsonl").touch()
    beside = ", ".join(f"set{i:02}.jsonl" for i in range(10)) + " and 2 more"
    refused(absent, Reason.BAD_DATA, f"nothing is there; beside it: {beside}", mounted(tmp_path))
    refused(absent, Reason.BAD_CONFIGURATION, "give --mount data=DIR")


def test_the_digest_covers_the_whole_source() -> None:
    digests = {select(inline(QA[:n])).digest for n in (5, 6, 7)}
    assert len(digests) == 3
