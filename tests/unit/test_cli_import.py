"""`evaljob import lm-eval`: what becomes of tasks in lm-eval's schema.

`pytest tests/unit/test_cli_import.py --update-goldens` writes task and report of each case anew.
"""

from pathlib import Path

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


def test_limits_of_ours_are_reasons_too() -> None:
    config = reading.read(CASES / "letters" / "task.yaml") | {"num_fewshot": 65}
    found = convert(config)
    assert found.document is None
    (row,) = (row for row in found.rows if row.fate is Fate.ADAPTER)
    assert row.field == "fewShot.count"
