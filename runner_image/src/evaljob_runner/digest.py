"""The inference digest: SHA-256 of everything that changes tokens, and of nothing else.

Shards of a cell must agree on it; a sample log's lines count only under the same one. Versions, image, GPU and
paths are provenance: recorded, not hashed.
"""

import dataclasses
import hashlib
import json
from typing import Any

from evaljob.backends import VLLM, OpenAI, Transformers
from evaljob.spec import Model
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
    few_shot = work.task.few_shot
    random_shots = few_shot is not None and few_shot.sampler is Sampler.RANDOM
    parts = {
        "weights": model.digest if model else "",
        "data": data,
        "engine": engine(work),
        "promptFormat": work.model.prompt_format,
        "task": work.task.model_dump(mode="json", by_alias=True, exclude=SCORING_FIELDS),
        "reasoning": work.model.reasoning.model_dump(mode="json") if work.model.reasoning else None,
        "templateArgs": work.template_args if work.chat else None,
        "sampling": dataclasses.asdict(sampling),
        "seed": [work.run.seed, work.planned.task_name] if sampling.temperature or random_shots else None,
        "date": work.run.date.isoformat() if model and model.dated and work.chat else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def engine(work: Assignment) -> dict[str, Any]:
    """What of a backend's settings can change a token."""
    match work.model:
        case Model(vllm=VLLM() as own):
            shape = {"tensorParallelSize": own.tensor_parallel_size, "maxModelLen": own.max_model_len}
            return {"backend": "vllm", "dtype": own.dtype, **shape}
        case Model(transformers=Transformers() as own):
            return {"dtype": own.dtype, "batchSize": own.batch_size}
        case Model(openai=OpenAI() as served):
            # A server may change behind its name, so its answers are never shared between EvalJobs.
            return {"url": served.url, "model": served.model, "uid": work.run.uid}
    raise ValueError(f"model {work.model.name} has no backend")
