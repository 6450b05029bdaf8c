"""Samples -> prompts and token ids: pure functions, the same for any order of datasets."""

import datetime as dt
from typing import Any

import pytest

from evaljob.names import Reason
from evaljob.task import Task, Truncate
from evaljob_runner import conversation, templates, tokens
from evaljob_runner.backends.base import TextPairs
from evaljob_runner.backends.scripted import Characters
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.tokens import Encoded
from tests.unit.builders import ROLLING
from tests.unit.test_runner_data import task

DATE = dt.date(2026, 1, 31)


def sample(name: str = "x", **columns: Any) -> Sample:  # noqa: ANN401 - a document
    return Sample(id=name, subset="s", cluster=None, columns=columns, digest=name, where="f line 1")


def prompt(*, chat: bool = False, columns: dict[str, Any] | None = None, **changes: Any) -> Prompt:  # noqa: ANN401
    prompter = Prompter(task(**changes), {}, chat=chat)
    return prompter.prompt(sample(**({"q": "Why?", "a": "so"} if columns is None else columns)))


CHOICE: dict[str, Any] = {
    "requestType": "LogLikelihood",
    "prompt": "{{ q }}",
    "choices": {"template": "{{ c }}"},
    "target": "{{ a }}",
    "metrics": [{"name": "acc", "primary": True}],
}


def test_text_is_the_prompt_as_it_is_and_a_trailing_newline_stays() -> None:
    assert prompt(prompt="Q: {{ q }}\n").text == "Q: Why?\n"


def test_chat_is_one_user_turn_with_description_and_examples() -> None:
    shots = [sample("s1", q="1+1", a="2")]
    few = task(description="Sums.\n", prompt="{{ q }}=", fewShot={"count": 1, "pool": "All"})
    made = Prompter(few, {"": tuple(shots)}, chat=True).prompt(sample(q="2+2", a="4"))
    assert made.messages == ({"role": "user", "content": "Sums.\n1+1= 2\n\n2+2="},)
    assert made.text == ""


POOL = tuple(sample(f"s{i}", q=f"{i}+{i}", a=str(2 * i)) for i in range(20))


def made(
    few_shot: dict[str, Any],
    *,
    chat: bool = False,
    seed: int = 0,
    of: Sample | None = None,
    **changes: Any,  # noqa: ANN401
) -> Prompt:
    few = task(prompt="{{ q }}=", fewShot={"pool": "All", **few_shot}, **changes)
    return Prompter(few, {"": POOL}, chat=chat, seed=lambda _: seed).prompt(of or sample(q="x", a="y"))


def turns(found: Prompt) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in found.messages]


def test_examples_may_be_turns_and_the_description_a_system_turn() -> None:
    few = {"count": 2, "asTurns": True}
    examples = [("user", "0+0="), ("assistant", "0"), ("user", "1+1="), ("assistant", "2")]
    by_system = made(few, chat=True, description="Sums.", descriptionRole="System")
    assert turns(by_system) == [("system", "Sums."), *examples, ("user", "x=")]
    by_user = made(few, chat=True, description="Sums: ")
    assert turns(by_user) == [("user", "Sums: 0+0="), *examples[1:], ("user", "x=")]
    assert made(few, description="Sums: ").text == "Sums: 0+0= 0\n\n1+1= 2\n\nx="


def test_a_system_description_stands_before_one_user_turn() -> None:
    found = made({"count": 1}, chat=True, description="Sums.", descriptionRole="System")
    assert turns(found) == [("system", "Sums."), ("user", "0+0= 0\n\nx=")]


def test_the_answer_of_an_example_may_show_the_way_to_it() -> None:
    assert made({"count": 1, "answer": "it is {{ a }}"}).text == "0+0= it is 0\n\nx="


def test_a_chat_model_may_have_a_prompt_of_its_own() -> None:
    assert prompt(prompt="{{ q }}", chatPrompt="Please: {{ q }}").text == "Why?"
    assert turns(prompt(prompt="{{ q }}", chatPrompt="Please: {{ q }}", chat=True)) == [
        ("user", "Please: Why?")
    ]


