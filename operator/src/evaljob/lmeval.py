"""Tasks that lm-eval itself runs: what a dataset says instead of a task of ours."""

import re
from typing import Annotated

from pydantic import Field, StringConstraints

from evaljob.fields import MountedSource
from evaljob.model import Frozen

IMAGE = "lmEval"
"""The key of its image among those of an installation: it holds lm-eval beside the backends."""


class LmEval(Frozen):
    """A task or group of lm-eval as it is, run by lm-eval in one partition.

    Without the dataset's `source` its documents come from the hub, as the task says.
    """

    task: Annotated[str, StringConstraints(pattern=r"^[^\s,]+$", max_length=253)]
    """Its name there."""
    metric: Annotated[str, StringConstraints(pattern=r"^[^\s,]+(,[^\s,]+)?$", max_length=253)]
    """The one that stands in the summary: `acc_norm`, or with a filter's name `exact_match,strict-match`. A mean over
    samples: nothing else adds up."""
    num_fewshot: Annotated[int, Field(ge=0, le=64)] | None = None
    """Default: the task's own."""
    include_path: MountedSource | None = None
    """A folder, or a file in it, with tasks of your own in lm-eval's YAML."""


def slug(name: str) -> str:
    """One of lm-eval's names as ours are."""
    return re.sub(r"[^a-zA-Z0-9._-]+", "-", name).strip("-._")[:63] or "x"
