"""Local checkpoints, computed by vLLM in this process with continuous batching.

The engine's step loop is driven here: requests are pulled while there is room, and answers leave as they finish.
It runs in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0): one start instead of three, and SIGTERM ends all of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from vllm import EngineArgs, RequestOutput, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS, RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.llm_engine import LLMEngine

from evaljob.backends import Dtype
from evaljob.names import Reason
from evaljob_runner.backends.base import (
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Reply,
    TokenIds,
    Weight,
    answer,
    token_ids,
)
from evaljob_runner.backends.checkpoint import all_ends, refuse_missing
from evaljob_runner.backends.tokenizer import HuggingFaceTokenizer
from evaljob_runner.backends.watchdog import Watchdog
from evaljob_runner.errors import Fatal, Retry, Stop

MAX_NUM_SEQS = 256
MAX_NUM_BATCHED_TOKENS = 8192
"""Also bounds the logits of prompt log-probabilities."""
IN_FLIGHT = 2 * MAX_NUM_SEQS
"""Requests inside the engine: always enough waiting to fill its batch, never a whole dataset."""
CPU_KV_CACHE_BYTES = 1024**3
"""vLLM would take a share of the node's memory, beyond a pod's limit. VLLM_CPU_KVCACHE_SPACE says otherwise."""
STEP_SECONDS = 600
"""A step takes milliseconds, the first ones compile kernels."""
_DOES_NOT_FIT = ("No available memory for the cache blocks", "larger than the available KV cache")
_OCCUPIED = "is less than desired"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    """How a checkpoint is computed."""

    dtype: Dtype
    tensor_parallel_size: int
    max_model_len: int | None
    gpu_memory_utilization: float
    gpu_expected: bool
    """The pod asked for a GPU, so none in sight is an error."""
    marks: tuple[str, ...] = ()
    """Texts that answers show even where they are special tokens."""


class VLLMBackend:
    """A checkpoint in an engine of vLLM.

    Args:
        folder: the checkpoint.
        options: how it is computed.
        leave: ends the process from another thread, when the engine hangs.

    Raises:
        Fatal: when it cannot be loaded or does not fit, or the device is missing.
        Retry: when something else holds the GPU's memory.
    """

    def __init__(self, folder: Path, options: Options, leave: Callable[[Stop], object]) -> None:
        refuse_missing_gpu(gpu_expected=options.gpu_expected)
        self.tokenizer = HuggingFaceTokenizer(folder, options.marks)
        _refuse_missing_weights(folder)
        self.engine = _engine(_arguments(folder, options))
        self._ends = _end_ids(folder, self.engine, self.tokenizer.eos_id)
        self._gpus = options.tensor_parallel_size
        self._watchdog = Watchdog(STEP_SECONDS, lambda: leave(_hung()))

    @property
    def window(self) -> int:
        """Tokens that prompt and answer share."""
        found: int = self.engine.model_config.max_model_len
        return found

    @property
    def rolling_window(self) -> int:
        """Tokens of a long text that are weighed at once; a token before them and an answer's have a place too."""
        return max(1, self.window - 2)

    @property
    def device(self) -> str:
        """`cpu`, or the GPUs' name."""
        name = device_name()
        return name if self._gpus == 1 else f"{self._gpus} x {name}"

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers as they finish."""

        @cache
        def ends(stops: tuple[str, ...]) -> frozenset[int]:
            return frozenset([*self._ends, *self.tokenizer.special_ids(stops)])

        asked = ((r, token_ids(r), _sampling(r, ends(r.sampling.stop))) for r in requests)
        for request, output in self._finished(asked):
            new = tuple(output.outputs[0].token_ids)
            yield answer(request, new, ends(request.sampling.stop), self.tokenizer.decode)

    def weigh(self, requests: Iterable[LogLikelihoodRequest]) -> Iterator[LogLikelihoods]:
        """Log-likelihoods; continuations that differ in their last token only share one request."""
        asked = (
            (part, part.tokens, _scoring(part)) for request in requests for part in _Question(request).parts()
        )
        for part, output in self._finished(asked):
            for continuation in part.continuations:
                part.question.found[part.tokens, continuation] = _weight(output, continuation)
            if done := part.question.answered():
                yield done

    def _finished(
        self, asked: Iterator[tuple[_T, TokenIds, SamplingParams]]
    ) -> Iterator[tuple[_T, RequestOutput]]:
        """Keep the engine full, give what is finished, in any order."""
        inside: dict[str, _T] = {}
        numbers = map(str, count())
        try:
            with self._watchdog.watching():
                while True:
                    for item, ids, params in islice(asked, IN_FLIGHT - len(inside)):
                        name = next(numbers)
                        self._add(name, ids, params)
                        inside[name] = item
                    if not inside:
                        return
                    for output in self._step():
                        if output.finished:
                            yield inside.pop(output.request_id), output
        except GeneratorExit:
            # Nobody wants the rest: another loop must find an empty engine.
            self.engine.abort_request(list(inside))
            raise

    def _add(self, name: str, ids: TokenIds, params: SamplingParams) -> None:
        try:
            self.engine.add_request(name, TokensPrompt(prompt_token_ids=list(ids)), params)
        except VLLMValidationError as error:
            raise Fatal(Reason.BAD_CONFIGURATION, f"vLLM refuses a request: {str(error)[:400]}") from error

    def _step(self) -> Sequence[RequestOutput]:
        try:
            with self._watchdog.guard():
                outputs: Sequence[RequestOutput] = self.engine.step()
                return outputs
        except (RuntimeError, TimeoutError, EngineDeadError) as error:
            _engine_failed(error)


def _sampling(request: GenerateRequest, ends: frozenset[int]) -> SamplingParams:
    """Every parameter, explicit; of the checkpoint's own settings only its end tokens act."""
    params = request.sampling
    return SamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k or 0,
        repetition_penalty=1.0 if params.repetition_penalty is None else params.repetition_penalty,
        seed=request.seed if params.temperature else None,
        stop=list(params.stop),
        stop_token_ids=sorted(ends),
        ignore_eos=True,  # it is among `ends`
        detokenize=bool(params.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


@dataclass
class _Question:
    """A request whose inputs are on their way."""

    request: LogLikelihoodRequest
    found: dict[tuple[TokenIds, TokenIds], Weight] = field(default_factory=dict)
    """By input (everything but the last token) and continuation."""

    def parts(self) -> "Iterator[_Part]":
        """One per input; more where an input has more continuations than vLLM takes."""
        wanted: dict[TokenIds, dict[TokenIds, None]] = {}
        for context, continuation in self.request.token_pairs:
            wanted.setdefault(context + continuation[:-1], {})[continuation] = None
        for tokens, continuations in wanted.items():
            iterator = iter(continuations)
            while some := tuple(islice(iterator, MAX_LOGPROB_TOKEN_IDS)):
                yield _Part(self, tokens, some)

    def answered(self) -> LogLikelihoods | None:
        """All weights, once they are there."""
        keys = [(context + t[:-1], t) for context, t in self.request.token_pairs]
        if not all(key in self.found for key in keys):
            return None
        return LogLikelihoods(self.request.key, tuple(self.found[key] for key in keys))


@dataclass(frozen=True)
class _Part:
    """One input, and the continuations whose last token follows it."""

    question: _Question
    tokens: TokenIds
    continuations: tuple[TokenIds, ...]


def _scoring(part: _Part) -> SamplingParams:
    """The last tokens are weighed as a first answer token, the tokens before them as part of the prompt.

    A request with prompt log-probabilities does not read the prefix cache; without them it does.
    """
    longer = any(len(continuation) > 1 for continuation in part.continuations)
    return SamplingParams(
        max_tokens=1,
        temperature=0,
        ignore_eos=True,
        detokenize=False,
        logprob_token_ids=[continuation[-1] for continuation in part.continuations],
        prompt_logprobs=0 if longer else None,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _weight(output: RequestOutput, continuation: TokenIds) -> Weight:
    *before, last = continuation
    first = output.outputs[0]
    steps = [first.logprobs[0][last].logprob]
    greedy = first.token_ids[0] == last
    for token, position in zip(before, range(-len(before), 0), strict=True):
        found = output.prompt_logprobs[len(output.prompt_logprobs) + position][token]
        steps.append(found.logprob)
        greedy = greedy and found.rank == 1
    total = sum(steps)
    if not total > float("-inf"):
        raise Fatal(Reason.INVALID_NUMBER, f"the model computes log-likelihoods that are not finite: {total}")
    return Weight(total, len(continuation), greedy)


def device_name() -> str:
    """`cpu`, or the GPU's name."""
    name: str = current_platform.get_device_name()
    return name


def limits() -> dict[str, Any]:
    """What an engine may take of this machine, beside the fields of the EvalJob."""
    on_cpu = current_platform.is_cpu()
    return {
        "kv_cache_memory_bytes": CPU_KV_CACHE_BYTES if on_cpu else None,
        "max_num_seqs": MAX_NUM_SEQS,
        "enforce_eager": on_cpu,  # there it compiles for longer than most partitions run
    }


def refuse_missing_gpu(*, gpu_expected: bool) -> None:
    """Never a silent CPU run where a GPU was asked for.

    Raises:
        Fatal: DeviceUnavailable.
    """
    if gpu_expected and current_platform.is_cpu():
        raise Fatal(
            Reason.DEVICE_UNAVAILABLE,
            "runner.resources asks for a GPU, but this image holds vLLM's CPU build: use another image",
        )
    if not current_platform.device_type:
        raise Fatal(
            Reason.DEVICE_UNAVAILABLE,
            "vLLM sees no GPU: ask for one in runner.resources.limits, or mend the node",
        )


def _refuse_missing_weights(folder: Path) -> None:
    """A linear layer without weights stays as vLLM found its memory: transformers knows what must be there.

    Models that only vLLM knows pass, and quantised ones, whose weights vLLM checks itself.
    """
    try:
        if getattr(AutoConfig.from_pretrained(folder, local_files_only=True), "quantization_config", None):
            return
        _, report = AutoModelForCausalLM.from_pretrained(
            folder, device_map="meta", local_files_only=True, output_loading_info=True
        )
    except SafetensorError as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"the model cannot be loaded: {error}") from error
    except (OSError, ValueError, KeyError, ImportError):
        return
    refuse_missing(report["missing_keys"])


def _arguments(folder: Path, options: Options) -> EngineArgs:
    """The engine's configuration: fixed but for the fields of the EvalJob."""
    return EngineArgs(
        model=str(folder),
        dtype=options.dtype.value,
        seed=0,
        max_model_len=options.max_model_len,
        tensor_parallel_size=options.tensor_parallel_size,
        distributed_executor_backend="mp" if options.tensor_parallel_size > 1 else "uni",
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        enable_prefix_caching=True,
        **limits(),
        generation_config="vllm",  # not the checkpoint's
        logprobs_mode="raw_logprobs",
        disable_log_stats=True,
    )


def _engine(arguments: EngineArgs) -> LLMEngine:
    try:
        return LLMEngine.from_engine_args(arguments)
    except torch.OutOfMemoryError as error:
        _does_not_fit(error)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, VLLMValidationError) as error:
        if any(words in str(error) for words in _DOES_NOT_FIT):
            _does_not_fit(error)
        if _OCCUPIED in str(error):
            raise Retry(
                Reason.DEVICE_UNAVAILABLE, f"something else holds memory of the device: {str(error)[:400]}"
            ) from error
        raise Fatal(Reason.BAD_CONFIGURATION, f"vLLM cannot load the model: {str(error)[:600]}") from error