def test_every_answer_begins_with_the_assistants_prefix() -> None:
    assert made({"count": 1}, assistantPrefix="Sum:").text == "0+0= Sum: 0\n\nx= Sum:"
    assert made({"count": 1}, assistantPrefix="Sum: ").text == "0+0= Sum: 0\n\nx= Sum: "
    found = made({"count": 1, "asTurns": True}, chat=True, assistantPrefix="Sum:")
    assert turns(found) == [("user", "0+0="), ("assistant", "Sum: 0"), ("user", "x=")]
    assert encoded(found).text == "<user>0+0=<assistant>Sum: 0<user>x=<assistant>Sum:"


def test_a_choice_follows_the_prefix_with_a_delimiter_unless_it_ends_in_space() -> None:
    choice = {**CHOICE, "choices": {"values": ["a", "b"]}, "target": "0"}
    assert prompt(**choice, assistantPrefix="So:").delimiter == " "
    assert prompt(**choice, assistantPrefix="So:", chat=True).delimiter == " "
    assert prompt(**choice, assistantPrefix="So: ", chat=True).delimiter == ""
    assert prompt(**choice, chat=True).delimiter == ""


def test_random_examples_depend_on_the_seed_and_the_sample_alone() -> None:
    def picked(seed: int, of: Sample | None = None) -> list[str]:
        return [s.id for s in made({"count": 3, "sampler": "Random"}, seed=seed, of=of).few_shot]

    assert picked(1) == picked(1)
    assert len({tuple(picked(seed)) for seed in range(10)}) == 10
    for seed in range(50):
        found = picked(seed, POOL[3])
        assert "s3" not in found
        assert len(set(found)) == 3


def test_fixed_examples_are_those_that_are_named_in_their_order() -> None:
    fixed = {"sampler": "Fixed", "ids": ["s7", "s2"]}
    assert [s.id for s in made(fixed).few_shot] == ["s7", "s2"]
    assert made(fixed, of=POOL[2]).leaks
    with pytest.raises(Fatal, match="'s99' is not in the pool"):
        made({"sampler": "Fixed", "ids": ["s99"]})


def test_the_test_item_is_never_its_own_example() -> None:
    pool = tuple(sample(f"s{i}", q=f"q{i}", a=str(i)) for i in range(3))
    made = Prompter(task(fewShot={"count": 2, "pool": "All"}), {"": pool}, chat=False).prompt(pool[1])
    assert [s.id for s in made.few_shot] == ["s0", "s2"]
    assert not made.leaks


def test_an_example_that_asks_the_same_question_is_a_leak() -> None:
    pool = (sample("other", q="q", a="b"),)
    made = Prompter(task(fewShot={"count": 1, "pool": "All"}), {"": pool}, chat=False).prompt(
        sample(q="q", a="a")
    )
    assert made.leaks


def test_too_small_a_pool_is_said() -> None:
    few = Prompter(task(fewShot={"count": 2}), {"s": (sample("s1", q="q", a="a"),)}, chat=False)
    with pytest.raises(Fatal, match=r"fewShot.count is 2, but the pool of subset 's' has 1 other"):
        few.prompt(sample(q="x", a="y"))


@pytest.mark.parametrize("sampler", ["First", "Random", "Similar"])
@pytest.mark.parametrize("pools", [{}, {"t": (sample("s1", q="q", a="a"),)}, {"s": ()}])
def test_a_subset_without_a_pool_is_said(sampler: str, pools: dict[str, tuple[Sample, ...]]) -> None:
    few = Prompter(task(fewShot={"count": 1, "sampler": sampler}), pools, chat=False)
    with pytest.raises(Fatal, match=r"the pool of subset 's' has 0 other examples"):
        few.prompt(sample(q="x", a="y"))


def test_examples_of_choices_show_the_choice() -> None:
    pool = (sample("s1", q="Red?", c=["no", "yes"], a=1),)
    few = task(**CHOICE, fewShot={"count": 1, "pool": "All"})
    made = Prompter(few, {"": pool}, chat=False).prompt(sample(q="Blue?", c=["no", "yes"], a=0))
    assert made.text == "Red? yes\n\nBlue?"
    assert made.choices == ("no", "yes")


