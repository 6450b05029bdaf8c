"""The nearest examples, by BM25."""

from typing import Any

from evaljob_runner.data import Sample
from evaljob_runner.prompts import Prompter
from tests.unit.test_runner_data import task
from tests.unit.test_runner_prompts import sample

POOL = tuple(
    sample(str(i), q=q, a="")
    for i, q in enumerate(
        ["the capital of France", "2 plus 3", "a red apple", "北京是哪里", "the river of France", "5 plus 3"]
    )
)


def similar(question: str, count: int = 2, pool: tuple[Sample, ...] = POOL) -> list[str]:
    few: dict[str, Any] = {"count": count, "sampler": "Similar", "pool": "All"}
    prompter = Prompter(task(prompt="{{ q }}", fewShot=few), {"": pool}, chat=False)
    return [s.id for s in prompter.prompt(sample("x", q=question, a="")).few_shot]


def test_the_most_similar_example_stands_next_to_the_question() -> None:
    assert similar("which river is in France") == ["0", "4"]
    assert similar("what is 2 plus 3") == ["5", "1"]


def test_a_language_without_spaces_is_compared_by_letters() -> None:
    assert similar("北京", count=1) == ["3"]


def test_of_equally_similar_examples_the_first_of_the_pool_is_nearest() -> None:
    assert similar("zzz", count=3) == ["2", "1", "0"]
    assert similar("", count=1) == ["0"]


def test_the_test_item_is_not_its_own_example() -> None:
    twin = Sample(**{**vars(POOL[0]), "id": "twin"})
    prompter = Prompter(
        task(prompt="{{ q }}", fewShot={"count": 1, "sampler": "Similar", "pool": "All"}),
        {"": POOL},
        chat=False,
    )
    assert [s.id for s in prompter.prompt(twin).few_shot] == ["4"]
