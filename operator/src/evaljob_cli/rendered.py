"""What a model will really be asked: the resolved configuration and the first prompts of one partition."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evaljob.plan import Partition, Plan
from evaljob_cli.display import block, printable
from evaljob_cli.inputs import InputError
from evaljob_cli.launch import REPORT, Launch, environment, write_plan
from evaljob_cli.places import arguments
from evaljob_cli.verdict import why

Line = Mapping[str, Any]
"""One prompt as the runner prints it."""


def pick(plan: Plan, model: str | None, dataset: str | None) -> Partition:
    """The first partition of a model and a dataset; without a name, of the first one.

    Raises:
        InputError: when there is none.
    """
    for partition in plan.partitions:
        if model in (None, partition.model) and dataset in (None, partition.dataset):
            return partition
    known = ", ".join(dict.fromkeys(f"{p.model}/{p.dataset}" for p in plan.partitions))
    given = {"--model": model, "--dataset": dataset}
    asked = " ".join(f"{option} {name}" for option, name in given.items() if name is not None)
    raise InputError(f"{asked}: no such partition; there are {known}")


def prompts(plan: Plan, partition: Partition, launch: Launch, count: int) -> list[Line]:
    """The first prompts, rendered and tokenised by the runner.

    Raises:
        InputError: with the runner's own words, when it refuses.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "plan"
        write_plan(plan, partition, "render", folder)
        args = [*arguments(plan, partition, launch.places, folder), "--result", str(folder / REPORT)]
        ended = subprocess.run(
            [*launch.command, *args, "--render", str(count)],
            env=environment(launch.environment, plan.model(partition.model), scratch),
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise InputError(f"{partition}: {_why(folder / REPORT, ended)}")
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def _why(report: Path, ended: subprocess.CompletedProcess[str]) -> str:
    if said := why(report):
        return f"{said.reason}: {said.message}"
    last = ended.stderr.strip().splitlines()[-1:]
    return f"exit code {ended.returncode}: {''.join(last)}"


def text(plan: Plan, partition: Partition, lines: list[Line], *, token_ids: bool) -> Iterator[str]:
    """The configuration and the prompts as lines for people."""
    yield from _configuration(plan, partition)
    if lines and "generation" in lines[0]:
        yield f"generation: {_generation(lines[0]['generation'])}"
    for line in lines:
        yield ""
        yield from _prompt(line, token_ids=token_ids)


def _configuration(plan: Plan, partition: Partition) -> Iterator[str]:
    model, planned = plan.model(partition.model), plan.dataset(partition.dataset)
    fields = model.model_dump(mode="json", by_alias=True, exclude_none=True)[model.backend]
    task = planned.task
    request = f", request type {task.request_type}" if task else ""
    yield f"{partition}: prompt format {model.prompt_format}{request}"
    yield f"task: {planned.task_name}" + (f", version {task.version}" if task else " of lm-eval")
    yield f"{model.backend}: " + ", ".join(f"{name} {value}" for name, value in fields.items())
    yield f"seed {plan.run.seed}, date {plan.run.date}"


def _generation(values: Mapping[str, Any]) -> str:
    """Every sampling parameter with where it comes from."""
    stop = values["stop"]["origin"]
    shown = [
        f"{name} {'off' if v['value'] is None else v['value']} ({v['origin']})"
        for name, v in values.items()
        if name != "stop"
    ]
    return ", ".join(shown + [f"stop {json.dumps(text)} ({origin})" for text, origin in stop.items()])


def _prompt(line: Line, *, token_ids: bool) -> Iterator[str]:
    yield "--- " + printable(", ".join(_title(line)))
    for message in line.get("messages", ()):
        yield f"[{printable(message['role'])}] {block(message['content'])}"
    if "text" in line:
        yield block(line["text"])
    yield "---"
    yield from _choices(line, token_ids=token_ids)
    yield f"target: {printable(line['target'])}"
    for key, messages in line.get("judges", {}).items():
        yield f"--- asked of the judge, {printable(key)}"
        for message in messages:
            yield f"[{printable(message['role'])}] {block(message['content'])}"
        yield "---"
    if token_ids and "tokenIds" in line:
        yield f"token ids: {_ids(line['tokenIds'])}"


def _title(line: Line) -> Iterator[str]:
    yield f"{line['id']}"
    if "tokenIds" in line:
        yield f"{len(line['tokenIds'])} tokens"
    else:
        yield "rendered and tokenised by the server"
    if "promptDigest" in line:
        yield f"digest {line['promptDigest'][:12]}"
    if line["fewShotIds"]:
        yield f"examples {' '.join(line['fewShotIds'])}"


def _choices(line: Line, *, token_ids: bool) -> Iterator[str]:
    """Each choice with the tokens that are weighed: a boundary in the wrong place shows here."""
    for number, choice in enumerate(line.get("choices", ())):
        shown = f"choice {number}: {choice['text']!r}"
        if "tokenIds" in choice:
            ids = f": {_ids(choice['tokenIds'])}" if token_ids else ""
            shown += f", {len(choice['tokenIds'])} tokens{ids}"
        yield printable(shown)


def _ids(ids: list[int]) -> str:
    return " ".join(map(str, ids))
