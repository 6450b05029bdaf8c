"""A model of ours as lm-eval takes it: everything that decides a token is said, nothing left to a default there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evaljob.backends import VLLM, Dtype, OpenAI, Transformers
from evaljob.spec import Model
from evaljob.task import Generation
from evaljob_runner.assignment import Assignment

Arguments = Mapping[str, Any]


class Engine(NamedTuple):
    """One of lm-eval's models."""

    name: str
    arguments: Arguments


def engine(work: Assignment, folder: Path | None, found: Arguments) -> Engine:
    """The lm-eval model that computes as our backend of that name does.

    Args:
        work: whose model.
        folder: its checkpoint; None behind a server.
        found: what only the machine or the checkpoint tells (`device`, `max_length`).
    """
    seed = work.run.seed
    match work.model:
        case Model(transformers=Transformers() as own):
            hf = {"batch_size": own.batch_size, **_local(work, folder, own.dtype), **found}
            return Engine("hf", hf)
        case Model(vllm=VLLM() as own):
            vllm = {
                "tensor_parallel_size": own.tensor_parallel_size,
                "gpu_memory_utilization": own.gpu_memory_utilization,
                "max_model_len": own.max_model_len,
                "seed": seed,
                "batch_size": "auto",
                "generation_config": "vllm",
                **_local(work, folder, own.dtype),
                **found,
            }
            return Engine("vllm", vllm)
        case Model(openai=OpenAI() as served):
            kind, path = (
                ("local-chat-completions", "chat/completions")
                if work.chat
                else ("local-completions", "completions")
            )
            return Engine(kind, {**_served(served, path), "seed": seed})
    raise ValueError(f"model {work.model.name} has no backend")


def _served(served: OpenAI, path: str) -> Arguments:
    return {
        "model": served.model,
        "base_url": f"{served.url.rstrip('/')}/{path}",
        "num_concurrent": served.max_concurrency,
        "timeout": served.request_timeout_seconds,
        "max_retries": 3,
        "batch_size": 1,
        "tokenizer_backend": None,
        "tokenized_requests": False,
    }


def _local(work: Assignment, folder: Path | None, dtype: Dtype) -> Arguments:
    """A checkpoint, and the chat template's variables with its clock stopped at the day the EvalJob was created."""
    known = {"pretrained": str(folder), "dtype": dtype.value, "trust_remote_code": False}
    if not work.chat:
        return known
    return {**known, "chat_template_args": {**work.template_args, "strftime_now": work.run.date.strftime}}


def generation(given: Generation) -> Arguments | None:
    """What a model's own sampling parameters replace in every task; None for nothing."""
    named = {
        "temperature": given.temperature,
        "top_p": given.top_p,
        "top_k": given.top_k,
        "repetition_penalty": given.repetition_penalty,
        "max_gen_toks": given.max_tokens,
    }
    found = {name: value for name, value in named.items() if value is not None}
    if given.temperature is not None:
        found["do_sample"] = given.temperature > 0
    return found or None