def _does_not_fit(error: Exception) -> NoReturn:
    raise Fatal(
        Reason.MODEL_DOES_NOT_FIT,
        "model and KV cache do not fit: use a smaller maxModelLen, more GPUs (tensorParallelSize) or a larger "
        f"gpuMemoryUtilization: {str(error)[:400]}",
    ) from error


def _engine_failed(error: Exception) -> NoReturn:
    """The same weights give the same NaN again; everything else may be the node's fault."""
    if "NaNs detected in logits" in str(error):
        raise Fatal(Reason.INVALID_NUMBER, f"the model computes NaN logits: {str(error)[:300]}") from error
    raise Retry(
        Reason.ENGINE_FAILED, f"vLLM's engine failed: {type(error).__name__}: {error!s:.400}"
    ) from error


def _hung() -> Retry:
    return Retry(Reason.ENGINE_FAILED, f"vLLM's engine hangs: no step ended for {STEP_SECONDS} s")


def _end_ids(folder: Path, engine: LLMEngine, eos_id: int | None) -> list[int]:
    """Every token that the checkpoint calls an end: of its generation_config, its config and its tokenizer."""
    config: Any = engine.model_config.hf_config
    try:
        named = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except OSError:
        named = None
    return all_ends(named, getattr(config, "eos_token_id", None), eos_id)
