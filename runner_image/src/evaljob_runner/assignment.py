"""What this process was told to do: the plan's three files and the command line."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evaljob import spec
from evaljob.backends import PromptFormat
from evaljob.model import Frozen
from evaljob.mounts import ATTEMPT_FILE
from evaljob.names import Reason
from evaljob.plan import RUN_KEY, Partition, PlannedDataset, RunPlan, dataset_key, model_key
from evaljob.spec import Model
from evaljob.task import Generation, Task
from evaljob_runner.errors import Fatal

_F = TypeVar("_F", bound=Frozen)


@dataclass(frozen=True)
class Places:
    """Where claims and ConfigMaps are mounted, by name. Paths enter no digest and no result."""

    claims: Mapping[str, Path]
    config_maps: Mapping[str, Path]
    out: Path
    api_key_file: Path | None = None
    judge_key_files: Mapping[str, Path] = field(default_factory=dict)
    """By judge."""


@dataclass(frozen=True)
class Assignment:
    """One partition, ready to run."""

    run: RunPlan
    model: Model
    planned: PlannedDataset
    partition: Partition
    attempt: str
    """The pod's uid; names this attempt's sample log."""
    places: Places

    @property
    def task(self) -> Task:
        """The task that turns documents into prompts and answers into scores.

        Raises:
            ValueError: for a dataset whose task lm-eval runs.
        """
        if self.planned.task is None:
            raise ValueError(f"dataset {self.partition.dataset} has a task of lm-eval")
        return self.planned.task

    @property
    def generation(self) -> Generation:
        """The task's sampling parameters for this model."""
        return self.task.generation_of(chat=self.chat)

    @property
    def folder(self) -> str:
        """Of the sample logs, below the output folder."""
        return f"{self.partition.model}/{self.partition.dataset}"

    @property
    def samples(self) -> str | None:
        """The sample logs, relative to the output claim; None where nothing keeps them."""
        return f"{self.run.name}/{self.folder}" if self.run.output else None

    @property
    def uses_hub(self) -> bool:
        """Whether a hub has to be asked for the model or the data."""
        return spec.uses_hub(self.model, self.planned.dataset)

    @property
    def template_args(self) -> dict[str, Any]:
        """The variables of the model's chat template."""
        return template_values(self.model.chat_template_args)

    @property
    def chat(self) -> bool:
        """Whether prompts go through a chat template."""
        return self.model.prompt_format is PromptFormat.CHAT

    def unsupported(self, why: str) -> Fatal:
        """The end of a pair that can never work; the message holds the line that leaves it out.

        Args:
            why: what is missing.
        """
        pair = f"{{model: {self.partition.model}, dataset: {self.partition.dataset}}}"
        return Fatal(
            Reason.UNSUPPORTED_REQUEST, f"{why}; to leave the pair out, add to the spec: exclude: [{pair}]"
        )


def template_values(given: Mapping[str, str]) -> dict[str, Any]:
    """The variables of a chat template as the spec has them: JSON where a text reads so, else text."""
    return {name: _json_or_text(value) for name, value in given.items()}


def _json_or_text(value: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(value)
    except ValueError:
        return value


def read_key(file: Path) -> str:
    """A server's API key.

    Raises:
        Fatal: BadConfiguration, when its file cannot be read or holds what no header carries; its text is not shown.
    """
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text, so no key"
        raise Fatal(Reason.BAD_CONFIGURATION, f"openai.apiKeySecretRef: {file}: {why}") from error
    # The client's error would repeat it.
    if not re.fullmatch("[!-~]*", key):
        why = "white space or other than ASCII in the key; write the key alone, on one line"
        raise Fatal(Reason.BAD_CONFIGURATION, f"openai.apiKeySecretRef: {file}: {why}")
    return key


def read_attempt(plan: Path) -> str:
    """The name of this attempt; it becomes a file name.

    Raises:
        Fatal: BadConfiguration.
    """
    try:
        attempt = (plan / ATTEMPT_FILE).read_text().strip()
    except OSError as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"--plan: {plan / ATTEMPT_FILE}: {error.strerror}") from error
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}", attempt):
        raise Fatal(
            Reason.BAD_CONFIGURATION, f"--plan: {ATTEMPT_FILE} must hold a pod's uid, got {attempt[:80]!r}"
        )
    return attempt


def read_assignment(
    plan: Path, *, model: str, dataset: str, shard: tuple[int, int], places: Places
) -> Assignment:
    """Read the plan's files.

    Raises:
        Fatal: BadConfiguration, when a file is missing or not of this version.
    """
    return Assignment(
        run=_read(plan / RUN_KEY, RunPlan),
        model=_read(plan / model_key(model), Model),
        planned=_read(plan / dataset_key(dataset), PlannedDataset),
        partition=Partition(model=model, dataset=dataset, shard=shard[0], shards=shard[1]),
        attempt=read_attempt(plan),
        places=places,
    )


def _read(path: Path, kind: type[_F]) -> _F:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"--plan: {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"--plan: {path.name}: {field}: {first['msg']}; plan and runner must be of one release",
        ) from error
