"""Synthetic problems a model below one million parameters learns in minutes, drawn from a `random.Random`."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS = {
    "animal": _words("cat dog horse cow sheep lion tiger bear wolf fox frog duck hen goat mouse"),
    "color": _words("red blue green yellow black white brown pink purple orange gray"),
    "fruit": _words("apple pear plum grape lemon mango peach cherry melon fig lime kiwi"),
    "metal": _words("iron gold silver copper tin lead zinc nickel"),
    "tool": _words("hammer saw drill axe knife shovel rake wrench pliers file chisel"),
}
ARTICLES = {
    "animal": "an animal",
    "color": "a color",
    "fruit": "a fruit",
    "metal": "a metal",
    "tool": "a tool",
}
KINDS = ("animal", "fruit", "color", "tool")
UNSEEN = frozenset(word for kind in KINDS for word in WORDS[kind][-3:])
"""Words that never appear in a kind question of the training text: 12 of 49."""
LETTERS = "ABCD"
NAMES = _words("Tom Ann Ben Eva Sam Mia Leo Zoe Max Lily")
ITEMS = _words("apples books coins pens cards stones shells stamps")
Message = dict[str, str]


@dataclass(frozen=True)
class WordProblem:
    """A sum in words; `solution` shows the steps and ends in "#### " and the answer, as GSM8K does."""

    question: str
    solution: str
    answer: str
    topic: str


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with four choices; `answer` is the index of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int
    topic: str


@dataclass(frozen=True)
class CallProblem:
    """A conversation that ends in a user turn; the right reply is `call`, a JSON function call."""

    conversation: tuple[Message, ...]
    call: str
    expected: str
    topic: str


def _added(a: int, b: int) -> str:
    units, tens = a % 10 + b % 10, a // 10 * 10 + b // 10 * 10
    parts = f"{a % 10} + {b % 10} = {units}. {a // 10 * 10} + {b // 10 * 10} = {tens}."
    return f"{parts} {tens} + {units} = {a + b}.\n#### {a + b}"


def _subtracted(a: int, b: int) -> str:
    rest = a - b // 10 * 10
    return f"{a} - {b // 10 * 10} = {rest}. {rest} - {b % 10} = {a - b}.\n#### {a - b}"


def word_problem(rng: random.Random) -> WordProblem:
    """An addition (six in ten) or a subtraction of two-digit numbers."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    if rng.random() < 0.6:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        phrasings = (
            f"{name} has {a} {item} and buys {b} more. How many {item} does {name} have now?",
            f"{name} finds {a} {item} on Monday and {b} {item} on Tuesday. How many {item} in total?",
        )
        return WordProblem(rng.choice(phrasings), _added(a, b), str(a + b), "add")
    a = rng.randint(20, 99)
    b = rng.randint(10, a)
    phrasings = (
        f"{name} has {a} {item} and gives away {b}. How many {item} are left?",
        f"There are {a} {item} in a box. {name} takes {b} of them. How many {item} remain?",
    )
    return WordProblem(rng.choice(phrasings), _subtracted(a, b), str(a - b), "subtract")


def _words_with_one_of(rng: random.Random, kind: str, place: int) -> tuple[str, ...]:
    others = [other for other in sorted(WORDS) if other != kind]
    words: list[str] = []
    for index in range(4):
        pool = WORDS[kind] if index == place else WORDS[rng.choice(others)]
        words.append(rng.choice([word for word in pool if word not in words]))
    return tuple(words)


def _listed(words: Sequence[str]) -> str:
    # In the question itself: a question that leaves them out would be the same prompt for every document.
    return f"{', '.join(words[:-1])} and {words[-1]}"


def word_choice(rng: random.Random) -> ChoiceQuestion:
    """Which of four words is of a kind (nine in ten), or which of four numbers is the largest or smallest."""
    draw = rng.random()
    if draw < 0.9:
        kind, place = rng.choice(sorted(WORDS)), rng.randrange(4)
        words = _words_with_one_of(rng, kind, place)
        return ChoiceQuestion(f"Which of {_listed(words)} is {ARTICLES[kind]}?", words, place, kind)
    numbers = rng.sample(range(10, 100), 4)
    topic, best = ("largest", max(numbers)) if draw < 0.95 else ("smallest", min(numbers))
    choices = tuple(str(number) for number in numbers)
    question = f"Which of {_listed(choices)} is the {topic}?"
    return ChoiceQuestion(question, choices, numbers.index(best), topic)


def kind_question(rng: random.Random, unseen: bool = False) -> ChoiceQuestion:
    """What kind a word is, the four kinds always in the same order: a letter is all the model must say."""
    index = rng.randrange(4)
    words = [word for word in WORDS[KINDS[index]] if (word in UNSEEN) == unseen]
    return ChoiceQuestion(
        f"What kind of thing is {rng.choice(words)}?", KINDS, index, "unseen" if unseen else "seen"
    )


def _one_call(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    name, request = rng.choice(
        [
            ("add", f"Add {a} and {b}."),
            ("subtract", f"Subtract {b} from {a}."),
            ("multiply", f"Multiply {a} by {b}."),
        ]
    )
    return request, name, json.dumps({"name": name, "arguments": {"a": a, "b": b}})


def call_problem(rng: random.Random) -> CallProblem:
    """A request for a function call; in half of them an earlier request and its call come first."""
    turns: list[Message] = []
    topic = "one-turn"
    if rng.random() < 0.5:
        request, _, call = _one_call(rng)
        turns += [{"role": "user", "content": request}, {"role": "assistant", "content": call}]
        topic = "two-turns"
    request, name, call = _one_call(rng)
    return CallProblem((*turns, {"role": "user", "content": request}), call, name, topic)


def with_letters(question: str, choices: Sequence[str]) -> str:
    """The question followed by its choices, one a line, as "A. …"."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
    return "\n".join([question, *lines])
