"""Samples -> prompts, as text or messages. Pure functions of (task, sample): nothing here knows a model.

The layout is lm-eval's: description, solved examples, question. Under a chat template all of it is one user
turn unless the task says otherwise, and a choice follows it without the delimiter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaljob.metrics import KINDS
from evaljob.names import Reason
from evaljob.requests import RequestType
from evaljob.task import DescriptionRole, Task, Turns
from evaljob_runner import templates
from evaljob_runner.conversation import ASSISTANT, Message, Part, joined, parts, turn
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal
from evaljob_runner.fewshot import Examples


@dataclass(frozen=True)
class Turn:
    """One of several answers in a conversation."""

    part: Part
    """What leads to it."""
    target: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """What a model is asked about one sample."""

    sample: Sample
    text: str
    """The prompt of a Text model; "" where there are messages. With LogLikelihoodRolling the text to weigh."""
    messages: tuple[Message, ...]
    """The conversation of a Chat model."""
    tools: tuple[Mapping[str, Any], ...]
    """The functions on offer in the conversation, as OpenAI's `tools`."""
    prefix: str
    """How the assistant's answer to `messages` begins."""
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
    turns: tuple[Turn, ...] = ()
    """All answers that the conversation asks for, where the task wants several; all else is about one of them."""

    def after(self, said: Sequence[str], *, gold: bool) -> "Prompt":
        """The prompt of the next answer.

        Args:
            said: the model's answers so far.
            gold: whether the document's own stand in their place.
        """
        before, now = self.turns[: len(said)], self.turns[len(said)]
        answers = (
            t.part.gold if gold and t.part.gold else turn(ASSISTANT, s)
            for t, s in zip(before, said, strict=True)
        )
        messages = joined((t.part for t in before), answers, now.part.lead)
        return replace(self, messages=messages, target=now.target, references=now.references)


