"""The inference digest: SHA-256 of everything that changes tokens, and of nothing else.

Shards of a cell must agree on it; a sample log's lines count only under the same one. Versions, image, GPU and
paths are provenance: recorded, not hashed.
"""

import dataclasses
import hashlib
import json
from typing import Any

from evaljob.task import SCORING_FIELDS, Sampler
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Sampling
from evaljob_runner.checkpoints import Checkpoint


def inference(work: Assignment, sampling: Sampling, model: Checkpoint | None, data: str) -> str:
    """The digest of a partition, the same for all shards of its cell.

    Args:
        work: the partition.
        sampling: the resolved sampling parameters.
        model: the model's checkpoint; None for a server's model.
        data: digest of the source.
    """
    local, served = work.model.transformers, work.model.openai
    engine: dict[str, Any] = {}
    if local:
        engine = {"dtype": local.dtype, "batchSize": local.batch_size}
    if served:
        # A server may change behind its name, so its answers are never shared between EvalJobs.
        engine = {"url": served.url, "model": served.model, "uid": work.run.uid}
    few_shot = work.task.few_shot
    random_shots = few_shot is not None and few_shot.sampler is Sampler.RANDOM
    parts = {
        "weights": model.digest if model else "",
        "data": data,
        "engine": engine,
        "promptFormat": work.model.prompt_format,
        "task": work.task.model_dump(mode="json", by_alias=True, exclude=SCORING_FIELDS),
        "sampling": dataclasses.asdict(sampling),
        "seed": [work.run.seed, work.planned.task_name] if sampling.temperature or random_shots else None,
        "date": work.run.date.isoformat() if model and model.dated and work.chat else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
