"""Which files of a folder are a split. Names only: the same for a claim and for a hub's repository."""

import re
from collections.abc import Iterable, Mapping

from evaljob.names import Reason
from evaljob_runner.errors import Fatal

SUFFIXES = (".jsonl", ".parquet")
FORMS = "SPLIT.jsonl, SPLIT.parquet, SPLIT-00000-of-00001.parquet or SPLIT/*.parquet, also below data/"
"""What is looked for, for messages."""


def split_files(names: Iterable[str], split: str, source: str) -> list[str]:
    """The files of a split, in order.

    The forms are those of a Hugging Face hub's dataset repositories: `test.jsonl`, `test-00000-of-00002.parquet`
    (older ones end in a hash), and `test/0000.parquet`, which the hub's own conversion to Parquet writes.

    Raises:
        Fatal: BadData, when two forms are there, or a numbered file is missing.
    """
    form = re.compile(
        rf"(?P<where>(?:data/)?){re.escape(split)}"
        r"(?:-(?P<number>\d+)-of-(?P<of>\d+)(?:-[0-9a-f]{16})?|(?P<folder>/)[^/]+)?(?P<suffix>\.jsonl|\.parquet)"
    )
    found = [match for name in sorted(names) if (match := form.fullmatch(name))]
    forms = {(m["where"], m["of"], m["folder"], m["suffix"]): m[0] for m in found}
    if len(forms) > 1:
        raise Fatal(
            Reason.BAD_DATA,
            f"{source}: split {split!r} is there more than once ({', '.join(forms.values())}): name one file",
        )
    numbers = [int(m["number"]) for m in found if m["number"]]
    if numbers and numbers != list(range(int(found[0]["of"]))):
        raise Fatal(
            Reason.BAD_DATA, f"{source}: split {split!r} has {len(numbers)} of {int(found[0]['of'])} files"
        )
    return [m[0] for m in found]


def split_folders(names: Iterable[str], split: str, source: str) -> Mapping[str, list[str]]:
    """The files of a split that every folder has for itself, by folder: C-Eval has one per subject.

    Raises:
        Fatal: as `split_files`.
    """
    inner: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, slash, rest = name.partition("/")
        if slash:
            inner.setdefault(folder, []).append(rest)
    found = {folder: split_files(rest, split, f"{source}/{folder}") for folder, rest in inner.items()}
    return {folder: [f"{folder}/{name}" for name in files] for folder, files in found.items() if files}
