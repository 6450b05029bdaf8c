"""Log-likelihoods out of completions with `echo` and `logprobs`, as lm-eval's local-completions asks for them.

The tokens of a continuation are those behind as many tokens as the context takes alone: lm-eval's cut, made by the
server's tokenizer. `text_offset` is not used: SGLang sends -1, vLLM counts the text of special tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaljob.names import Reason
from evaljob_runner.backends.base import Unsupported, Weight
from evaljob_runner.errors import Fatal

MINUS_INFINITY = -9999.0
"""What vLLM sends instead: JSON has no infinities."""


@dataclass(frozen=True)
class Token:
    """One token of a prompt."""

    logprob: float | None
    """Given all tokens before it; None for the first one."""
    best: float | None
    """Of the most likely token in its place."""


Tokens = tuple[Token, ...]


def prompt_tokens(body: Mapping[str, Any]) -> Tokens:
    """The tokens of a prompt, from the answer to a request for one new token.

    Raises:
        Unsupported: when they are not there.
        KeyError, TypeError, ...: when the body is no answer of this API.
    """
    logprobs = body["choices"][0].get("logprobs") or {}
    count = int((body.get("usage") or {}).get("prompt_tokens") or 0)
    values, tops = (logprobs.get(name) or () for name in ("token_logprobs", "top_logprobs"))
    if not count or len(values) - count not in (0, 1) or len(tops) != len(values):
        raise Unsupported(
            f"usage.prompt_tokens is {count}, but there are {len(values)} token_logprobs and {len(tops)} top_logprobs"
        )
    bests = (max(top.values()) if top else None for top in tops)
    return tuple(Token(value, best) for value, best in zip(values, bests, strict=True))[:count]


def weight(context: Tokens, whole: Tokens, continuation: str) -> Weight:
    """The log-likelihood of what follows the context.

    Args:
        context: the tokens of the context alone.
        whole: the tokens of context and continuation.
        continuation: its text, for messages.

    Raises:
        Fatal: BadData, when the continuation has no token of its own; InvalidNumber, for NaN and infinities.
    """
    rest = whole[len(context) :]
    if not context or not rest:
        raise Fatal(Reason.BAD_DATA, f"choice {continuation[:80]!r} gives no token of its own on this server")
    values = [math.nan if token.logprob is None else float(token.logprob) for token in rest]
    if not all(math.isfinite(value) and value > MINUS_INFINITY for value in values):
        raise Fatal(
            Reason.INVALID_NUMBER, f"the server computes log-probabilities that are not finite: {values}"
        )
    greedy = all(
        token.best is not None and value >= token.best for token, value in zip(rest, values, strict=True)
    )
    return Weight(math.fsum(values), len(rest), greedy)
