"""What a task's YAML names by `!function`: Python that only lm-eval runs."""

from typing import Any


def marked(documents: Any) -> Any:  # noqa: ANN401 - a datasets.Dataset
    """The documents with their question once more."""
    return documents.map(lambda row: {"marked": row["question"].strip()})