def test_choices_follow_a_chat_template_without_delimiter() -> None:
    columns = {"q": "Q", "c": ["a", "b"], "a": 0}
    assert prompt(**CHOICE, columns=columns).delimiter == " "
    assert prompt(**CHOICE, columns=columns, chat=True).delimiter == ""


@pytest.mark.parametrize("target", ["2", "-1", "a", ""])
def test_a_target_that_is_no_choice_is_refused(target: str) -> None:
    with pytest.raises(Fatal, match=r"index of a choice, 0 to 1"):
        prompt(**CHOICE, columns={"q": "Q", "c": ["a", "b"], "a": target})


def test_references_are_texts_or_json() -> None:
    found = prompt(references="{{ r }}", columns={"q": "", "a": "", "r": ["a", 1.5, True, {"ü": [None]}]})
    assert found.references == ("a", "1.5", "True", '{"ü": [null]}')


MADE_OF_X = {"q": "", "a": "0", "x": [{"y": "so"}, {}]}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"references": "{{ [x[1].y] }}"}, "references[0]"),
        ({"references": "{{ x|map(attribute='y')|list }}"}, "references[1]"),
        ({"references": "{{ ['b', {'k': ['c', x[1].y]}] }}"}, "references[1]['k'][1]"),
        (CHOICE | {"choices": {"template": "{{ ['b', x[1].y] }}"}}, "choices.template[1]"),
        (CHOICE | {"choices": {"template": "{{ ['b', [x[1].y]] }}"}}, "choices.template[1][0]"),
        (CHOICE | {"choices": {"values": ["b", "c"]}, "references": "{{ [x[1].y] }}"}, "references[0]"),
        ({"target": "{{ [x[1].y] }}"}, "target"),
        ({"prompt": "{{ [x[1].y] }}"}, "prompt"),
    ],
)
def test_an_undefined_item_is_bad_data(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(Fatal) as caught:
        prompt(**changes, columns=MADE_OF_X)
    assert caught.value.reason is Reason.BAD_DATA
    assert str(caught.value).startswith(f"{place}: ")
    assert "(f line 1)" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"prompt": "{{ x.items }}"}, "prompt: an expression"),
        ({"prompt": "{{ q.title }}"}, "prompt: an expression"),
        ({"target": "{{ ['b', x.items] }}"}, "target: an expression[1]"),
        ({"references": "{{ ['b', x.items] }}"}, "references[1]"),
    ],
)
def test_a_method_is_no_value(changes: dict[str, Any], place: str) -> None:
    """Jinja finds a dict's own `items` before a key of that name, and writes its address."""
    with pytest.raises(Fatal) as caught:
        prompt(**changes, columns={"q": "", "a": "0", "x": {"items": "so"}})
    assert caught.value.reason is Reason.BAD_DATA
    assert str(caught.value).startswith(
        f"{place}: a method and no value; a key of that name is written ['KEY']"
    )
    assert prompt(prompt="{{ x['items'] }}", columns={"q": "", "a": "", "x": {"items": "so"}}).text == "so"


def test_a_reference_that_is_no_json_is_bad_data() -> None:
    with pytest.raises(Fatal, match=r"references: Object of type date is not JSON.* \(f line 1\)") as caught:
        prompt(references="{{ r }}", columns={"q": "", "a": "", "r": [[DATE]]})
    assert caught.value.reason is Reason.BAD_DATA


def test_an_undefined_variable_is_named_with_template_and_columns() -> None:
    with pytest.raises(
        Fatal, match=r"prompt: 'nme' is undefined \(f line 1\); the columns are: a, q"
    ) as caught:
        prompt(prompt="{{ nme }}")
    assert caught.value.reason is Reason.BAD_DATA


