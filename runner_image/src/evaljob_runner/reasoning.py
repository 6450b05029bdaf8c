"""What a model thinks before it answers: neither scored nor cut by a task's stop texts, and counted apart."""

import dataclasses
from typing import NamedTuple

from evaljob.backends import Reasoning
from evaljob_runner.backends.base import Answer, Finish, Sampling, cut


class Said(NamedTuple):
    """The parts of an output."""

    thoughts: str
    """"" where the model did not think."""
    answer: str | None
    """None where the thoughts do not end."""
    finish: Finish


def engine(sampling: Sampling, reasoning: Reasoning | None) -> Sampling:
    """What the engine is told: room for both, and no stop text, which could stand in the thoughts."""
    if reasoning is None:
        return sampling
    return dataclasses.replace(sampling, max_tokens=sampling.max_tokens + reasoning.max_tokens, stop=())


def split(reply: Answer, reasoning: Reasoning | None, stop: tuple[str, ...]) -> Said:
    """Take an output apart, then apply the task's stop texts to the answer.

    Args:
        reply: the output; a server may have taken it apart already.
        reasoning: how the model marks its thoughts.
        stop: the stop texts.
    """
    if reasoning is None:
        text = reply.text.lstrip() if reply.thoughts else reply.text
        return Said(reply.thoughts or "", text, reply.finish)
    thoughts, answer = _apart(reply, reasoning)
    if answer is None:
        return Said(thoughts, None, reply.finish)
    text, stopped = cut(answer, stop)
    return Said(thoughts, text, Finish.STOP if stopped else reply.finish)


def _apart(reply: Answer, reasoning: Reasoning) -> tuple[str, str | None]:
    if reply.thoughts is not None:
        # Nothing but thoughts: the server found no end of them. What it leaves may begin with line breaks.
        return reply.thoughts, reply.text.lstrip() if reply.text else None
    text = reply.text
    begun = text.lstrip().startswith(reasoning.start)
    thoughts, end, answer = text.partition(reasoning.end)
    if not end:
        return (text, None) if begun or reasoning.starts_open else ("", text)
    return thoughts.lstrip().removeprefix(reasoning.start), answer.lstrip()
