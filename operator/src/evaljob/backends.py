"""How a model is asked and computed: exactly one of these backends for each model."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from evaljob.fields import REVISION_RULE, SecretKeyRef, Source
from evaljob.model import Frozen, cel_rules

BACKENDS = ("vllm", "transformers", "openai")
"""The fields of a model of which exactly one is given."""
ChatTemplateArgs = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)],
        Annotated[str, Field(max_length=1024)],
    ],
    Field(max_length=16),
]
"""Variables of a chat template."""


class PromptFormat(StrEnum):
    """Whether prompts go through the model's chat template.

    Required: many base checkpoints ship a chat template, and a guess would score them wrongly in silence.
    """

    CHAT = "Chat"
    TEXT = "Text"


class Reasoning(Frozen):
    """A model that thinks before it answers. Its thoughts are not scored, and a task's stop texts do not end them."""

    start: Annotated[str, Field(min_length=1, max_length=64)] = "<think>"
    end: Annotated[str, Field(min_length=1, max_length=64)] = "</think>"
    starts_open: bool = False
    """The prompt ends with `start`, so that the output begins with thoughts."""
    max_tokens: Annotated[int, Field(ge=1, le=1048576)]
    """For thoughts, beside `generation.maxTokens` for the answer. Thoughts without an end are no answer."""


class Dtype(StrEnum):
    """The precision of weights and arithmetic; never a checkpoint's own default."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Device(StrEnum):
    """Where a model computes. `Auto` with a GPU limit and no visible GPU is an error, never a silent CPU run."""

    AUTO = "Auto"
    CPU = "CPU"
    CUDA = "CUDA"


class Transformers(Frozen):
    """A local checkpoint computed by Hugging Face transformers inside the pod."""

    model_config = cel_rules(REVISION_RULE)

    source: Source
    """The checkpoint, for example `pvc://models/smollm2` or `hf://org/name@commit`."""
    dtype: Dtype
    device: Device = Device.AUTO
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Prompts per forward pass."""


class VLLM(Frozen):
    """A local checkpoint computed by vLLM inside the pod."""

    source: Source
    """Folder of the checkpoint, for example `pvc://models/qwen2-72b`."""
    dtype: Dtype
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs of the pod that share the model."""
    max_model_len: Annotated[int, Field(ge=2, le=16777216)] | None = None
    """Tokens that prompt and answer share; the checkpoint's own window by default. Less needs less memory."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory that vLLM may take. Changes no token and so no digest."""


def _has_host(url: str) -> str:
    """A server that can never be reached would be asked for many minutes."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"no address of a server: {error}") from error
    if not host:
        raise ValueError("no address of a server: no host")
    return url


class OpenAI(Frozen):
    """An endpoint that speaks OpenAI's completions and chat completions API.

    LogLikelihood needs promptFormat Text and a server that returns log-probabilities of a prompt, as vLLM's does.
    """

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048), AfterValidator(_has_host)
    ]
    """Base address with version, for example `https://llm.example.com/v1`."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """The name that the server serves."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 8
    """Requests in flight, per pod."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    api_key_secret_ref: SecretKeyRef | None = None
