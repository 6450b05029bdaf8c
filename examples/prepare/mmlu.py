"""The MMLU development questions of 57 subjects, out of the few-shot prompts inside lm-eval (MIT)."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from examples.prepare import packages

PACKAGE = "lm-eval"
PATH = "lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
QUESTION = re.compile(
    r"Q:\s+(?P<question>.+?)\s+\(A\) (?P<a>.+?)\s+\(B\) (?P<b>.+?)\s+\(C\) (?P<c>.+?)\s+\(D\) (?P<d>.+?)\n"
    r"A: Let's think.*The answer is \((?P<answer>[ABCD])\)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Row:
    """A line of mmlu-dev.jsonl; `answer` is an index, as in the data set cais/mmlu."""

    question: str
    subject: str
    choices: tuple[str, ...]
    answer: int


def read() -> dict[str, str]:
    """Subject → its few-shot prompt, from the installed package."""
    prompts: dict[str, str] = json.loads(packages.file(PACKAGE, PATH).read_bytes())
    return prompts


def parse(subject: str, block: str) -> Row | None:
    """One worked example as a row; None where it has not the form of a question with four choices."""
    match = QUESTION.match(block)
    if match is None or "(E)" in match["d"]:
        return None
    choices = tuple(match[letter].strip() for letter in "abcd")
    return Row(match["question"], subject, choices, "ABCD".index(match["answer"]))


def blocks(prompts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Subject and text of every worked example; each starts with "Q: "."""
    return [
        (subject, block)
        for subject, prompt in prompts.items()
        for block in re.split(r"\n(?=Q: )", prompt)[1:]
    ]


def rows(examples: Iterable[tuple[str, str]]) -> list[Row]:
    """The examples that parse; what does not is left out (the caller counts)."""
    return [row for subject, block in examples if (row := parse(subject, block))]
