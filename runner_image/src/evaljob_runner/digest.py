"""The inference digest: SHA-256 of everything that changes tokens, and of nothing else.

Shards of a cell must agree on it; a sample log's lines count only under the same one. Versions, image, GPU and
paths are provenance: recorded, not hashed.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from evaljob.names import Reason
from evaljob_runner import sources
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Sampling
from evaljob_runner.errors import Fatal

FULL_MAX = 2 * 1024**3
"""Weight files from this size on are sampled."""
WINDOWS, WINDOW_BYTES = 64, 64 * 1024
_WEIGHTS = frozenset({".safetensors", ".bin"})
_SMALL = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken"})
_NOT_PROMPT_SIDE = {"metrics", "groups", "extract", "cluster"}


def inference(work: Assignment, sampling: Sampling, model: "Checkpoint | None", data: str) -> str:
    """The digest of a partition, the same for all shards of its cell.

    Args:
        work: the partition.
        sampling: the resolved sampling parameters.
        model: what is in the model's folder; None for a server's model.
        data: digest of the source.
    """
    local, served = work.model.transformers, work.model.openai
    engine: dict[str, Any] = {}
    if local:
        engine = {"dtype": local.dtype, "batchSize": local.batch_size}
    if served:
        # A server may change behind its name, so its answers are never shared between EvalJobs.
        engine = {"url": served.url, "model": served.model, "uid": work.run.uid}
    parts = {
        "weights": model.digest if model else "",
        "data": data,
        "engine": engine,
        "promptFormat": work.model.prompt_format,
        "task": work.task.model_dump(mode="json", by_alias=True, exclude=_NOT_PROMPT_SIDE),
        "sampling": dataclasses.asdict(sampling),
        "seed": [work.run.seed, work.planned.task_name] if sampling.temperature else None,
        "date": work.run.date.isoformat() if model and model.dated and work.chat else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What identifies a model folder."""

    digest: str
    sampled: bool
    """Whether large files were read in part only."""
    dated: bool
    """Whether the chat template reads the clock."""

    def __str__(self) -> str:
        """As provenance records it."""
        return f"{'sampled' if self.sampled else 'sha256'}:{self.digest}"


def checkpoint(folder: Path, root: Path, name: str) -> Checkpoint:
    """Hash a model folder: names, sizes, small files and weights.

    Args:
        folder: the checkpoint.
        root: the mounted claim; links out of it are refused.
        name: of the model, for messages.

    Raises:
        Fatal: ModelNotFound, when it is no checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise Fatal(Reason.MODEL_NOT_FOUND, f"{name}: no config.json, so this is no model folder")
    total, sampled, dated = hashlib.sha256(), False, False
    for path in sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS | _SMALL):
        real = sources.inside(root, path, f"{name}/{path.name}")
        if not real.is_file():
            continue
        size = real.stat().st_size
        with real.open("rb") as file:
            large = size >= FULL_MAX
            part = _sampled(file, size) if large else hashlib.file_digest(file, "sha256").digest()
        total.update(f"{path.name}\0{size}\0".encode() + part)
        sampled = sampled or large
        dated = dated or (path.suffix in (".json", ".jinja") and b"strftime_now" in real.read_bytes())
    return Checkpoint(total.hexdigest(), sampled, dated)


def _sampled(file: BinaryIO, size: int) -> bytes:
    """The head with the safetensors header, and windows at fixed places over the whole file."""
    found = hashlib.sha256()
    header = int.from_bytes(file.read(8), "little")
    found.update(file.read(min(header, 128 * 1024**2)))
    for i in range(WINDOWS):
        file.seek((size - WINDOW_BYTES) * i // (WINDOWS - 1))
        found.update(file.read(WINDOW_BYTES))
    return found.digest()
