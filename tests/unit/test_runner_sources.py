"""Which files of a folder are a split."""

from pathlib import Path

import pytest

from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris
from evaljob_runner.sources.layouts import split_files, split_folders

MMLU = ["README.md", "auxiliary_train-00000-of-00001.parquet", "dev-00000-of-00001.parquet"]
MMLU += ["test-00000-of-00001.parquet", "validation-00000-of-00001.parquet"]
OLD = [
    "data/test-00001-of-00002-0123456789abcdef.parquet",
    "data/test-00000-of-00002-fedcba9876543210.parquet",
]
CONVERTED = ["test/0000.parquet", "test/0001.parquet", "train/0000.parquet", "partial-test/0000.parquet"]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["test.jsonl", "train.jsonl", "test.jsonl.bak", "latest.jsonl"], ["test.jsonl"]),
        (["test.parquet"], ["test.parquet"]),
        (["data/test.jsonl"], ["data/test.jsonl"]),
        (MMLU, ["test-00000-of-00001.parquet"]),
        (OLD, OLD[::-1]),
        (CONVERTED, ["test/0000.parquet", "test/0001.parquet"]),
        (["test.csv", "other/test.jsonl", "test-1.jsonl"], []),
    ],
)
def test_a_split_is_found_by_its_name_alone(names: list[str], files: list[str]) -> None:
    assert split_files(names, "test", "s") == files


@pytest.mark.parametrize(
    "names",
    [
        ["test.jsonl", "test.parquet"],
        ["test.jsonl", "data/test.jsonl"],
        ["test-00000-of-00001.parquet", "test.parquet"],
        ["test-00000-of-00001.parquet", "test-00000-of-00002.parquet"],
    ],
)
def test_a_split_that_is_there_twice_is_refused(names: list[str]) -> None:
    with pytest.raises(Fatal, match=r"s: split 'test' is there more than once \(.*test.*, .*test.*\)"):
        split_files(names, "test", "s")


@pytest.mark.parametrize("numbers", [(0, 2), (1, 2), (0, 1)])
def test_a_numbered_file_that_is_missing_is_no_smaller_split(numbers: tuple[int, ...]) -> None:
    with pytest.raises(Fatal, match="s: split 'test' has 2 of 3 files"):
        split_files([f"test-0000{n}-of-00003.parquet" for n in numbers], "test", "s")


def test_each_folder_may_have_the_split_for_itself() -> None:
    names = ["README.md", "law/val-00000-of-00001.parquet", "art/val.jsonl", "art/test.jsonl", "misc/x.txt"]
    assert split_folders(names, "val", "s") == {
        "art": ["art/val.jsonl"],
        "law": ["law/val-00000-of-00001.parquet"],
    }


def test_a_name_with_signs_of_a_pattern_is_no_pattern() -> None:
    assert split_files(["testXv1.jsonl", "test.v1.jsonl"], "test.v1", "s") == ["test.v1.jsonl"]


def test_what_is_read_is_what_counts_in_the_digest(tmp_path: Path) -> None:
    """A file that a task does not read changes no token."""
    places = Places({"data": tmp_path}, {}, tmp_path)
    for name in ("test", "train"):
        (tmp_path / f"{name}.jsonl").write_text('{"a": 1}')

    def digest() -> str:
        return uris.open_source("pvc://data/.", None, places, tmp_path).split("test", None).digest()

    before = digest()
    (tmp_path / "train.jsonl").write_text('{"a": 2}')
    assert digest() == before
    (tmp_path / "test.jsonl").write_text('{"a": 2}')
    assert digest() != before
