"""`evaljob import lm-eval`: what becomes of tasks in lm-eval's schema.

`pytest tests/unit/test_cli_import.py --update-goldens` writes task and report of each case anew.
"""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from evaljob import metrics
from evaljob.task import Task
from evaljob_cli import importing
from evaljob_cli.inputs import InputError
from evaljob_cli.lm_eval import groups, reading
from evaljob_cli.lm_eval.convert import Conversion, convert
from evaljob_cli.lm_eval.expressions import expression, joined, kind, pieces
from evaljob_cli.lm_eval.notes import Fate, Unfit

CASES = Path(__file__).parents[1] / "imports"
NAMES = sorted(path.name for path in CASES.iterdir())


def made(case: str) -> Conversion:
    path = CASES / case / "task.yaml"
    return groups.convert(reading.read(path), path, ())


@pytest.mark.parametrize("case", NAMES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    """The task, which is one of ours with metrics of ours, and a row for each field."""
    found = made(case)
    text = importing.as_yaml(found.document) if found.document is not None else ""
    report = "".join(f"{row.field} | {row.fate.value} | {row.why}".rstrip() + "\n" for row in found.rows)
    follows = {"report.txt": report} | ({"taskSpec.yaml": text} if text else {})
    if request.config.getoption("--update-goldens"):
        for name, content in follows.items():
            (CASES / case / name).write_text(content)
    assert {name: (CASES / case / name).read_text() for name in follows} == follows
    if text:
        assert metrics.problem(Task.model_validate(yaml.safe_load(text))) is None


@pytest.mark.parametrize("case", sorted({*NAMES} - {"group", "unlike-group"}))
def test_every_field_has_a_row(case: str) -> None:
    config = reading.read(CASES / case / "task.yaml")
    told = {row.field.partition(".")[0].partition(":")[0] for row in made(case).rows}
    assert config.keys() - told == set()


def test_only_equal_tasks_are_said_to_be_equal() -> None:
    assert {case: made(case).equal for case in NAMES} == {
        "answers": True,
        "continuation": True,
        "filters": False,
        "group": True,
        "letters": True,
        "other-scores": False,
        "perplexity": True,
        "prefix": True,
        "python": False,
        "samples": True,
        "texts": True,
        "unlike-group": False,
        "translation": True,
    }


TEXT_TASK = """\
task: pages_{name}
dataset_path: example/pages
dataset_name: {name}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: page
metric_list:
- metric: word_perplexity
- metric: bits_per_byte
"""


@pytest.mark.parametrize(
    ("tasks", "by_size", "lost"),
    [
        (["en", "de"], "true", ["group pages: word_perplexity", "group pages: bits_per_byte"]),
        (["en", "de"], "false", []),
        (["en"], "true", []),
    ],
)
def test_a_group_by_size_of_what_is_no_mean_of_samples_is_not_said_to_be_equal(
    tmp_path: Path, tasks: list[str], by_size: str, lost: list[str]
) -> None:
    for name in tasks:
        (tmp_path / f"{name}.yaml").write_text(TEXT_TASK.format(name=name))
    listed = ", ".join(
        f"{{metric: {metric}, weight_by_size: {by_size}}}" for metric in ("word_perplexity", "bits_per_byte")
    )
    path = tmp_path / "group.yaml"
    members = ", ".join(f"pages_{name}" for name in tasks)
    path.write_text(f"group: pages\ntask: [{members}]\naggregate_metric_list: [{listed}]\n")
    found = groups.convert(reading.read(path), path, ())
    assert found.document is not None
    assert [row.field for row in found.rows if row.fate is Fate.LOST] == lost
    assert found.equal == (not lost)


def test_a_conditional_statement_becomes_an_expression() -> None:
    source = "{% if a -%}  x{{ b }} {% elif c %}{{ d|trim }}{% endif %}!"
    found = pieces(source)
    assert joined(found) == "{{ ('x' ~ (b) ~ ' ') if a else ((d|trim) if c else ('')) }}!"
    assert expression(found) == "(('x' ~ (b) ~ ' ') if a else ((d|trim) if c else (''))) ~ '!'"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for x in y %}{{ x }}{% endfor %}", "{% for %}"),
        ("{{ x|tojson }}", "escapes for HTML there"),
        ("{{ x|regex_replace('a', 'b') }}", "lm-eval's own"),
        ("{{ x|nothing }}", "not there"),
        ("{{ x.append(1) }}", r"\.append"),
        ("{{ x.__class__ }}", r"\.__class__"),
        ("{{ x", "no template of Jinja2"),
        (reading.Function("utils.f"), r"Python: utils\.f"),
        (3, "a int"),
    ],
)
def test_what_has_no_equal_is_said(source: object, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        pieces(source)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("a", "any"),
        ("a.b[0]", "any"),
        ("a|trim", "text"),
        ("'x' ~ a", "text"),
        ("a.split(' ')[-1]", "text"),
        ("a.strip()", "text"),
        ("'Q: ' + a", "text"),
        ("[a, b]", "list"),
        ("['A', 'B'].index(a)", "number"),
        ("a - 1", "number"),
        ("0 if a else 1", "number"),
        ("a if b else 1", "any"),
    ],
)
def test_the_kind_of_an_expression(source: str, what: str) -> None:
    assert kind(source) == what


