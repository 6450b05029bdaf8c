"""LLMs that score answers, each behind an endpoint of its own; metrics name them."""

from collections.abc import Iterable

from pydantic import Field

from evaljob.backends import ChatTemplateArgs, OpenAI, Reasoning
from evaljob.fields import DnsLabel40
from evaljob.model import Frozen
from evaljob.task import Generation, Task


class Judge(Frozen):
    """An LLM that scores answers. It is asked in conversations, by the pods that score."""

    name: DnsLabel40
    """What a metric's `judge.name` says."""
    openai: OpenAI
    generation: Generation = Generation()
    """Temperature 0 and 1024 tokens by default."""
    reasoning: Reasoning | None = None
    """Where it thinks first: a verdict is looked for behind its thoughts."""
    chat_template_args: ChatTemplateArgs = Field(default_factory=dict)
    """Variables of its chat template, as a model has them."""


def named(task: Task, judges: Iterable[Judge]) -> tuple[Judge, ...]:
    """The judges that a task's metrics name, as far as they are there."""
    names = {m.judge.name for m in task.metrics if m.judge}
    return tuple(judge for judge in judges if judge.name in names)


def problem(task: Task, judges: Iterable[Judge]) -> str | None:
    """The first judge that a task names and that is not there: its field, its value, and the fix; or None."""
    known = sorted(judge.name for judge in judges)
    for i, metric in enumerate(task.metrics):
        if metric.judge and metric.judge.name not in known:
            name, have = metric.judge.name, f"which has {', '.join(known)}" if known else "which is empty"
            return (
                f"metrics[{i}].judge.name: {name!r} is not in spec.judges, {have}: add "
                f"judges: [{{name: {name}, openai: {{url: ..., model: ...}}}}]"
            )
    return None
