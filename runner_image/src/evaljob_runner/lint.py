"""What makes numbers suspect although nothing failed: a model that was run on blank prompts also reports a score."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evaljob.result import Lint
from evaljob_runner.prompts import Prompt
from evaljob_runner.samples import Outcome

FIRST_PROMPTS = 100
"""Prompts that are looked at before inference."""
SHARE = 0.2
"""More than this share of answers is "many"."""
_DUPLICATES = 0.1


class Looked(NamedTuple):
    """A prompt, and whether its token ids begin with BOS twice (unknown where a server tokenises)."""

    prompt: Prompt
    doubled_bos: bool


class Ended(NamedTuple):
    """How a sample ended and what the model said (None for log-likelihoods)."""

    outcome: Outcome
    output: str | None


def prompts(looked: Sequence[Looked]) -> tuple[Lint, ...]:
    """Lint of the first prompts: BlankPrompt, IdenticalPrompts, DoubledBos, FewShotLeak."""
    different = {(p.text, str(p.messages), p.choices) for p, _ in looked}
    same = len(looked) - len(different)
    return _found(
        BlankPrompt=sum(_blank(p) for p, _ in looked),
        IdenticalPrompts=same if same > _DUPLICATES * len(looked) else 0,
        DoubledBos=sum(doubled for _, doubled in looked),
        FewShotLeak=sum(p.leaks for p, _ in looked),
    )


def _blank(prompt: Prompt) -> bool:
    texts = [prompt.text, *(str(m["content"]) for m in prompt.messages)]
    return not any(text.strip() for text in texts)


def outputs(ended: Iterable[Ended]) -> tuple[Lint, ...]:
    """Lint of the answers: ManyNoAnswer, ManyTruncated, ManyEmpty."""
    count: Counter[str] = Counter()
    total = 0
    for outcome, output in ended:
        total += 1
        count["ManyNoAnswer"] += outcome is Outcome.NO_ANSWER
        count["ManyTruncated"] += outcome is Outcome.TRUNCATED
        count["ManyEmpty"] += output is not None and not output.strip()
    return _found(**{code: n for code, n in count.items() if n > SHARE * total})


def _found(**counts: int) -> tuple[Lint, ...]:
    return tuple(Lint(code=code, count=count) for code, count in counts.items() if count)