class Prompter:
    """A task's templates, compiled.

    Args:
        task: whose templates.
        pools: few-shot candidates by subset.
        chat: whether the model takes conversations.
        seed: of a sample's random examples.

    Raises:
        Fatal: BadConfiguration, for a template that cannot be compiled.
    """

    def __init__(
        self,
        task: Task,
        pools: Mapping[str, tuple[Sample, ...]],
        *,
        chat: bool,
        seed: Callable[[Sample], int] = lambda _: 0,
    ) -> None:
        self._task, self._chat = task, chat
        self._description = templates.text("description", task.description or "")
        self._prompt = templates.text("prompt", (chat and task.chat_prompt) or task.prompt or "")
        self._target = templates.text("target", task.target)
        self._references = templates.value("references", task.references) if task.references else None
        self._messages = templates.value("messages", task.messages) if task.messages else None
        self._tools = templates.value("tools", task.tools) if task.tools else None
        answer = task.few_shot.answer if task.few_shot else None
        self._answer = templates.text("fewShot.answer", answer) if answer else None
        choices = task.choices.template if task.choices else None
        self._choices = templates.value("choices.template", choices) if choices else None
        self._fewest_choices = 2 if any(KINDS[m.name].picks for m in task.metrics) else 1
        self._examples = Examples(task.few_shot, pools, question=self._question, seed=seed)

    def prompt(self, sample: Sample) -> Prompt:
        """The prompt of one sample.

        Raises:
            Fatal: BadData, when the document does not fit the templates.
        """
        shots = self._examples.of(sample)
        question = self._question(sample)
        choices = self._choices_of(sample)
        turns = self._turns(sample)
        target = turns[0].target if turns else self._target_of(sample, choices)
        prefix = self._task.assistant_prefix or ""
        asks = self._task.request_type is not RequestType.LOG_LIKELIHOOD_ROLLING
        messages = turns[0].part.lead if turns else ()
        if self._chat and asks and not turns:
            messages = self._conversation(sample, shots, question)
        text = self._text(sample, shots, question) if asks else target
        return Prompt(
            sample=sample,
            text="" if messages else text,
            messages=messages,
            tools=self._tools_of(sample),
            prefix=prefix if messages else "",
            choices=choices,
            delimiter=self._delimiter(),
            target=target,
            references=turns[0].references if turns else self._references_of(sample, choices),
            few_shot=shots,
            leaks=any(self._question(s) == question for s in shots),
            turns=turns,
        )

    def _turns(self, sample: Sample) -> tuple[Turn, ...]:
        """Every answer that is asked for, where the task asks for more than the last one."""
        if self._task.turns is Turns.LAST or not self._messages:
            return ()
        found = parts(self._messages.conversation(sample.columns, sample.where))
        if not found[-1].asks:
            raise Fatal(Reason.BAD_DATA, f"messages: nobody asks for an answer at the end ({sample.where})")
        silent = next((i for i, part in enumerate(found[:-1]) if part.gold is None), None)
        if silent is not None and self._task.turns is Turns.EVERY_WITH_GOLD:
            raise Fatal(
                Reason.BAD_DATA,
                "messages: turns EveryWithGold needs an assistant turn behind each question but the last, number "
                f"{silent} has none ({sample.where}); use Every",
            )
        at = [replace(sample, columns={**sample.columns, "turn": i}) for i in range(len(found))]
        return tuple(
            Turn(p, self._target_of(s, ()), self._references_of(s, ()))
            for p, s in zip(found, at, strict=True)
        )

    def _question(self, sample: Sample) -> str:
        return self._prompt.render(sample.columns, sample.where)

    def _text(self, sample: Sample, shots: Sequence[Sample], question: str) -> str:
        prefix = self._task.assistant_prefix
        begin = self._task.target_delimiter + prefix if prefix else ""
        description = self._description.render(sample.columns, sample.where)
        return description + self._solved(shots) + question + begin

    def _delimiter(self) -> str:
        """What stands before a choice."""
        prefix = self._task.assistant_prefix or ""
        if (self._chat and not prefix) or prefix[-1:].isspace():
            return ""
        return self._task.target_delimiter

    def _solved(self, shots: Sequence[Sample]) -> str:
        """The examples in front of the question."""
        end = self._task.few_shot.delimiter if self._task.few_shot else ""
        return "".join(
            self._question(s) + self._task.target_delimiter + self._answer_of(s) + end for s in shots
        )

    def _conversation(self, sample: Sample, shots: Sequence[Sample], question: str) -> tuple[Message, ...]:
        """The document's own conversation, or the prompt as one turn or, with its examples, as several."""
        if self._messages:
            found = self._messages.conversation(sample.columns, sample.where)
            if found[-1]["role"] == ASSISTANT:
                raise Fatal(
                    Reason.BAD_DATA,
                    f"messages: the model writes the last turn, so the list must end before it ({sample.where})",
                )
            return found
        description = self._description.render(sample.columns, sample.where)
        by_system = bool(description) and self._task.description_role is DescriptionRole.SYSTEM
        head = (turn("system", description),) if by_system else ()
        lead = "" if by_system else description
        if not (self._task.few_shot and self._task.few_shot.as_turns):
            return *head, turn("user", lead + self._solved(shots) + question)
        first, *more = [*map(self._question, shots), question]
        asked = [turn("user", q) for q in (lead + first, *more)]
        answered = [turn("assistant", self._answer_of(shot)) for shot in shots]
        pairs = zip(asked, answered, strict=False)
        return *head, *(turn for pair in pairs for turn in pair), asked[-1]

    def _answer_of(self, shot: Sample) -> str:
        """What an example shows as its answer."""
        choices = self._choices_of(shot)
        target = self._target_of(shot, choices)
        answer = choices[int(target)] if choices else target
        if self._answer:
            answer = self._answer.render(shot.columns, shot.where)
        prefix = self._task.assistant_prefix or ""
        between = self._task.target_delimiter if prefix and not prefix[-1].isspace() else ""
        return prefix + between + answer

    def _choices_of(self, sample: Sample) -> tuple[str, ...]:
        if self._choices is None:
            return (self._task.choices.values or ()) if self._task.choices else ()
        found = self._choices.evaluate(sample.columns, sample.where)
        if not isinstance(found, list | tuple) or len(found) < self._fewest_choices:
            raise Fatal(
                Reason.BAD_DATA,
                f"choices.template: must yield a list of texts, {self._fewest_choices} or more ({sample.where})",
            )
        choices = tuple(str(choice) for choice in found)
        if "" in choices:
            raise Fatal(
                Reason.BAD_DATA, f"choices.template: choice {choices.index('')} is empty ({sample.where})"
            )
        return choices

    def _tools_of(self, sample: Sample) -> tuple[Mapping[str, Any], ...]:
        found = self._tools.evaluate(sample.columns, sample.where) if self._tools else []
        if not isinstance(found, list | tuple) or not all(
            isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in found
        ):
            raise Fatal(
                Reason.BAD_DATA,
                f"tools: must yield a list of {{type: function, function: {{…}}}} ({sample.where})",
            )
        return tuple(found)

    def _references_of(self, sample: Sample, choices: tuple[str, ...]) -> tuple[str, ...]:
        if self._references is None:
            return ()
        found = self._references.evaluate(sample.columns, sample.where)
        if not isinstance(found, list | tuple) or not found:
            raise Fatal(Reason.BAD_DATA, f"references: must yield a list of texts ({sample.where})")
        try:
            texts = [_written(value) for value in found]
        except TypeError as error:
            raise Fatal(Reason.BAD_DATA, f"references: {error} ({sample.where})") from error
        return tuple(self._accepted("references", text, choices, sample) for text in texts)

    def accepted(self, sample: Sample) -> Iterator[tuple[str, str]]:
        """What answers are compared with, of each turn: the references, else the target; each behind its field.

        Raises:
            Fatal: BadData, when the document does not fit the templates.
        """
        expected = [(turn.target, turn.references) for turn in self._turns(sample)]
        if not expected:
            choices = self._choices_of(sample)
            expected = [(self._target_of(sample, choices), self._references_of(sample, choices))]
        for target, references in expected:
            yield from ((f"references[{i}]", text) for i, text in enumerate(references))
            if not references:
                yield "target", target

    def _target_of(self, sample: Sample, choices: tuple[str, ...]) -> str:
        target = self._target.render(sample.columns, sample.where)
        return self._accepted("target", target, choices, sample)

    def _accepted(self, field: str, text: str, choices: tuple[str, ...], sample: Sample) -> str:
        """An expected answer; of choices it is an index."""
        if self._task.request_type is not RequestType.LOG_LIKELIHOOD:
            return text
        if not text.strip().isdecimal() or int(text) >= len(choices):
            raise Fatal(
                Reason.BAD_DATA,
                f"{field}: must be the index of a choice, 0 to {len(choices) - 1}, got {text[:80]!r} "
                f"({sample.where})",
            )
        return text.strip()


def _written(value: object) -> str:
    """A reference as text: lists and objects as `tojson` writes them."""
    return templates.json_text(value) if isinstance(value, list | tuple | dict) else str(value)
