"""Parquet: the same documents as from JSON lines, in little memory."""

import datetime as dt
import decimal
import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry, Stop
from evaljob_runner.sources.parquet import BATCH_ROWS, Parquet, plain
from evaljob_runner.sources.rows import JsonLines, RowFile, Rows
from tests.runner_plans import planned
from tests.unit.test_runner_data import mounted, refused, select, task

DOCUMENTS = [
    {
        "q": f"q{i}",
        "a": i,
        "s": f"topic {i % 3}",
        "choices": ["x", "ÿ", str(i)],
        "meta": {"label": [i, None], "score": i / 7},
        "gone": None if i % 2 else "here",
    }
    for i in range(1000)
]


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:  # noqa: ANN401 - of pyarrow's writer
    parquet.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents as `set.jsonl` and as `set.parquet` with seven row groups."""
    made = tmp_path_factory.mktemp("parquet")
    (made / "set.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
    write(made / "set.parquet", DOCUMENTS, row_group_size=150)
    return made


def test_documents_ids_and_shards_are_those_of_json_lines(folder: Path) -> None:
    """Nested lists, structs and nulls too; the subsets are mixed, so that reading has to sort them out."""
    settings = task(subsets={"column": "s"}, fewShot={"count": 2}, cluster="{{ a // 2 }}")
    for shard in ((0, 1), (1, 3)):
        found = {
            kind: select(
                planned(settings, source=f"pvc://data/set.{kind}", limit=200), shard, mounted(folder)
            )
            for kind in ("jsonl", "parquet")
        }
        lines, rows = found["jsonl"], found["parquet"]
        assert [(s.id, s.columns, s.digest) for s in rows.samples] == [
            (s.id, s.columns, s.digest) for s in lines.samples
        ]
        assert rows.counts == lines.counts
        assert {k: [s.id for s in v] for k, v in rows.pools.items()} == {
            k: [s.id for s in v] for k, v in lines.pools.items()
        }
    assert rows.samples.first(1)[0].where.startswith("pvc://data/set.parquet row ")


@given(st.lists(st.integers(0, 999), max_size=20))
def test_any_rows_can_be_read_again_in_any_order(folder: Path, wanted: list[int]) -> None:
    file = Parquet("set.parquet", folder / "set.parquet")
    assert [row["a"] for row in file.read((n, n) for n in wanted)] == wanted


def test_a_split_of_several_files_counts_its_rows_through(tmp_path: Path) -> None:
    files: list[RowFile] = [JsonLines("inline", inline='{"a": 0}\n\n{"a": 1}')]
    files += [Parquet(n, write(tmp_path / n, [{"a": int(n)}])) for n in ("2", "3")]
    rows = Rows("split", tuple(files))
    assert [(line.row, line.file, line.number, line.data["a"]) for line in rows] == [
        (0, 0, 1, 0),
        (1, 0, 3, 1),
        (2, 1, 0, 2),
        (3, 2, 0, 3),
    ]
    backwards = [(line.file, line.at, line.number) for line in rows][::-1]
    assert [row["a"] for row in rows.read(backwards)] == [3, 2, 1, 0]
    assert rows.where(0, 3) == "inline line 3"
    assert rows.where(2, 0) == "3 row 0"


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """One row group of 16 MB, which pyarrow would read as a whole by default."""
    chance = random.Random(0)  # noqa: S311 - no secret
    texts = [{"a": i, "text": chance.randbytes(1000).hex()} for i in range(8_000)]
    path = write(tmp_path / "large.parquet", texts, compression="none", use_dictionary=False)
    del texts
    assert path.stat().st_size > 16_000_000
    before = pa.total_allocated_bytes()
    file = Parquet("large.parquet", path)
    seen = [pa.total_allocated_bytes() for found in file.rows() if found.number % BATCH_ROWS == 0]
    seen += [pa.total_allocated_bytes() for _ in file.read((n, n) for n in (7000, 3, 7999))]
    assert 0 < max(seen) - before < 6_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (b"\x00\xff", "AP8="),
        (dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC), "2026-01-31T12:00:00+00:00"),
        (dt.date(2026, 1, 31), "2026-01-31"),
        (decimal.Decimal("1.50"), "1.50"),
        ({"a": [1, True, None, 2.5, "x"]}, {"a": [1, True, None, 2.5, "x"]}),
        ([{"key": [float("inf")]}], [{"key": [None]}]),
    ],
)
def test_values_become_what_json_can_say(value: Any, expected: Any) -> None:  # noqa: ANN401 - any value
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_a_map_is_an_object(tmp_path: Path) -> None:
    column = pa.array([[("a", 1), ("b", 2)]], pa.map_(pa.string(), pa.int32()))
    parquet.write_table(pa.table({"m": column}), tmp_path / "map.parquet")
    (found,) = Parquet("map", tmp_path / "map.parquet").rows()
    assert found.data == {"m": {"a": 1, "b": 2}}


@pytest.mark.parametrize("damage", ["text", "cut", "pages"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "x.parquet", DOCUMENTS)
    whole = path.read_bytes()
    middle = whole[:200] + b"\x00" * 400 + whole[600:]
    path.write_bytes({"text": b"no table", "cut": whole[:-100], "pages": middle}[damage])
    dataset = planned(task(), source="pvc://data/x.parquet")
    refused(dataset, Reason.BAD_DATA, "pvc://data/x.parquet: not readable as Parquet", mounted(tmp_path))


def test_a_file_system_that_fails_says_nothing_about_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor of a file server that has started again is stale, and fine at the next attempt."""
    file = Parquet("set", folder / "set.parquet")

    def refused_by(number: int) -> Stop:
        monkeypatch.setattr(parquet, "ParquetFile", failing(number))
        with pytest.raises(Stop) as caught:
            next(file.rows())
        return caught.value

    assert isinstance(refused_by(errno.ENOENT), Fatal)
    passing = refused_by(errno.ESTALE)
    assert isinstance(passing, Retry)
    assert passing.reason is Reason.DEPENDENCY_UNAVAILABLE


@pytest.mark.parametrize("kind", [JsonLines, Parquet])
def test_so_it_is_when_the_file_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[str, Path], RowFile]
) -> None:
    file = kind("set", folder / "set.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", failing(errno.EIO))
        with pytest.raises(Retry, match="set: Input/output error"):
            file.stamp()
        patched.setattr(Path, "stat", failing(errno.EACCES))
        with pytest.raises(Fatal, match="set: Permission denied"):
            file.stamp()


def test_so_it_is_in_the_middle_of_reading() -> None:
    """Nothing is at address 0 of a process: the file opens, and reading it is an input/output error."""
    memory = JsonLines("lines", Path("/proc/self/mem"))
    for read in (memory.digest, lambda: next(memory.rows()), lambda: next(memory.read([(0, 1)]))):
        with pytest.raises(Retry, match="lines: Input/output error"):
            read()


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:  # noqa: ANN401 - stands in for anything
        raise OSError(number, os.strerror(number))

    return fail
