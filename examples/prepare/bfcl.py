"""BFCL v4 "simple": one request and one Python function to call for it, from bfcl-eval (Apache-2.0)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from examples.prepare import packages

PACKAGE = "bfcl-eval"
PATH = "bfcl_eval/data/BFCL_v4_simple_python.json"
INSTRUCTION = """You can call this function:
{function}

Reply with one JSON object of the form {{"name": ..., "arguments": {{...}}}} that calls it, and nothing else.

{request}"""


@dataclass(frozen=True)
class Row:
    """A line of bfcl-simple.jsonl; `conversation` are OpenAI messages, `expected` is the function's name."""

    id: str
    conversation: tuple[dict[str, str], ...]
    expected: str


def read() -> list[dict[str, Any]]:
    """The items of the installed package."""
    lines = packages.file(PACKAGE, PATH).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def row(item: Mapping[str, Any]) -> Row:
    """One item, its function's schema written into the user's message.

    Raises:
        ValueError: the item has not exactly one turn of one message and one function.
    """
    (turn,), (function,) = item["question"], item["function"]
    (message,) = turn
    content = INSTRUCTION.format(
        function=json.dumps(function, ensure_ascii=False), request=message["content"]
    )
    return Row(item["id"], ({"role": message["role"], "content": content},), function["name"])
