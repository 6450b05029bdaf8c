"""What the documentation points at is there: files, headings, make targets, commands, options, chart values."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from evaljob_cli.__main__ import app
from evaljob_cli.catalogue import catalogue

TOP = Path(__file__).parents[2]
PAGES = [
    TOP / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout.split()
]
FOLDERS = tuple(sorted(p.name for p in TOP.iterdir() if p.is_dir() and not p.name.startswith(".")))
DECIDED = TOP / "docs" / "decisions"
"""Decisions name what there might have been, too."""
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    """Whatever stands in backticks or in a command and begins with a folder of this repository."""
    named = re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", page.read_text())
    assert [name for name in named if not any((at / name).exists() for at in (TOP, page.parent))] == []


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_modules_on_the_path_of_the_data_exist(name: str) -> None:
    known = {path.name for folder in FOLDERS for path in (TOP / folder).rglob("*.py")}
    assert set(re.findall(r"(?<![\w/.])\w+\.py\b", (TOP / name).read_text())) - known == set()


@each_page
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ((?:[a-z][a-z0-9-]* ?)+)", page.read_text(), re.MULTILINE)
    assert {target for line in named for target in line.split()} - targets == set()


def values(document: Any, path: str = "") -> set[str]:  # noqa: ANN401 - YAML
    """Every path of a values.yaml."""
    if not isinstance(document, dict):
        return {path}
    return {path} | {
        found for key, inner in document.items() for found in values(inner, f"{path}.{key}".strip("."))
    }


def properties(schema: dict[str, Any], path: str = "") -> set[str]:
    """Every path of properties of a JSON Schema."""
    inner = schema.get("properties", {}).items()
    return {path} | {found for key, of in inner for found in properties(of, f"{path}.{key}".strip("."))}


@each_page
def test_chart_values_that_are_named_exist(page: Path) -> None:
    chart = TOP / "charts/evaljob"
    known = values(yaml.safe_load((chart / "values.yaml").read_text()))
    # Of those without a default only the schema knows.
    known |= properties(json.loads((chart / "values.schema.json").read_text()))
    named = set(re.findall(r"chart value `([\w.]+)", page.read_text()))
    named |= set(re.findall(r"--set '?([\w.]+)=", page.read_text()))
    assert named - known == set()


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@each_page
def test_commands_and_options_of_evaljob_exist(page: Path) -> None:
    wrong = []
    lines = re.findall(r"(?:^|`|\| )evaljob ([a-z]+)\b([^`\n|]*)", page.read_text(), re.MULTILINE)
    for command, rest in lines:
        options = set(re.findall(r"(?<!\S)(--?[a-z][\w-]*)", rest.partition(" # ")[0]))
        known = COMMANDS.get(command)
        have = {option for parameter in _parameters(known) for option in parameter.opts}
        if (known is None or options - have) and page.parent != DECIDED:
            wrong.append(f"evaljob {command}{rest}")
    assert wrong == []


def _parameters(command: Any) -> list[Any]:  # noqa: ANN401 - of click, which Typer brings along
    """Those of a command and of the commands in it."""
    inner = getattr(command, "commands", {}).values()
    return [*getattr(command, "params", ()), *(p for c in inner for p in _parameters(c))]


def test_the_catalogue_is_as_large_as_the_readme_says() -> None:
    text = (TOP / "README.md").read_text()
    assert re.findall(r"\[catalogue\]\(docs/tasks.md\) of (\d+) tasks", text) == [str(len(catalogue()))]