def test_a_file_that_includes_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\n")
    with pytest.raises(InputError, match=r"a\.yaml: includes itself, by a\.yaml and b\.yaml"):
        reading.read(tmp_path / "a.yaml")


def test_an_include_is_looked_for_beside_the_file_and_in_further_places(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base").write_text("task: x\nrepeats: 2\n")
    (tmp_path / "a.yaml").write_text("include: base\ntask: y\n")
    with pytest.raises(InputError, match="--include-path"):
        reading.read(tmp_path / "a.yaml")
    assert reading.read(tmp_path / "a.yaml", (tmp_path / "more",)) == {"task": "y", "repeats": 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": 5}, "task: a list is needed (got '5')"),
        ({"tag": 5}, "tag: a list is needed"),
        ({"num_fewshot": "five"}, "num_fewshot: Input should be a valid integer"),
        ({"repeats": [1]}, "repeats: Input should be a valid integer"),
        ({"generation_kwargs": ["until"]}, "generation_kwargs: a mapping is needed"),
        ({"generation_kwargs": {"until": 5}}, "generation_kwargs.until: a list is needed"),
        ({"generation_kwargs": {"temperature": "hot"}}, "generation_kwargs.temperature: Input should be"),
        ({"generation_kwargs": {"max_tokens": "many"}}, "generation_kwargs.max_tokens: Input should be"),
        ({"generation_kwargs": {"num_beams": "x"}}, "generation_kwargs.num_beams: Input should be"),
        ({"fewshot_config": "first_n"}, "fewshot_config: a mapping is needed (got 'first_n')"),
        ({"metric_list": "acc"}, "metric_list: a list is needed (got 'acc')"),
        ({"metric_list": ["acc"]}, "metric_list[0]: a mapping is needed (got 'acc')"),
        ({"metric_list": [{"regexes_to_ignore": 5}]}, "metric_list[0].regexes_to_ignore: a list is needed"),
        ({"filter_list": "regex"}, "filter_list: a list is needed"),
        ({"filter_list": [{"filter": []}]}, "filter_list[0].name: Field required"),
        ({"filter_list": [{"name": "a"}]}, "filter_list[0].filter: Field required"),
        (
            {"filter_list": [{"name": "a", "filter": [{}]}]},
            "filter_list[0].filter[0].function: Field required",
        ),
        ({"metadata": 3}, "metadata: a mapping is needed (got '3')"),
        ({"aggregate_metric_list": 5}, "aggregate_metric_list: a list is needed (got '5')"),
    ],
)
def test_a_field_of_another_form_than_lm_evals_is_refused_by_its_name(
    change: dict[str, Any], words: str
) -> None:
    path = CASES / "answers" / "task.yaml"
    with pytest.raises(InputError) as caught:
        groups.convert(reading.read(path) | change, path, ())
    assert str(caught.value).startswith(f"{path}: {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tag": 5}, "rivers_continents is in no file beside it"),
        ({"description": 5}, "descriptions that are no texts"),
    ],
)
def test_a_group_says_what_is_wrong_with_its_members(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    copytree(CASES / "group", tmp_path, dirs_exist_ok=True)
    for name in ("europe", "north_america"):
        member = tmp_path / f"rivers_{name}.yaml"
        member.write_text(member.read_text() + yaml.dump(change))
    found = groups.convert(reading.read(tmp_path / "task.yaml"), tmp_path / "task.yaml", ())
    assert found.document is None
    assert words in found.rows[-1].why


def test_the_one_mean_of_a_group_may_stand_without_a_list() -> None:
    path = CASES / "group" / "task.yaml"
    config = reading.read(path)
    (only,) = config["aggregate_metric_list"]
    assert groups.convert(config | {"aggregate_metric_list": only}, path, ()) == groups.convert(
        config, path, ()
    )


def test_no_right_answer_has_no_equal() -> None:
    config = reading.read(CASES / "answers" / "task.yaml") | {"doc_to_target": []}
    assert ("doc_to_target", Fate.ADAPTER, "a list, not a template") in convert(config).rows


def test_an_include_that_is_no_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: 3\n")
    with pytest.raises(InputError, match="include: 3: the name of a file, or a list of names, is needed"):
        reading.read(tmp_path / "a.yaml")


def test_limits_of_ours_are_reasons_too() -> None:
    config = reading.read(CASES / "letters" / "task.yaml") | {"num_fewshot": 65}
    found = convert(config)
    assert found.document is None
    (row,) = (row for row in found.rows if row.fate is Fate.ADAPTER)
    assert row.field == "fewShot.count"
