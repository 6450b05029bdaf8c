"""The child of `mathematics`: one JSON line `[gold, answer]` in, one line `true` or `false` out."""

import json
import resource
import sys

from math_verify import parse, verify

MEMORY_MAX = 4 * 1024**3
"""Bytes of address space: a power tower must not take the pod's memory with it."""


def equal(gold: str, answer: str) -> bool:
    """Whether an answer holds the gold answer. A gold answer is bare LaTeX unless it has its own marks."""
    marked = "$" in gold or "\\boxed" in gold
    return bool(verify(parse(gold if marked else f"${gold}$"), parse(answer)))


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    for line in sys.stdin:
        gold, answer = json.loads(line)
        print(json.dumps(equal(gold, answer)), flush=True)


if __name__ == "__main__":
    main()
