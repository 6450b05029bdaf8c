"""Write the data sets of the tiny model: `python -m tests.tiny.make_data OUT`."""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.tiny import problems

SEED = 999
GSM, CHAT = 64, 48
KIND_SIZES = {"seen": 32, "unseen": 9}
MC_SIZES = {"animal": 17, "color": 13, "fruit": 11, "metal": 9, "tool": 7, "largest": 5, "smallest": 3}
"""Test questions per topic: different sizes, so that an average over subsets that ignores them is wrong."""
DEV = 3
"""Questions of the few-shot pool, per topic."""
T = TypeVar("T")
Row = dict[str, object]


def _distinct(draw: Callable[[], T], key: Callable[[T], str], count: int) -> list[T]:
    """The first `count` draws with different keys."""
    found: dict[str, T] = {}
    while len(found) < count:
        drawn = draw()
        found.setdefault(key(drawn), drawn)
    return list(found.values())


def gsm(rng: random.Random) -> list[Row]:
    """Columns question, solution, answer, topic (add or subtract)."""
    drawn = _distinct(lambda: problems.word_problem(rng), lambda p: p.question, GSM)
    return [asdict(problem) for problem in drawn]


def _choice_rows(questions: Sequence[problems.ChoiceQuestion], test: int) -> list[Row]:
    return [
        asdict(question) | {"split": "test" if index < test else "dev"}
        for index, question in enumerate(questions)
    ]


def _of_topic(rng: random.Random, topic: str) -> problems.ChoiceQuestion:
    while True:
        question = problems.word_choice(rng)
        if question.topic == topic:
            return question


def mc(rng: random.Random) -> list[Row]:
    """Columns question, choices, answer (index), topic (seven of them), split (test or dev)."""
    rows: list[Row] = []
    for topic, size in MC_SIZES.items():
        questions = _distinct(partial(_of_topic, rng, topic), lambda q: q.question, size + DEV)
        rows += _choice_rows(questions, size)
    return rows


def kind(rng: random.Random) -> list[Row]:
    """As mc; the subsets are words that training asked about, and words that it did not."""
    rows: list[Row] = []
    for topic, size in KIND_SIZES.items():
        unseen = topic == "unseen"
        questions = _distinct(
            partial(problems.kind_question, rng, unseen=unseen), lambda q: q.question, size + DEV
        )
        rows += _choice_rows(questions, size)
    return rows


def chat(rng: random.Random) -> list[Row]:
    """Columns conversation (OpenAI messages), call (the JSON reply), expected (its name), topic."""
    drawn = _distinct(lambda: problems.call_problem(rng), lambda p: json.dumps(p.conversation), CHAT)
    return [asdict(problem) for problem in drawn]


def write(out: Path, seed: int = SEED) -> None:
    """Write gsm.jsonl, mc.jsonl, kind.jsonl and chat.jsonl into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name, make in (("gsm", gsm), ("mc", mc), ("kind", kind), ("chat", chat)):
        rows = make(random.Random(f"{seed}/{name}"))  # noqa: S311 - seeded on purpose
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    write(parser.parse_args().out)