def test_a_template_may_ask_whether_a_column_is_there() -> None:
    template = "{{ title ~ ': ' if title is defined else '' }}{{ q }}"
    assert prompt(prompt=template, columns={"q": "Q", "a": ""}).text == "Q"
    assert prompt(prompt=template, columns={"q": "Q", "title": "T", "a": ""}).text == "T: Q"
    with pytest.raises(Fatal, match="'q' is undefined"):
        prompt(prompt=template, columns={"title": "T", "a": ""})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for x in q %}{{ x }}{% endfor %}", "no {% statements %}"),
        ("{{ q", "unexpected end"),
        ("{{ q|frobnicate }}", "No filter named 'frobnicate'"),
        ("{{ q|random }}", "No filter named 'random'"),
    ],
)
def test_a_template_that_cannot_be_pure_is_refused(template: str, words: str) -> None:
    with pytest.raises(Fatal) as caught:
        prompt(prompt=template)
    assert caught.value.reason is Reason.BAD_CONFIGURATION
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "template", ["{{ q.__class__.__mro__ }}", "{{ q.nothing }}", "{{ q + 1 }}", "{{ 1 / 0 }}"]
)
def test_an_expression_that_fails_is_bad_data(template: str) -> None:
    with pytest.raises(Fatal, match="prompt: "):
        prompt(prompt=template)


def test_random_text_is_not_there() -> None:
    with pytest.raises(Fatal, match="'lipsum' is undefined"):
        prompt(prompt="{{ lipsum() }}")


def test_a_value_template_yields_the_list_itself() -> None:
    value = templates.value("messages", " {{ turns[1:] }} ")
    assert value.evaluate({"turns": [{"role": "a"}, {"role": "b"}], "self": 1}, "f") == [{"role": "b"}]


@pytest.mark.parametrize("source", ["{{ a }}{{ b }}", "x {{ a }}", "{{ a }} and }}"])
def test_a_value_template_is_one_expression(source: str) -> None:
    with pytest.raises(Fatal, match="exactly one"):
        templates.value("messages", source)


CHAT: dict[str, Any] = {"requestType": "Chat", "prompt": None, "messages": "{{ m }}"}


def test_messages_are_taken_as_they_are() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert prompt(**CHAT, columns={"m": turns, "a": ""}, chat=True).messages == tuple(turns)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], "must yield a list"),
        ("user: hi", "must yield a list"),
        ([{"role": "user"}], r"messages\[0\]: needs the texts role and content"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "the model writes the last turn",
        ),
    ],
)
def test_messages_that_are_none_are_refused(turns: object, words: str) -> None:
    with pytest.raises(Fatal, match=words):
        prompt(**CHAT, columns={"m": turns, "a": ""}, chat=True)


def turns_of(*roles: str) -> list[dict[str, str]]:
    """Messages whose content is the first letter of their role and their place."""
    return [{"role": role, "content": f"{role[0]}{i}"} for i, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("roles", "parts"),
    [
        (["user"], [("u0", None)]),
        (["system", "user", "assistant"], [("s0 u1", "a2")]),
        (["user", "user"], [("u0", None), ("u1", None)]),
        (["user", "assistant", "user"], [("u0", "a1"), ("u2", None)]),
        (["user", "assistant", "tool", "tool", "assistant"], [("u0", "a1"), ("t2 t3", "a4")]),
        (["assistant", "user", "system"], [("a0 u1 s2", None)]),
        (["user", "assistant", "assistant", "user"], [("u0", "a1"), ("a2 u3", None)]),
    ],
)
def test_a_conversation_is_cut_where_answers_are_due(
    roles: list[str], parts: list[tuple[str, str | None]]
) -> None:
    found = conversation.parts(turns_of(*roles))
    said = [
        (" ".join(m["content"] for m in part.lead), part.gold["content"] if part.gold else None)
        for part in found
    ]
    assert said == parts


def spoken(made: Prompt) -> str:
    return " ".join(m["content"] for m in made.messages)


