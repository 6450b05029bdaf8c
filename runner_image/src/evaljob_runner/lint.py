"""What makes numbers suspect although nothing failed: a model that was run on blank prompts also reports a score."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass
class Outputs:
    """Lint of the answers: ManyNoAnswer, ManyTruncated, ManyEmpty."""

    _count: Counter[str] = field(default_factory=Counter)
    _total: int = 0

    def add(self, outcome: Outcome, output: str | None) -> None:
        """One more answer: how it ended and what the model said (None for log-likelihoods)."""
        self._total += 1
        self._count["ManyNoAnswer"] += outcome is Outcome.NO_ANSWER
        self._count["ManyTruncated"] += outcome is Outcome.TRUNCATED
        self._count["ManyEmpty"] += output is not None and not output.strip()

    def found(self) -> tuple[Lint, ...]:
        """What there is too much of."""
        return _found(**{code: n for code, n in self._count.items() if n > SHARE * self._total})


def _found(**counts: int) -> tuple[Lint, ...]:
    return tuple(Lint(code=code, count=count) for code, count in counts.items() if count)
