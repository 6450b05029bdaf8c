"""What is compared: a task, a model, shots, with or without chat template."""

import json
from collections.abc import Iterator, Mapping, Sequence
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
PAGES = ("gsm", "mmlu-dev")
"""Data sets of whose questions texts are made."""
PAGE_SIZES = (1, 2, 3, 5, 50)
"""Questions of each text."""
PRECISION, LOG_PRECISION = 1e-9, 1e-5
"""Metrics are made of 0 and 1, or of log-likelihoods, which engines round differently, and powers of e of them."""


Kind = Literal["generate", "choose", "weigh"]
KINDS: dict[str, Kind] = {"mc": "choose", "true": "choose", "letters": "choose", "pages": "weigh"}
"""Of the tasks that are no generation. What is weighed are whole texts, behind each other in windows."""
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
        kind = "corpus" if self.task == "corpus" else self.kind
        return f"{self.model.name}/{self.data}/{kind}/{self.shots}-shot/{self.format}"

    @property
    def chat(self) -> bool:
        """Whether the chat template is applied."""
        return self.format != "Text"

    @property
    def kind(self) -> Kind:
        """What the model is asked for."""
        return KINDS.get(self.task, "generate")

    @property
    def precision(self) -> float:
        """How near metrics must be, relative to their value."""
        return LOG_PRECISION if self.kind == "weigh" or self.task == "true" else PRECISION

    def ours(self) -> Task:
        """The task in our language."""
        document = yaml.safe_load((HERE / "tasks" / f"{self.task}.yaml").read_text())
        if "fewShot" in document:
            document["fewShot"] |= {"count": self.shots, "asTurns": self.format == "Turns"}
        if self.chat and "description" in document:
            document["descriptionRole"] = "System"  # as lm-eval
        return Task.model_validate(document)

    def theirs(self, data: Path) -> dict[str, Any]:
        """The task as lm-eval reads it."""
        document = yaml.safe_load((HERE / "lm_eval" / f"{self.task}.yaml").read_text())
        splits = {"test_split": "test"} | ({} if self.kind == "weigh" else {"fewshot_split": "dev"})
        files = {split: str(data / self.data / f"{split}.jsonl") for split in splits.values()}
        where = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
        return {"task": self.data, "num_fewshot": self.shots, **where, **splits, **document}


def tiny(scratch: Path) -> list[Case]:
    """The tiny model on all its data sets, and with a window that not every prompt fits."""
    model = Model("tiny", TINY / "model", 1024)
    sets = (("gsm", "gsm"), ("mc", "mc"), ("letters", "kind"))
    formats: tuple[tuple[int, Format], ...] = ((0, "Text"), (5, "Text"), (0, "Chat"), (5, "Chat"))
    found = [Case(model, *names, shots, kind, None) for names, (shots, kind) in product(sets, formats)]
    found += [Case(model, *names, 5, "Turns", None) for names in sets[:2]]
    found += [Case(model, "pages", "gsm-pages", 0, kind, None) for kind in ("Text", "Chat")]
    found += [Case(model, "corpus", "gsm", 0, "Text", None), Case(model, "true", "mc-true", 2, "Text", None)]
    short = _short(scratch, 52)
    return [
        *found,
        Case(short, "mc", "mc", 1, "Text", None),
        Case(short, "pages", "gsm-pages", 0, "Text", None),
    ]


def _short(scratch: Path, window: int) -> Model:
    """The tiny model, of which the configuration says that it takes fewer tokens."""
    folder = scratch / "short" / "model"
    copytree(TINY / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": window}))
    return Model("short", folder, window)


def smollm2_model(prepared: Path) -> Model:
    """A real model, from the folder that `python -m examples.prepare` fills."""
    return Model("smollm2", prepared / "models" / "smollm2", 2048)


def smollm2(data: Path, limit: int) -> list[Case]:
    """SmolLM2 on questions of MMLU and on capitals, as `python -m examples.prepare` makes them."""
    model = smollm2_model(data)
    sets = (("letters", "mmlu-dev"), ("mc", "capitals"), ("capitals", "capitals"))
    formats: tuple[tuple[int, Format], ...] = ((0, "Text"), (5, "Text"), (0, "Chat"), (5, "Chat"))
    found = [Case(model, *names, shots, kind, limit) for names, (shots, kind) in product(sets, formats)]
    return [*found, Case(model, "pages", "mmlu-dev-pages", 0, "Text", None)]


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
        _write(out / source.stem, dev=rows[:DEV], test=rows[DEV:])
        if source.stem == "mc":
            true = list(map(_true_and_false, rows))
            _write(out / "mc-true", dev=true[:DEV], test=true[DEV:])
        if source.stem in PAGES:
            _write(out / f"{source.stem}-pages", test=list(_pages(rows)))


def _true_and_false(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question with choices in TruthfulQA's schema: the right one and the next count as true, and stand first."""
    choices, right = row["choices"], row["answer"]
    labels = [1, 1, *(0 for _ in choices[2:])]
    return {**row, "mc2_targets": {"choices": choices[right:] + choices[:right], "labels": labels}}


def _pages(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Questions behind each other as one text, each text longer than the one before: up to several windows."""
    begin = 0
    for size in PAGE_SIZES:
        questions = [row["question"] for row in rows[begin : begin + size]]
        yield {"page": "\n\n".join(questions)}
        begin += size


def _write(folder: Path, **splits: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
