"""Tasks of lm-eval as they are in its package, imported: the same prompts, answers and metrics on rows of ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from evaljob.task import Task
from evaljob_cli.lm_eval.convert import Conversion, convert
from evaljob_cli.lm_eval.reading import read
from tests.parity.cases import LOG_PRECISION, Case, Format, Kind, Model
from tests.runner_plans import TINY

CATALOGUE = Path(__file__).parents[1] / "catalogue"
Rows = Sequence[Mapping[str, Any]]


def _catalogue(task: str, name: str) -> Rows:
    return [json.loads(line) for line in (CATALOGUE / task / f"{name}.jsonl").read_text().splitlines()]


QUESTIONS: Rows = [
    {
        "question": "Who wrote Faust",
        "question_stem": "A stone that is thrown up",
        "choices": {"text": ["falls", "stays there"], "label": ["A", "B"]},
        "answerKey": " A",
        "answer": {"aliases": ["Goethe", "J. W. von Goethe"], "value": "Goethe"},
    },
    {
        "question": "What is the capital of Peru",
        "question_stem": "Ice that is warmed",
        "choices": {"text": ["grows", "melts"], "label": ["A", "B"]},
        "answerKey": "B",
        "answer": {"aliases": ["Lima", "[Lima]"], "value": "Lima"},
    },
]
SENTENCES: Rows = [
    {"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."},
    {"sentence_good": "She sings.", "sentence_bad": "She sing."},
]
SUMS: Rows = [
    {"question": "What is 3 plus 4?", "answer": None, "answer_number": 7},
    {"question": "Question: What is 9 minus 4?", "answer": "Step-by-Step Answer: 5", "answer_number": 5},
]


WORDS: Rows = [
    {"text": "Which of fig, cat, orange and zinc is an animal?"},
    {"text": "Eva has 46 coins and gives away 25. How many coins are left?"},
    {"text": "A cat is an animal and lead is a metal"},
]
"""Passages of which the last word is to be guessed."""


@dataclass(frozen=True)
class Imported(Case):
    """A task out of lm-eval's package, on rows in its dataset's schema."""

    path: str
    rows: Mapping[str, Rows]
    """By split."""
    changes: Mapping[str, Any]
    """Fields of its YAML that the comparison needs otherwise."""
    folder: Path

    @property
    def file(self) -> Path:
        """A YAML in lm-eval's schema that includes the package's."""
        return self.folder / f"{self.data}.yaml"

    def write(self) -> None:
        """Write it, and the rows."""
        (self.folder / self.data).mkdir(parents=True)
        for split, rows in self.rows.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / self.data / f"{split}.jsonl").write_text(text)
        data_files = {split: str(self.folder / self.data / f"{split}.jsonl") for split in self.rows}
        document = {
            "include": str(TASKS / self.path),
            "task": self.data,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": data_files},
            "num_fewshot": self.shots,
            **self.changes,
        }
        self.file.write_text(yaml.safe_dump(document))

    def converted(self) -> Conversion:
        """What the importer makes of it."""
        return convert(read(self.file))

    @property
    def precision(self) -> float:
        """As its base."""
        return LOG_PRECISION if self.data == "lambada" else super().precision

    @property
    def kind(self) -> Kind:
        """What the model is asked for."""
        return _KINDS[self.theirs(self.folder)["output_type"]]

    def ours(self) -> Task:
        """The imported task."""
        return Task.model_validate(self.converted().document)

    def theirs(self, data: Path) -> dict[str, Any]:  # noqa: ARG002 - as its base
        """The task as lm-eval reads it."""
        from lm_eval.tasks._yaml_loader import load_yaml

        return load_yaml(self.file)  # type: ignore[no-any-return]


_KINDS: Mapping[str, Kind] = {
    "generate_until": "generate",
    "multiple_choice": "choose",
    "loglikelihood": "choose",
    "loglikelihood_rolling": "weigh",
}
TASKS = Path(str(files("lm_eval"))) / "tasks"
_GSM8K = {"test": _catalogue("gsm8k", "test"), "train": _catalogue("gsm8k", "train")}
_MMLU = {"test": _catalogue("mmlu", "test"), "dev": _catalogue("mmlu", "dev")}
_ARC = {split: _catalogue("arc", "data") for split in ("train", "validation", "test")}
_QUESTIONS = dict.fromkeys(("train", "validation", "test"), QUESTIONS)
_PAGES: Rows = [{"text": row["question"]} for row in _GSM8K["test"]]
_FIRST = {"fewshot_config": {"sampler": "first_n"}}
_WANTED: Sequence[tuple[str, str, int, Format, Mapping[str, Rows], Mapping[str, Any]]] = (
    ("arc", "arc/arc_easy.yaml", 0, "Text", _ARC, {}),
    ("mmlu", "mmlu/default/mmlu_anatomy.yaml", 4, "Text", _MMLU, {}),
    ("mmlu-turns", "mmlu/default/mmlu_anatomy.yaml", 2, "Turns", _MMLU, {}),
    ("gsm8k", "gsm8k/gsm8k.yaml", 3, "Text", _GSM8K, _FIRST),
    ("gsm8k-turns", "gsm8k/gsm8k.yaml", 2, "Turns", _GSM8K, _FIRST),
    ("gsm8k-cot", "gsm8k/gsm8k-cot.yaml", 3, "Chat", _GSM8K, {}),
    ("triviaqa", "triviaqa/default.yaml", 1, "Text", _QUESTIONS, _FIRST),
    ("openbookqa", "openbookqa/openbookqa.yaml", 0, "Text", _QUESTIONS, {}),
    ("blimp", "blimp/adjunct_island.yaml", 0, "Text", {"train": SENTENCES}, {}),
    ("mgsm", "mgsm/direct/mgsm_direct_en.yaml", 0, "Text", {"test": SUMS, "train": SUMS}, {}),
    ("pile", "pile/pile_arxiv.yaml", 0, "Text", {"train": _PAGES}, {}),
    ("lambada", "lambada/lambada_standard.yaml", 0, "Text", {"test": WORDS, "validation": WORDS}, {}),
    ("prefix", "llama3/instruct/mmlu/_continuation_template_yaml", 2, "Turns", _MMLU, {}),
    ("prefix-text", "llama3/instruct/mmlu/_continuation_template_yaml", 2, "Text", _MMLU, {}),
)


def cases(folder: Path, window: int = 4096) -> list[Imported]:
    """All of them, written into a folder."""
    model = Model("tiny", TINY / "model", window)
    found = [
        Imported(model, name, name, shots, kind, None, path, rows, changes, folder)
        for name, path, shots, kind, rows, changes in _WANTED
    ]
    for case in found:
        case.write()
    return found
