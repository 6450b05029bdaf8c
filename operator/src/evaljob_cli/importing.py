"""`evaljob import`: tasks of other harnesses as tasks of ours."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from evaljob_cli import table
from evaljob_cli.display import printable
from evaljob_cli.inputs import InputError
from evaljob_cli.lm_eval import groups, reading
from evaljob_cli.lm_eval.convert import Conversion
from evaljob_cli.lm_eval.prompts import Document

EXIT_NOT_EQUAL = 2

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Turn a task of another harness into one of ours."
)


@app.callback()
def _group() -> None:
    """Turn a task of another harness into one of ours."""


@app.command("lm-eval")
def lm_eval(
    file: Annotated[Path, typer.Argument(metavar="TASK.yaml", help="YAML of a task or a group of lm-eval.")],
    *,
    include_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder where includes and a group's tasks are looked for too."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
) -> None:
    """Write a task of lm-eval as a taskSpec.

    What became of each field is said on standard error.

    Exit code 0 where the task gives the same scores; 2 where it does not, or where it needs lm-eval itself.
    """
    if include_path and not include_path.is_dir():
        raise InputError(f"--include-path {include_path}: no folder: give one with lm-eval's YAML")
    places = (include_path,) if include_path else ()
    made = groups.convert(reading.read(file, places), file, places)
    report(made)
    if made.document is not None:
        _write(f"# {file.name} of lm-eval, by evaljob import\n{as_yaml(made.document)}", output)
    raise typer.Exit(0 if made.equal else EXIT_NOT_EQUAL)


def as_yaml(document: Document) -> str:
    """A task as people read it."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def report(made: Conversion) -> None:
    """What became of each field, on standard error."""
    rows = [[printable(text) for text in (row.field, row.fate.value, row.why)] for row in made.rows]
    table.grid(["field", "fate", "why"], rows, Console(stderr=True))
    if made.document is None:
        print("\nneeds lm-eval itself: lmEval instead of taskSpec (docs/lm-eval.md)", file=sys.stderr)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stand on one line, with their line ends visible: each of them is part of a prompt."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - yaml's interface
        """No anchors."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}: give a file that can be written") from error
