"""What examples/prepare makes of the packages' content, on small content of our own."""

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.prepare import __main__ as prepare
from examples.prepare import bfcl, capitals, folders, mmlu, model_config, packages

BLOCK = """\
Q: Which number is even?
(A) 1 (B) 2 (C) 3 (D) 5
A: Let's think step by step. 2 is even. The answer is (B).
"""
METADATA = {
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [3, 3, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b"],
}


def country(
    code: str, capital: str, continent: str = "asia", population: int = 2_000_000
) -> capitals.Country:
    return capitals.Country(code, f"Land {code}", capital, continent, population)


def countries() -> list[capitals.Country]:
    asian = [country(f"A{i}", f"City {i}") for i in range(6)]
    return [*asian, country("O1", "Port", "oceania"), country("O2", "Bay", "oceania")]


def test_wrong_choices_come_from_the_same_continent_where_it_has_enough() -> None:
    continent = {c.capital: c.continent for c in countries()}
    for row in capitals.rows(countries()):
        near = sum(continent[choice] == row.continent for choice in row.choices)
        assert near == (4 if row.continent == "asia" else 2)


def test_answer_is_the_place_of_the_capital_among_four_different_choices() -> None:
    for row in capitals.rows(countries()):
        assert row.choices[row.answer] == row.capital
        assert len(set(row.choices)) == 4


def test_capitals_do_not_depend_on_the_order_of_the_source() -> None:
    assert capitals.rows(countries()) == capitals.rows(countries()[::-1])


@pytest.mark.parametrize(
    "left_out",
    [country("S", "Hamlet", population=1_000_000), country("CS", "Twin"), country("G", "Land")],
    ids=["small", "dissolved", "name contains the capital"],
)
def test_countries_that_are_not_asked(left_out: capitals.Country) -> None:
    assert capitals.rows([*countries(), left_out]) == capitals.rows(countries())


def test_mmlu_question_is_parsed() -> None:
    expected = mmlu.Row("Which number is even?", "arithmetic", ("1", "2", "3", "5"), 1)
    assert mmlu.parse("arithmetic", BLOCK) == expected


def test_mmlu_choices_may_stand_on_lines_of_their_own() -> None:
    block = BLOCK.replace("(A) 1 (B) 2 (C) 3 (D) 5", "(A) 1\n(B) 2\n(C) 3\n(D) 5")
    assert block != BLOCK
    assert mmlu.parse("arithmetic", block) == mmlu.parse("arithmetic", BLOCK)


def test_mmlu_question_with_five_choices_is_left_out() -> None:
    prompt = "About numbers.\n\n" + BLOCK + "\n" + BLOCK.replace("(D) 5", "(D) 5 (E) 7") + "\n" + BLOCK
    blocks = mmlu.blocks({"arithmetic": prompt})
    assert len(blocks) == 3
    assert len(mmlu.rows(blocks)) == 2


def test_bfcl_request_holds_the_schema_and_the_form_of_the_answer() -> None:
    function = {"name": "area", "parameters": {"type": "dict"}}
    item = {
        "id": "x_0",
        "question": [[{"role": "user", "content": "Area of 2 by 3?"}]],
        "function": [function],
    }
    row = bfcl.row(item)
    (message,) = row.conversation
    assert (row.id, row.expected, message["role"]) == ("x_0", "area", "user")
    assert json.dumps(function) in message["content"]
    assert '{"name": ..., "arguments": {...}}' in message["content"]
    assert message["content"].endswith("Area of 2 by 3?")


def test_tokenizer_splits_digits_as_the_gguf_file_says() -> None:
    split = model_config.tokenizer(METADATA)["pre_tokenizer"]["pretokenizers"]
    assert split[0] == {"type": "Digits", "individual_digits": True}


def test_tokenizer_keeps_ids_merges_and_control_tokens() -> None:
    found = model_config.tokenizer(METADATA)
    assert found["model"]["vocab"]["ab"] == 4
    assert found["model"]["merges"] == [["a", "b"]]
    assert [token["content"] for token in found["added_tokens"]] == ["<|endoftext|>", "<|im_start|>"]


def test_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"tokenizer.ggml.pre is 'gpt-2', known is only 'smollm'"):
        model_config.tokenizer(METADATA | {"tokenizer.ggml.pre": "gpt-2"})


def test_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"package no-such-package is missing: pip install"):
        packages.version("no-such-package")


@pytest.fixture
def strict_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


def part(calls: list[Path]) -> prepare.Part:
    def fill(out: Path) -> None:
        calls.append(out)
        (out / "a.jsonl").write_text(f"{len(calls)}\n")

    return prepare.Part("data", ("pytest",), fill)


def test_second_call_makes_nothing(tmp_path: Path) -> None:
    calls: list[Path] = []
    prepare.make(tmp_path, part(calls))
    prepare.make(tmp_path, part(calls))
    assert len(calls) == 1


def test_folder_is_made_again_when_its_stamp_tells_of_other_inputs(tmp_path: Path) -> None:
    calls: list[Path] = []
    prepare.make(tmp_path, part(calls))
    (tmp_path / ".stamps" / "data").write_text("other")
    prepare.make(tmp_path, part(calls))
    assert (tmp_path / "data" / "a.jsonl").read_text() == "2\n"


def test_an_interrupted_call_leaves_no_half_made_folder(tmp_path: Path) -> None:
    def fill(out: Path) -> None:
        (out / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.make(tmp_path, prepare.Part("data", (), fill))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("strict_umask")
def test_any_user_may_read_what_is_made(tmp_path: Path) -> None:
    """Pods run as users of their own; temporary folders and safetensors files start as 0700 and 0600."""
    prepare.make(tmp_path, dataclasses.replace(part([]), name="models/small"))
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("models", "models/small")]
    assert modes == [0o755, 0o755]
    assert stat.S_IMODE((tmp_path / "models" / "small" / "a.jsonl").stat().st_mode) == 0o644


@pytest.mark.usefixtures("strict_umask")
def test_any_user_may_write_to_the_output(tmp_path: Path) -> None:
    folders.shared(tmp_path / "output")
    assert stat.S_IMODE((tmp_path / "output").stat().st_mode) == 0o1777
