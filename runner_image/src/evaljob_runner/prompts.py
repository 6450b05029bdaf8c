"""Samples -> prompts, as text or messages. Pure functions of (task, sample): nothing here knows a model.

The layout is lm-eval's: description, solved examples, question. Under a chat template all of it is one user
turn, and a choice follows it without the delimiter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaljob.names import Reason
from evaljob.task import Pool, RequestType, Task
from evaljob_runner import templates
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal

Message = Mapping[str, Any]
"""One turn in OpenAI's shape: at least `role` and `content`."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked about one sample."""

    sample: Sample
    text: str
    """The prompt of a Text model; "" where there are messages."""
    messages: tuple[Message, ...]
    """The conversation of a Chat model."""
    choices: tuple[str, ...]
    """The answers to weigh, LogLikelihood only."""
    delimiter: str
    """Between prompt and choice."""
    target: str
    references: tuple[str, ...]
    """All accepted answers, where the task has several."""
    few_shot: tuple[Sample, ...]
    leaks: bool
    """Whether a solved example asks the very question of the sample."""


class Prompter:
    """A task's templates, compiled.

    Args:
        task: whose templates.
        pools: few-shot candidates by subset.
        chat: whether the model takes conversations.

    Raises:
        Fatal: BadConfiguration, for a template that cannot be compiled.
    """

    def __init__(self, task: Task, pools: Mapping[str, tuple[Sample, ...]], *, chat: bool) -> None:
        self._task, self._pools, self._chat = task, pools, chat
        self._description = templates.text("description", task.description or "")
        self._prompt = templates.text("prompt", task.prompt or "")
        self._target = templates.text("target", task.target)
        self._references = templates.value("references", task.references) if task.references else None
        self._messages = templates.value("messages", task.messages) if task.messages else None
        choices = task.choices.template if task.choices else None
        self._choices = templates.value("choices.template", choices) if choices else None

    def prompt(self, sample: Sample) -> Prompt:
        """The prompt of one sample.

        Raises:
            Fatal: BadData, when the document does not fit the templates.
        """
        shots = self._shots(sample)
        question = self._prompt.render(sample.columns, sample.where)
        text = self._description.render(sample.columns, sample.where)
        text += "".join(self._solved(shot) for shot in shots) + question
        messages: tuple[Message, ...] = ({"role": "user", "content": text},) if self._chat else ()
        if self._messages:
            messages = _conversation(self._messages.evaluate(sample.columns, sample.where), sample)
        choices = self._choices_of(sample)
        return Prompt(
            sample=sample,
            text="" if messages else text,
            messages=messages,
            choices=choices,
            delimiter="" if self._chat else self._task.target_delimiter,
            target=self.target(sample, choices),
            references=self._references_of(sample),
            few_shot=shots,
            leaks=any(self._prompt.render(s.columns, s.where) == question for s in shots),
        )

    def _shots(self, sample: Sample) -> tuple[Sample, ...]:
        """The first examples of the sample's pool, never the sample's own document."""
        few_shot = self._task.few_shot
        if not few_shot or not few_shot.count:
            return ()
        pool = self._pools.get("" if few_shot.pool is Pool.ALL else sample.subset, ())
        shots = [s for s in pool if s.digest != sample.digest][: few_shot.count]
        if len(shots) < few_shot.count:
            of = f" of subset {sample.subset!r}" if few_shot.pool is Pool.SAME_SUBSET else ""
            raise Fatal(
                Reason.BAD_DATA,
                f"fewShot.count is {few_shot.count}, but the pool{of} has {len(shots)} other examples",
            )
        return tuple(shots)

    def _solved(self, shot: Sample) -> str:
        few_shot = self._task.few_shot
        choices = self._choices_of(shot)
        target = self.target(shot, choices)
        answer = choices[int(target)] if choices else target
        end = few_shot.delimiter if few_shot else ""
        return self._prompt.render(shot.columns, shot.where) + self._task.target_delimiter + answer + end

    def _choices_of(self, sample: Sample) -> tuple[str, ...]:
        if self._choices is None:
            return (self._task.choices.values or ()) if self._task.choices else ()
        found = self._choices.evaluate(sample.columns, sample.where)
        if not isinstance(found, list | tuple) or len(found) < 2:
            raise Fatal(Reason.BAD_DATA, f"choices.template: must yield a list of texts ({sample.where})")
        choices = tuple(str(choice) for choice in found)
        if "" in choices:
            raise Fatal(
                Reason.BAD_DATA, f"choices.template: choice {choices.index('')} is empty ({sample.where})"
            )
        return choices

    def _references_of(self, sample: Sample) -> tuple[str, ...]:
        if self._references is None:
            return ()
        found = self._references.evaluate(sample.columns, sample.where)
        if not isinstance(found, list | tuple) or not found:
            raise Fatal(Reason.BAD_DATA, f"references: must yield a list of texts ({sample.where})")
        return tuple(map(str, found))

    def target(self, sample: Sample, choices: tuple[str, ...] = ()) -> str:
        """The expected answer.

        Raises:
            Fatal: BadData, when the document does not fit the template.
        """
        target = self._target.render(sample.columns, sample.where)
        if self._task.request_type is not RequestType.LOG_LIKELIHOOD:
            return target
        if not target.strip().isdecimal() or int(target) >= len(choices):
            raise Fatal(
                Reason.BAD_DATA,
                f"target: must be the index of a choice, 0 to {len(choices) - 1}, got {target[:80]!r} "
                f"({sample.where})",
            )
        return target.strip()


def _conversation(found: object, sample: Sample) -> tuple[Message, ...]:
    """Check the messages that a template yielded."""
    if not isinstance(found, list | tuple) or not found:
        raise Fatal(Reason.BAD_DATA, f"messages: must yield a list of messages ({sample.where})")
    for i, message in enumerate(found):
        if not isinstance(message, dict) or not all(
            isinstance(message.get(k), str) for k in ("role", "content")
        ):
            raise Fatal(Reason.BAD_DATA, f"messages[{i}]: needs the texts role and content ({sample.where})")
    if found[-1]["role"] == "assistant":
        raise Fatal(
            Reason.BAD_DATA,
            f"messages: the model writes the last turn, so the list must end before it ({sample.where})",
        )
    return tuple(found)
