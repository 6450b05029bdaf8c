"""The command `evaljob`. Exit codes: 0, 1 a partition failed or shards disagree, 2 bad input, 130 interrupted."""

import datetime as dt
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from evaljob.merge import summarize
from evaljob.names import State
from evaljob.planning import Settings
from evaljob.result import Failure
from evaljob_cli import importing, planned, previewed, rendered, table
from evaljob_cli.catalogue import catalogue
from evaljob_cli.execute import InterruptedRunError, execute, keep_date, kept_date, write
from evaljob_cli.inputs import (
    InputError,
    assignments,
    durable,
    identified,
    read_evaljob,
    read_summary,
    resolve,
)
from evaljob_cli.launch import Launch
from evaljob_cli.local import default_parallelism
from evaljob_cli.places import Places, check, writable

RUNNER = (sys.executable, "-P", "-m", "evaljob_runner")
"""-P: no module in the folder where the user happens to be takes the place of a library's."""
_PROMPTS_MAX = 10**9
_EXIT_CODES: dict[type[Exception], int] = {InputError: 2, InterruptedRunError: 130}

app = typer.Typer(
    help="Evaluate models on datasets, by the same EvalJob file as on a cluster.",
    epilog="Exit codes: 0, 1 when a partition failed or shards disagree, 2 for bad input, 130 when interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(importing.app, name="import")

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with one EvalJob.")]
Mounts = Annotated[
    list[str] | None,
    typer.Option("--mount", metavar="CLAIM=DIR", help="Folder that stands in for a claim (pvc://CLAIM/...)."),
]
ConfigMaps = Annotated[
    list[str] | None,
    typer.Option("--config-map", metavar="NAME=DIR", help="Folder of a ConfigMap, one file per key."),
]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option("--api-key-file", metavar="SECRET/KEY=FILE", help="File that holds a Secret's key."),
]
Date = Annotated[
    dt.datetime | None,
    typer.Option(
        metavar="YYYY-MM-DD",
        formats=["%Y-%m-%d"],
        help="The clock of chat templates; default today (UTC), for `run` that of the output folder.",
    ),
]


def _date(given: dt.datetime | None) -> dt.date:
    return given.date() if given else dt.datetime.now(dt.UTC).date()


def _clock(given: dt.datetime | None, out: Path) -> dt.date:
    """The date of a run: that of earlier ones in its folder, whose digests may hold it, unless another is given."""
    wanted, kept = _date(given), kept_date(out)
    if kept is None or kept == wanted:
        return wanted
    if given:
        note = (
            f"--date {wanted}: earlier runs in {out} had {kept}; prompts that show the date are asked again"
        )
    else:
        note = f"chat templates see {kept}, the date of earlier runs in {out}; --date gives another"
    print(f"evaljob: {note}", file=sys.stderr)
    return wanted if given else kept


def _places(
    out: Path, mount: list[str] | None, config_map: list[str] | None, api_key_file: list[str] | None
) -> Places:
    return Places(
        out=out.absolute(),
        claims=assignments("--mount", mount, folders=True),
        config_maps=assignments("--config-map", config_map, folders=True),
        api_keys=assignments("--api-key-file", api_key_file),
    )


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}: give a file, or - for standard input") from error


@app.command()
def run(
    file: File,
    *,
    mount: Mounts = None,
    config_map: ConfigMaps = None,
    api_key_file: ApiKeys = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder; default ./NAME-out.")
    ] = None,
    date: Date = None,
    parallelism: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Partitions at once; default what the CPUs, or one GPU, carry."
        ),
    ] = None,
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Make the scores again from the sample logs; ask no model.")
    ] = False,
) -> None:
    """Evaluate an EvalJob on this machine.

    Each partition in a process of its own; then the results are merged, written to the output folder and printed.
    What has been answered before in that folder is not asked again.
    """
    evaljob = identified(read_evaljob(file))
    if evaljob.spec.suspend:
        raise InputError(f"{file}: spec.suspend: true: nothing to run; set it to false")
    places = _places(out or Path(f"{evaljob.metadata.name}-out"), mount, config_map, api_key_file)
    plan = resolve(durable(evaljob), Settings(), _clock(date, places.out))
    check(plan, places)
    writable(places.out)
    keep_date(plan.run.date, places.out)
    at_once = parallelism or default_parallelism(plan, evaljob.spec.parallelism, len(os.sched_getaffinity(0)))
    runner = (*RUNNER, "--score-only") if score_only else RUNNER
    outcomes = execute(plan, Launch(places, runner, os.environ), at_once, Console(stderr=True))
    failed = any(isinstance(o, Failure) for o in outcomes.values())
    summary = summarize(plan, outcomes, state=State.FAILED if failed else State.COMPLETE)
    # First: a pipe that is closed, or an encoding without a character of the table, ends the command.
    write(summary, places.out)
    table.show(summary, table.output())
    raise typer.Exit(0 if summary.state == State.COMPLETE else 1)


