"""Small things in little memory."""

from hypothesis import given
from hypothesis import strategies as st

from evaljob_runner.columns import Labels, Names, Texts


@given(st.lists(st.text()))
def test_names_are_numbered_as_they_come(texts: list[str]) -> None:
    names, numbers = Names(), dict[str, int]()
    for text in texts:
        assert names.number(text) == numbers.get(text)
        assert names.add(text) == numbers.setdefault(text, len(numbers))
    assert len(names) == len(numbers)
    assert [names.number(text) for text in texts] == [numbers[text] for text in texts]


def test_names_grow() -> None:
    names = Names()
    assert [names.add(f"n{i}") for i in range(5000)] == list(range(5000))
    assert [names.number(f"n{i}") for i in range(4990, 5010)] == [*range(4990, 5000), *[None] * 10]


@given(st.lists(st.text()))
def test_columns_give_back_what_was_put_in(texts: list[str]) -> None:
    column, labels = Texts(), Labels[str]()
    for text in texts:
        column.append(text)
        labels.append(text)
    rows = range(len(texts))
    assert [column[i] for i in rows] == [labels[i] for i in rows] == texts
    assert {label: list(of) for label, of in labels.rows().items()} == {
        text: [i for i in rows if texts[i] == text] for text in texts
    }
