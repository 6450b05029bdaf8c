"""Where things live, and what may not creep in."""

import json
import operator
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import evaljob
from evaljob.crd import crd
from evaljob.names import Reason
from evaljob.task import Task

TOP = Path(__file__).parents[2]
SOURCES = ("operator/src", "runner_image/src")


@pytest.mark.parametrize("folder", ["operator", "runner_image"])
def test_an_image_folder_holds_dockerfiles_a_readme_and_src(folder: str) -> None:
    """A package called `operator` would shadow the standard library's."""
    found = {p.name for p in (TOP / folder).iterdir() if not p.name.startswith(".")}
    assert {n for n in found if not n.startswith("Dockerfile")} == {"README.md", "src"}


def test_each_image_has_one_name() -> None:
    """The chart and the instructions name what the README of the images builds, with what the backend needs."""
    text = (TOP / "runner_image/README.md").read_text()
    lines = [line for line in text.splitlines() if "docker build -f" in line]
    built = {
        name: TOP / next(iter(re.findall(r"REQUIREMENTS=(\S+)", line)), "requirements/runner.txt")
        for line in lines
        for name in re.findall(r"-t (\S+) \.", line)
    }
    values = yaml.safe_load((TOP / "charts/evaljob/values.yaml").read_text())
    needs = {"vllm": "vllm==", "transformers": "torch==", "openai": "httpx=="}
    for backend, reference in values["runner"]["images"].items():
        name, _, tag = reference.partition(":")
        assert tag == evaljob.__version__
        assert f"\n{needs[backend]}" in built[name].read_text(), backend
    for page in ("README.md", "CONTRIBUTING.md", "examples/README.md"):
        assert set(re.findall(r"REGISTRY/(evaljob-runner[\w-]*)", (TOP / page).read_text())) <= built.keys()


def test_nothing_shadows_the_standard_library() -> None:
    assert operator.add(1, 2) == 3
    own = {p.stem for s in SOURCES for p in (TOP / s).rglob("*.py")}
    assert not own & {"operator", "json", "types", "logging", "signal", "queue", "statistics"}


def test_tests_live_in_tests() -> None:
    assert [p for s in SOURCES for p in (TOP / s).rglob("*test*.py")] == []
    assert (TOP / "tests/__init__.py").exists()


def test_the_core_imports_neither_frameworks_nor_engines() -> None:
    heavy = {
        "torch",
        "kopf",
        "kubernetes",
        "yaml",
        "asyncio",
        "jinja2",
        "httpx",
        "rich",
        "typer",
        "threading",
    }
    modules = [p.stem for p in (TOP / "operator/src/evaljob").glob("*.py") if p.stem != "__init__"]
    code = f"import sys; before = set(sys.modules); import {', '.join(f'evaljob.{m}' for m in modules)}; "
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in done.stdout.split()}
    # pydantic itself brings in threading.
    assert roots & heavy <= {"threading"}


def test_confined_processes_import_the_standard_library_only() -> None:
    """They run with -S and without the runner's packages, and each start pays for each import."""
    code = "import sys; before = set(sys.modules); import evaljob_runner.sandbox.confined; "
    code += "print(*(set(sys.modules) - before))"
    command = [sys.executable, "-S", "-P", "-s", "-c", code]
    path = {"PYTHONPATH": str(TOP / "runner_image/src")}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert roots - sys.stdlib_module_names == {"evaljob_runner"}
    assert not roots & {"dataclasses", "pathlib", "subprocess", "inspect"}


def test_versions_agree() -> None:
    chart = yaml.safe_load((TOP / "charts/evaljob/Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == evaljob.__version__


def test_the_catalogues_tasks_parse() -> None:
    paths = list((TOP / "operator/src/evaljob/tasks").glob("*.yaml"))
    assert paths
    for path in paths:
        assert Task.model_validate(yaml.safe_load(path.read_text())).version >= 1


def test_requirements_name_no_host() -> None:
    for path in (TOP / "requirements").glob("*.txt"):
        assert "://" not in path.read_text(), path.name


def test_each_reason_is_used_somewhere() -> None:
    text = "\n".join(p.read_text() for s in SOURCES for p in (TOP / s).rglob("*.py"))
    unused = [r.name for r in Reason if not re.search(rf"Reason\.{r.name}\b", text)]
    assert unused == []


def test_each_reason_is_explained_to_who_operates_evaljobs() -> None:
    text = (TOP / "docs/operations.md").read_text()
    assert [r.value for r in Reason if f"`{r}`" not in text] == []


def test_a_crd_fits_an_apply() -> None:
    """Above 256 KiB the annotation of `kubectl apply` does not fit; we stay well below."""
    assert len(json.dumps(crd())) < 100_000


def test_no_path_of_a_machine_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.split("\0"):
        path = TOP / name
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ""}:
            assert not re.search(r"(?<![\w.])/(root|home)/\w", path.read_text(errors="replace")), name