@app.command()
def plan(
    file: File,
    *,
    output: Annotated[
        Literal["table", "json", "yaml"], typer.Option("--output", "-o", metavar="table|json|yaml")
    ] = "table",
    manifests: Annotated[
        bool,
        typer.Option("--manifests", help="With -o: a List of the plan's ConfigMap and the Jobs instead."),
    ] = False,
    date: Date = None,
) -> None:
    """Check an EvalJob and show the Jobs that it becomes."""
    evaljob = identified(read_evaljob(file))
    made = resolve(evaljob, Settings(), _date(date))
    if output != "table":
        document = (
            planned.manifests(evaljob, _date(date)) if manifests else planned.as_document(evaljob, made)
        )
        print(planned.formatted(document, output))
        return
    if manifests:
        raise InputError("--manifests: needs -o yaml or -o json")
    table.grid(["job", "model", "dataset", "shard", "task"], planned.as_rows(made), table.output())
    excluded = ", ".join(f"{p.model}/{p.dataset}" for p in evaljob.spec.exclude)
    print(f"\n{len(made.partitions)} partitions" + (f"; excluded: {excluded}" if excluded else ""))
    print("On a cluster the last ten characters differ: they are a hash of the EvalJob's uid.")


@app.command()
def render(
    file: File,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model; default the first.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the dataset; default the first.")
    ] = None,
    count: Annotated[
        int, typer.Option("-n", metavar="N", min=1, max=_PROMPTS_MAX, help="How many prompts.")
    ] = 1,
    token_ids: Annotated[bool, typer.Option("--token-ids", help="Show the token ids too.")] = False,
    mount: Mounts = None,
    config_map: ConfigMaps = None,
    api_key_file: ApiKeys = None,
    date: Date = None,
) -> None:
    """Show the first prompts of a model on a dataset.

    And what they rest on: the model's configuration, and each sampling parameter with its origin.
    """
    made = resolve(identified(read_evaljob(file)), Settings(), _date(date))
    partition = rendered.pick(made, model, dataset)
    made = made.model_copy(update={"partitions": (partition,)})
    places = _places(Path(), mount, config_map, api_key_file)
    check(made, places)
    lines = rendered.prompts(made, partition, Launch(places, RUNNER, os.environ), count)
    for line in rendered.text(made, partition, lines, token_ids=token_ids):
        print(line)


@app.command()
def summary(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|-", help="A summary.json or summary.json.gz, or - to read it from a pipe."
        ),
    ],
) -> None:
    """Print a summary as a table.

    Of a local run, or out of the ConfigMap NAME-summary, where a large one is compressed.
    """
    table.show(read_summary(file, _read(file)), table.output())


@app.command()
def preview(
    file: Annotated[
        Path, typer.Argument(metavar="FILE|-", help="A runner's log, or - to read it from a pipe.")
    ],
) -> None:
    """Print the samples that a runner showed in its log.

    The first ones, wrong ones, and those without an answer.
    """
    log = _read(file).decode("utf-8", "replace").split("\n")
    found = [line for sample in previewed.samples(log) for line in previewed.text(sample)]
    print("\n".join(found) or "no samples yet")


@app.command()
def tasks() -> None:
    """List the tasks of the catalogue."""
    rows = [[name, task.request_type, task.primary.result_keys[0]] for name, task in catalogue().items()]
    table.grid(["task", "request type", "primary metric"], rows, table.output())


def main() -> None:
    """The entry point of the command `evaljob`."""
    try:
        app(prog_name="evaljob")
    except (InputError, InterruptedRunError) as error:
        print(f"evaljob: {error}", file=sys.stderr)
        sys.exit(_EXIT_CODES[type(error)])
    except OSError as error:
        print(f"evaljob: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
