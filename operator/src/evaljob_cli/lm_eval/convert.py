"""One task of lm-eval -> one of ours, and what became of each of its fields."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from evaljob import metrics
from evaljob.task import Task
from evaljob_cli.lm_eval import answers, prompts
from evaljob_cli.lm_eval.expressions import joined, pieces
from evaljob_cli.lm_eval.notes import Fate, Notes, Row, Unfit
from evaljob_cli.lm_eval.prompts import Choices, Document
from evaljob_cli.lm_eval.reading import Config

_T = TypeVar("_T")
_NAMES = ("task", "task_alias", "tag", "group", "group_alias", "recipe")
_DATA = ("dataset_path", "dataset_name", "dataset_kwargs")
_DECONTAMINATION = ("should_decontaminate", "doc_to_decontamination_query")
_PYTHON = {
    "process_docs": "Python changes the documents",
    "process_results": "Python scores the answers",
    "custom_dataset": "Python makes the documents",
    "class": "a task in Python",
    "use_prompt": "a prompt of promptsource",
    "doc_to_image": "images",
    "doc_to_audio": "sound",
}
_TYPES = {
    "multiple_choice": "LogLikelihood",
    "loglikelihood": "LogLikelihood",
    "generate_until": "Generate",
    "loglikelihood_rolling": "LogLikelihoodRolling",
}
_ASKING = (
    "doc_to_text",
    "description",
    "target_delimiter",
    "gen_prefix",
    "num_fewshot",
    "fewshot_config",
    "fewshot_split",
    "fewshot_delimiter",
    "generation_kwargs",
)
"""What is not read where whole texts are weighed."""
_READ = frozenset(
    [
        *_ASKING,
        "output_type",
        "doc_to_target",
        "doc_to_choice",
        "test_split",
        "validation_split",
        "training_split",
        "filter_list",
        "metric_list",
        "repeats",
        "metadata",
    ]
)


@dataclass(frozen=True)
class Conversion:
    """What came of a task."""

    document: Document | None
    """The task as YAML holds it; None where it needs lm-eval itself."""
    rows: tuple[Row, ...]

    @property
    def equal(self) -> bool:
        """Whether the task gives the scores that it gives in lm-eval."""
        return self.document is not None and all(row.fate is not Fate.LOST for row in self.rows)


def convert(config: Config) -> Conversion:
    """Convert a task, includes resolved."""
    notes = Notes()
    document = _Converter(config, notes).document()
    needed = any(row.fate is Fate.ADAPTER for row in notes.rows)
    return Conversion(None if needed else document, tuple(notes.rows))


class _Converter:
    def __init__(self, config: Config, notes: Notes) -> None:
        self._config, self._notes = config, notes
        kind = config.get("output_type")
        self._chooses, self._continues = kind == "multiple_choice", kind == "loglikelihood"
        self._rolling = kind == "loglikelihood_rolling"

    def document(self) -> Document:
        """The task, as far as it has one; what prevents it stands in the notes."""
        notes, config = self._notes, self._config
        self._left_out()
        kind = str(config.get("output_type", "generate_until"))
        if kind not in _TYPES:
            notes.adapter("output_type", f"{kind}: no request type for it")
            return {}
        notes.carried("output_type", _TYPES[kind])
        found: Document = {"version": self._version(), "requestType": _TYPES[kind], "splits": {}}
        asking = (self._prompt, self._answer, self._examples, self._splits, self._generation)
        for part in (self._text, self._splits) if self._rolling else asking:
            found |= part()
        found |= self._scoring()
        self._rest()
        if not any(row.fate is Fate.ADAPTER for row in notes.rows):
            self._check(found)
        return found

    @property
    def _weighs(self) -> bool:
        """Whether log-likelihoods of choices, or of the one continuation, are asked for."""
        return self._chooses or self._continues

    def _part(self, field: str, make: Callable[[], _T]) -> _T | None:
        """A part of the task; None, with a note, where it needs the adapter."""
        try:
            return make()
        except Unfit as why:
            self._notes.adapter(field, str(why))
            return None

    def _left_out(self) -> None:
        config, notes = self._config, self._notes
        notes.dropped((n for n in _NAMES if n in config), "a name: the dataset's stands in results")
        notes.dropped((n for n in _DATA if n in config), "the dataset's source says where the documents are")
        notes.dropped((n for n in _DECONTAMINATION if n in config), "changes no score")
        notes.dropped((n for n in ("unsafe_code",) if n in config), "a metric says so itself")
        for name, why in _PYTHON.items():
            if config.get(name) is not None:
                notes.adapter(name, f"{why}: {config[name]}")
        known = {*_NAMES, *_DATA, *_DECONTAMINATION, *_PYTHON, *_READ, "unsafe_code"}
        for name in sorted(config.keys() - known):
            notes.lost(name, "unknown")

    def _version(self) -> int:
        given = (self._config.get("metadata") or {}).get("version", 1)
        try:
            version = max(1, int(float(given)))
        except (TypeError, ValueError):
            version = 1
        if "metadata" in self._config:
            self._notes.carried("metadata.version", f"{given} is version {version} here")
        return version

    def _prompt(self) -> Document:
        config = self._config
        found: Document = {}
        if description := config.get("description"):
            text = self._part("description", lambda: joined(pieces(description, of_column=False)))
            found |= {"description": text, "descriptionRole": "System"}
            self._notes.carried("description")
        # lm-eval puts none before the one continuation.
        if (delimiter := "" if self._continues else config.get("target_delimiter", " ")) != " ":
            found["targetDelimiter"] = delimiter
        self._told("target_delimiter")
        question = self._part("doc_to_text", lambda: pieces(config.get("doc_to_text")))
        if question is None:
            return found
        self._told("doc_to_text", _column_note(config.get("doc_to_text")))
        shots = int(config.get("num_fewshot") or 0)
        begin = self._part(
            "gen_prefix", lambda: prompts.prefix(config, question, weighs=self._weighs, shots=shots)
        )
        if begin:
            found["assistantPrefix"] = begin
            self._told("gen_prefix")
        return found | {"prompt": joined(question)}

    def _text(self) -> Document:
        """The text that is weighed; nothing is asked."""
        self._notes.dropped((n for n in _ASKING if n in self._config), "nothing stands before a text")
        text = self._part("doc_to_target", lambda: joined(pieces(self._config.get("doc_to_target"))))
        self._told("doc_to_target", _column_note(self._config.get("doc_to_target")))
        return {"target": text}

    def _answer(self) -> Document:
        config, found = self._config, dict[str, Any]()
        among: Choices | None = None
        if self._continues:
            return self._continuation()
        if config.get("doc_to_choice") is not None or self._chooses:
            among = self._part("doc_to_choice", lambda: prompts.choices(config.get("doc_to_choice")))
            if among is None:
                self._notes.adapter("doc_to_target", "one of doc_to_choice")
                return found
            self._told("doc_to_choice", _column_note(config.get("doc_to_choice")))
        value = config.get("doc_to_target")
        if self._chooses and among:
            made = among
            target = self._part("doc_to_target", lambda: prompts.index(value, made))
            found = {"choices": among.document, "target": target}
        else:
            found = self._part("doc_to_target", lambda: prompts.answer(value, among)) or {}
        self._told("doc_to_target", _column_note(value))
        return found

    def _continuation(self) -> Document:
        """The one continuation that is weighed: the only choice, and so the right one."""
        found = self._part("doc_to_target", lambda: prompts.continuation(self._config))
        self._told("doc_to_target", _column_note(self._config.get("doc_to_target")))
        return {"choices": {"template": found}, "target": "0"}

    def _examples(self) -> Document:
        config = self._config
        if (config.get("fewshot_config") or {}).get("samples") is not None:
            return self._samples()
        found = self._part(
            "fewshot_config",
            lambda: prompts.examples(config, self._notes, eval_split=self._eval(), weighs=self._chooses),
        )
        return {"fewShot": found} if found else {}

    def _samples(self) -> Document:
        text = self._part("fewshot_config", lambda: prompts.shown(self._config, weighs=self._chooses))
        question = self._part("doc_to_text", lambda: pieces(self._config.get("doc_to_text")))
        if text is None or question is None:
            return {}
        self._notes.carried(
            "fewshot_config.samples",
            "before the question, in one turn with it (lm-eval: fewshot_as_multiturn=False)",
        )
        return {"prompt": prompts.quoted(text) + joined(question)}

    def _eval(self) -> str:
        return str(self._config.get("test_split") or self._config.get("validation_split") or "")

    def _splits(self) -> Document:
        config = self._config
        evaluated = self._eval()
        if not evaluated:
            self._notes.adapter("test_split", "neither test_split nor validation_split")
            return {}
        pool = self._pool()
        self._notes.carried("test_split" if config.get("test_split") else "validation_split", evaluated)
        return {"splits": {"eval": evaluated, **({"fewShot": str(pool)} if pool else {})}}

    def _pool(self) -> str | None:
        """The split of examples, if it has any."""
        config = self._config
        settings = config.get("fewshot_config") or {}
        pool = settings.get("split") or config.get("fewshot_split")
        if not pool and config.get("num_fewshot") and settings.get("samples") is None:
            pool = config.get("training_split") or config.get("validation_split")
        return pool

    def _generation(self) -> Document:
        if self._weighs:
            self._notes.dropped(
                (n for n in ("generation_kwargs",) if n in self._config), "nothing is generated"
            )
            return {}
        found = self._part("generation_kwargs", lambda: answers.generation(self._config, self._notes))
        return {"generation": found} if found else {}

    def _scoring(self) -> Document:
        found = self._part(
            "metric_list", lambda: answers.scoring(self._config, self._notes, weighs=self._weighs)
        )
        return found or {}

    def _rest(self) -> None:
        """What no row names yet: fields that are read, and splits that are not."""
        told = {re.split("[.:]", row.field)[0] for row in self._notes.rows}
        for name in (n for n in self._config if n in _READ - told - {"metadata"}):
            if name.endswith("_split") and self._config[name] != self._pool():
                self._notes.dropped([name], "neither evaluated nor shown")
            else:
                self._notes.carried(name)

    def _check(self, document: Document) -> None:
        """Our own rules have the last word: lengths, names, numbers."""
        try:
            problem = metrics.problem(Task.model_validate(document))
        except ValidationError as error:
            for found in error.errors(include_url=False):
                where = ".".join(map(str, found["loc"])) or "task"
                self._notes.adapter(where, found["msg"].removeprefix("Value error, "))
        else:
            if problem:
                self._notes.adapter("metric_list", problem)

    def _told(self, field: str, why: str = "") -> None:
        if field in self._config and not any(row.field == field for row in self._notes.rows):
            self._notes.carried(field, why)


def _column_note(value: object) -> str:
    return f"the column {value}" if isinstance(value, str) and value.isidentifier() else ""