def test_every_answer_follows_the_models_own_or_the_documents() -> None:
    columns = {"m": turns_of("system", "user", "assistant", "user", "assistant"), "t": ["x", "y"]}
    made = prompt(**CHAT, turns="Every", target="{{ t[turn] }}", columns=columns, chat=True)
    assert (spoken(made), made.target, len(made.turns)) == ("s0 u1", "x", 2)
    own, gold = made.after(["mine"], gold=False), made.after(["mine"], gold=True)
    assert (spoken(own), own.target) == ("s0 u1 mine u3", "y")
    assert (spoken(gold), gold.target) == ("s0 u1 a2 u3", "y")


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (["user", "assistant", "system"], "nobody asks for an answer at the end"),
        (["system"], "nobody asks"),
        (["user", "user"], "needs an assistant turn behind each question but the last, number 0 has none"),
    ],
)
def test_a_conversation_that_lacks_a_turn_is_refused(roles: list[str], words: str) -> None:
    with pytest.raises(Fatal, match=words):
        prompt(**CHAT, turns="EveryWithGold", columns={"m": turns_of(*roles), "a": ""}, chat=True)


def test_the_variables_of_a_chat_template_reach_it_and_its_server() -> None:
    made, args = prompt(prompt="hi", chat=True), {"think": False}
    assert tokens.encode(made, Characters(), DATE, args).text == "<think=False><user>hi<assistant>"
    sent = tokens.send(made, args)
    assert sent.prompt.template_args == args  # type: ignore[union-attr]
    assert sent.digest != tokens.send(made, {}).digest


TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def offered(**more: Any) -> Prompt:  # noqa: ANN401 - fields of the task
    columns = {"m": [{"role": "user", "content": "hi"}], "a": "", "t": [TOOL], "none": ["add"]}
    return prompt(**CHAT, **more, chat=True, columns=columns)


def test_functions_on_offer_reach_the_chat_template_and_the_server() -> None:
    made = offered(tools="{{ t }}")
    assert tokens.encode(made, Characters(), DATE, {}).text == f"<tools={[TOOL]}><user>hi<assistant>"
    sent = tokens.send(made, {})
    assert sent.prompt.tools == (TOOL,)  # type: ignore[union-attr]
    assert sent.digest != tokens.send(offered(), {}).digest


@pytest.mark.parametrize("tools", ["{{ none }}", "{{ a }}", "{{ m }}"])
def test_functions_in_another_shape_are_refused(tools: str) -> None:
    with pytest.raises(Fatal, match="tools: must yield a list of"):
        offered(tools=tools)


def test_a_prompt_that_is_shortened_at_its_start_keeps_bos() -> None:
    whole = Encoded("", (1, 2, 3, 4, 5))
    assert tokens.shortened(whole, 3, Truncate.START, bos_id=1).ids == (1, 4, 5)
    assert tokens.shortened(whole, 3, Truncate.START, bos_id=None).ids == (3, 4, 5)
    assert tokens.shortened(whole, 3, Truncate.MIDDLE, bos_id=1) == Encoded("", (1, 4, 5), cut=2)
    assert tokens.shortened(whole, 1, Truncate.MIDDLE, bos_id=1).ids == (5,)
    assert tokens.shortened(whole, 5, Truncate.START, bos_id=1) is whole


class Merging(Characters):
    """Characters, but "e w" is one token, as merges across a border are; BOS is 1."""

    bos_id = 1
    prefix_id = 1

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        ids = super().encode(text.replace("e w", "\x7f"), special=False)
        return (1, *ids) if special and ids[:1] != (1,) else ids


def encoded(made: Prompt) -> Encoded:
    return tokens.encode(made, Merging(), DATE, {})


