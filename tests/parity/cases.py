"""What is compared: a task, a model, shots, with or without chat template."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any, Literal

import yaml

from evaljob.task import Task
from tests.runner_plans import TINY

HERE = Path(__file__).parent
DEV = 8
"""Rows of each data set that are examples."""


Format = Literal["Text", "Chat", "Turns"]
"""Turns: with the chat template, each example as a turn of the user and one of the assistant."""


@dataclass(frozen=True)
class Model:
    """A checkpoint, and the longest sequence that both sides give it."""

    name: str
    folder: Path
    window: int


@dataclass(frozen=True)
class Case:
    """One comparison on one backend."""

    model: Model
    task: str
    data: str
    shots: int
    format: Format
    limit: int | None

    def __str__(self) -> str:
        """As a report names it."""
        kind = "generate" if self.generates else "choose"
        return f"{self.model.name}/{self.data}/{kind}/{self.shots}-shot/{self.format}"

    @property
    def chat(self) -> bool:
        """Whether the chat template is applied."""
        return self.format != "Text"

    @property
    def generates(self) -> bool:
        """Whether answers are texts, and not choices."""
        return self.task in ("gsm", "capitals")

    def ours(self) -> Task:
        """The task in our language."""
        document = yaml.safe_load((HERE / "tasks" / f"{self.task}.yaml").read_text())
        document["fewShot"] |= {"count": self.shots, "asTurns": self.format == "Turns"}
        if self.chat and "description" in document:
            document["descriptionRole"] = "System"  # as lm-eval
        return Task.model_validate(document)

    def theirs(self, data: Path) -> dict[str, Any]:
        """The task as lm-eval reads it."""
        document = yaml.safe_load((HERE / "lm_eval" / f"{self.task}.yaml").read_text())
        files = {split: str(data / self.data / f"{split}.jsonl") for split in ("test", "dev")}
        where = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
        splits = {"test_split": "test", "fewshot_split": "dev"}
        return {"task": self.data, "num_fewshot": self.shots, **where, **splits, **document}


def tiny(scratch: Path) -> list[Case]:
    """The tiny model on all its data sets, and with a window that not every prompt fits."""
    model = Model("tiny", TINY / "model", 1024)
    sets = (("gsm", "gsm"), ("mc", "mc"), ("letters", "kind"))
    formats: tuple[tuple[int, Format], ...] = ((0, "Text"), (5, "Text"), (0, "Chat"), (5, "Chat"))
    found = [Case(model, *names, shots, kind, None) for names, (shots, kind) in product(sets, formats)]
    found += [Case(model, *names, 5, "Turns", None) for names in sets[:2]]
    return [*found, Case(_short(scratch, 52), "mc", "mc", 1, "Text", None)]


def _short(scratch: Path, window: int) -> Model:
    """The tiny model, of which the configuration says that it takes fewer tokens."""
    folder = scratch / "short" / "model"
    copytree(TINY / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": window}))
    return Model("short", folder, window)


def smollm2(data: Path, limit: int) -> list[Case]:
    """SmolLM2 on questions of MMLU and on capitals, as `python -m examples.prepare` makes them."""
    model = Model("smollm2", data / "models" / "smollm2", 2048)
    sets = (("letters", "mmlu-dev"), ("mc", "capitals"), ("capitals", "capitals"))
    formats: tuple[tuple[int, Format], ...] = ((0, "Text"), (5, "Text"), (0, "Chat"), (5, "Chat"))
    return [Case(model, *names, shots, kind, limit) for names, (shots, kind) in product(sets, formats)]


def write_data(out: Path, prepared: Path | None) -> None:
    """Each data set as dev.jsonl and test.jsonl.

    Args:
        out: gets a folder per data set.
        prepared: what `python -m examples.prepare` made, if it did.
    """
    sources = [TINY / "data" / f"{name}.jsonl" for name in ("gsm", "mc", "kind")]
    sources += [prepared / "data" / f"{name}.jsonl" for name in ("mmlu-dev", "capitals")] if prepared else []
    for source in sources:
        rows = [json.loads(text) for text in source.read_text().splitlines()]
        if source.stem == "capitals":
            rows = [row | {"question": f"What is the capital of {row['name']}?"} for row in rows]
        (out / source.stem).mkdir(parents=True)
        for split, part in (("dev", rows[:DEV]), ("test", rows[DEV:])):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (out / source.stem / f"{split}.jsonl").write_text(text)