def pair(question: str, choice: str, *, chat: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    made = prompt(**CHOICE, columns={"q": question, "c": [choice, "other"], "a": 0}, chat=chat)
    return encoded(made).pairs[0]


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_the_continuation_is_cut_from_the_whole_even_across_a_merge() -> None:
    """lm-eval's point 2: `whole[len(context):]`, not the choice tokenised alone."""
    context, continuation = pair("Where", "we")
    assert context == (1, *ids("Where"))
    assert continuation == ids("e")  # "e w" became one token and shifted the cut


def test_white_space_at_the_end_of_the_context_moves_to_the_continuation() -> None:
    context, continuation = pair("Name: ", "Bo")
    assert context == (1, *ids("Name:"))
    assert continuation == ids("  Bo")


def test_an_empty_context_is_the_prefix_token() -> None:
    assert pair("", "Bo") == ((1,), ids(" Bo"))


def test_bos_is_added_once_and_never_after_a_chat_template() -> None:
    assert encoded(prompt(prompt="\x01hello")).ids == (1, *ids("hello"))
    assert encoded(prompt(prompt="hello")).ids == (1, *ids("hello"))
    assert encoded(prompt(prompt="hello", chat=True)).ids == ids("<user>hello<assistant>")


def test_the_digest_of_a_prompt_covers_its_choices() -> None:
    columns = {"q": "Q", "c": ["a", "b"], "a": 0}
    one, two = (encoded(prompt(**CHOICE, columns=columns | {"c": c})) for c in (["a", "b"], ["a", "c"]))
    assert one.ids == two.ids
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        # (context, tokens that are weighed); 0 is the prefix token.
        (9, [([0], [1, 2, 3, 4, 5, 6, 7])]),
        (7, [([0], [1, 2, 3, 4, 5, 6, 7])]),
        (6, [([0], [1, 2, 3, 4, 5, 6]), ([1, 2, 3, 4, 5, 6], [7])]),
        (3, [([0], [1, 2, 3]), ([3], [4, 5, 6]), ([4, 5, 6], [7])]),
        (4, [([0], [1, 2, 3, 4]), ([3, 4], [5, 6, 7])]),
        (1, [([i], [i + 1]) for i in range(7)]),
    ],
)
def test_windows_weigh_each_token_once_with_as_much_before_it_as_fits(
    size: int, windows: list[tuple[list[int], list[int]]]
) -> None:
    text = Encoded("text", tuple(range(1, 8)))
    assert tokens.windowed(text, 0, size, "x").pairs == tuple((tuple(c), tuple(t)) for c, t in windows)


def test_without_a_prefix_token_the_first_token_of_a_text_is_not_weighed() -> None:
    assert tokens.windowed(Encoded("ab", (1, 2)), None, 4, "x").pairs == (((1,), (2,)),)
    with pytest.raises(Fatal, match=r"target: 'a' gives no token to weigh \(f line 1\)"):
        tokens.windowed(Encoded("a", (1,)), None, 4, "f line 1")


def test_a_text_to_weigh_is_no_turn() -> None:
    for chat in (False, True):
        made = Prompter(Task.model_validate(ROLLING), {}, chat=chat).prompt(sample(a="All of it."))
        assert (made.text, made.target, made.messages) == ("All of it.", "All of it.", ())


def test_the_window_holds_prompt_and_answer() -> None:
    assert encoded(prompt(prompt="1234")).needs(max_tokens=10) == 15
    made = encoded(prompt(**CHOICE, columns={"q": "1234", "c": ["abc", "b"], "a": 0}))
    assert made.needs(max_tokens=10) == 5 + 4


def test_a_server_gets_text_or_messages() -> None:
    assert tokens.send(prompt(prompt="hi"), {}).prompt.text == "hi"  # type: ignore[union-attr]
    sent = tokens.send(prompt(prompt="hi", chat=True), {})
    assert sent.prompt.messages == ({"role": "user", "content": "hi"},)  # type: ignore[union-attr]
    assert sent.digest != tokens.send(prompt(prompt="hi"), {}).digest


def test_a_server_gets_choices_cut_where_a_local_engine_cuts_them() -> None:
    columns = {"q": "Name: ", "c": ["Bo", "Al"], "a": 0}
    sent = tokens.send(prompt(**CHOICE, columns=columns), {})
    assert sent.pairs == TextPairs("Name:", ("  Bo", "  Al"))
    assert sent.digest != tokens.send(prompt(**CHOICE, columns=columns | {"c": ["Bo", "Cy"]}), {}).digest


def test_choices_without_a_prompt_are_no_question_to_a_server() -> None:
    """A local engine begins with the prefix token, which only the server could add here."""
    with pytest.raises(Fatal, match=r"the prompt is empty \(f line 1\)"):
        tokens.send(prompt(**CHOICE, columns={"q": " ", "c": ["a", "b"], "a": 0}), {})
