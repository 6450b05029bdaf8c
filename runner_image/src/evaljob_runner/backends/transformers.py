"""Local checkpoints, computed by Hugging Face transformers in static batches, sorted by length."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from evaljob.backends import Device, Dtype
from evaljob.names import Reason
from evaljob_runner.backends import decoding
from evaljob_runner.backends.base import (
    Answer,
    GenerateRequest,
    LogLikelihoodRequest,
    LogLikelihoods,
    Reply,
    Sampling,
    TokenIds,
    Weight,
    answer,
    token_ids,
)
from evaljob_runner.backends.checkpoint import all_ends, refuse_missing
from evaljob_runner.backends.tokenizer import HuggingFaceTokenizer
from evaljob_runner.errors import Fatal

_BATCHES_SORTED_TOGETHER = 32
ROLLING_WINDOW = 2048
"""Of a model that names no window, as in lm-eval."""
LOGITS_MAX = 2**28
"""Numbers in the logits of a batch: of a long text every position has as many as there are tokens."""
_T = TypeVar("_T")
Tensor = Any
"""The lint environment holds no torch."""


@dataclass(frozen=True)
class Options:
    """How a checkpoint is computed."""

    dtype: Dtype
    device: Device
    batch_size: int
    gpu_expected: bool
    """The pod asked for a GPU, so none in sight is an error."""
    threads: int | None
    """OpenMP threads; None leaves torch's default."""
    marks: tuple[str, ...] = ()
    """Texts that answers show even where they are special tokens."""


class TransformersBackend:
    """A checkpoint in memory.

    Args:
        folder: the checkpoint.
        options: how it is computed.

    Raises:
        Fatal: when it cannot be loaded, or the device is missing.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self._device = chosen_device(options.device, gpu_expected=options.gpu_expected)
        self._batch_size = options.batch_size
        self.tokenizer = HuggingFaceTokenizer(folder, options.marks)
        self.model = _load(folder, options.dtype, self._device)
        self._ends = _end_ids(self.model, self.tokenizer.eos_id)
        # Only EOS ids are taken from the checkpoint's generation_config: whatever else it says must not act.
        self.model.generation_config = GenerationConfig()
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.window = _window(self.model.config, self.tokenizer.window)

    @property
    def rolling_window(self) -> int:
        """Tokens of a long text that are weighed at once; the last one is only predicted."""
        return self.window or ROLLING_WINDOW

    @property
    def device(self) -> str:
        """`cpu`, or the GPU's name."""
        return device_name(self._device)

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Reply]:
        """Answers, batch by batch."""
        for chunk in _chunks(requests, self._batch_size * _BATCHES_SORTED_TOGETHER):
            for sampling in dict.fromkeys(r.sampling for r in chunk):
                same = [r for r in chunk if r.sampling == sampling]
                same.sort(key=lambda r: (-len(token_ids(r)), token_ids(r)))
                for batch in _chunks(same, self._batch_size):
                    yield from self._generate(batch, sampling)

    def _generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answers to a batch. Rows leave it once half of them have ended: they cost as much as those that go on."""
        ids, mask = _padded([token_ids(r) for r in requests], self._device, left=True)
        drawn = requests if sampling.temperature else ()
        generators = [torch.Generator(self._device).manual_seed(r.seed) for r in drawn]
        end_ids = frozenset([*self._ends, *self.tokenizer.special_ids(sampling.stop)])
        batch = decoding.Batch(requests, ids, mask, generators)
        while batch.requests:
            leave = len(batch.requests) // 2
            ends = decoding.Endings(self.tokenizer, end_ids, sampling.stop, batch.start, leave)
            out = self._extended(batch, sampling, ends)
            over = out.sequences.shape[1] - batch.start >= sampling.max_tokens
            for row, request in enumerate(batch.requests):
                if over or row in ends.ends:
                    new = tuple(out.sequences[row, batch.start :][: ends.ends.get(row)].tolist())
                    yield answer(request, new, end_ids, self.tokenizer.decode)
            going = [row for row in range(len(batch.requests)) if not over and row not in ends.ends]
            batch = batch.after(out.sequences, out.past_key_values, going)

    def _extended(self, batch: decoding.Batch, sampling: Sampling, ends: Tensor) -> Any:  # noqa: ANN401 - torch is not typed here
        """What `generate` makes of a batch until `ends` or the last token ends it."""
        guard = decoding.NumberGuard()
        steps = [guard, *decoding.sampler(sampling, batch.mask, batch.generators)]
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens - (batch.ids.shape[1] - batch.start),
            do_sample=False,  # sampling, if any, is the last of `steps`: one generator per row
            num_beams=1,
            use_cache=True,
            pad_token_id=0,  # masked before the prompt, cut off after the answer
            return_dict_in_generate=True,
        )
        out = _within_memory(
            lambda: self.model.generate(
                input_ids=batch.ids,
                attention_mask=batch.attention,
                past_key_values=batch.cache,
                generation_config=config,
                logits_processor=LogitsProcessorList(steps),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        )
        guard.check([r.key for r in batch.requests])
        return out

    def weigh(self, requests: Iterable[LogLikelihoodRequest]) -> Iterator[LogLikelihoods]:
        """Log-likelihoods; continuations that differ in their last token only share one forward pass."""
        for chunk in _chunks(requests, self._batch_size * _BATCHES_SORTED_TOGETHER):
            wanted: dict[TokenIds, set[TokenIds]] = {}
            for context, continuation in (pair for request in chunk for pair in request.token_pairs):
                wanted.setdefault(context + continuation[:-1], set()).add(continuation)
            found: dict[tuple[TokenIds, TokenIds], Weight] = {}
            for batch in self._batches(wanted):
                found |= self._weigh(batch, wanted)
            for request in chunk:
                weights = (found[c + t[:-1], t] for c, t in request.token_pairs)
                yield LogLikelihoods(request.key, tuple(weights))

    def _batches(self, wanted: dict[TokenIds, set[TokenIds]]) -> Iterator[list[TokenIds]]:
        """Inputs, the longest first, as many at once as the batch size and the size of their logits allow."""
        vocabulary = self.model.config.get_text_config().vocab_size
        for batch in _chunks(sorted(wanted, key=lambda i: (-len(i), i)), self._batch_size):
            row = len(_positions(batch, wanted)) * vocabulary
            yield from _chunks(batch, max(1, LOGITS_MAX // row))

    def _weigh(
        self, batch: list[TokenIds], wanted: dict[TokenIds, set[TokenIds]]
    ) -> dict[tuple[TokenIds, TokenIds], Weight]:
        """The weights of every continuation of these inputs; an input lacks the continuation's last token."""
        ids, mask = _padded(batch, self._device, left=False)
        longest = [_longest(wanted[tokens]) for tokens in batch]
        positions = _positions(batch, wanted)
        with torch.inference_mode():
            logits = self._logits(ids, mask, positions)
        at = {position: i for i, position in enumerate(positions)}
        found = {}
        for row, (tokens, n) in enumerate(zip(batch, longest, strict=True)):
            columns = [at[p] for p in range(len(tokens) - n, len(tokens))]
            logs = logits[row, columns].float().log_softmax(-1)
            for continuation in wanted[tokens]:
                found[tokens, continuation] = _weight(logs[-len(continuation) :], continuation)
        return found

    def _logits(self, ids: Tensor, mask: Tensor, positions: list[int]) -> Tensor:
        """Logits at some positions; all of them would be the largest tensor by far."""
        index = torch.tensor(positions, device=self._device)
        keep = {"logits_to_keep": index} if self._keeps else {}
        out = _within_memory(lambda: self.model(input_ids=ids, attention_mask=mask, use_cache=False, **keep))
        return out.logits if self._keeps else out.logits[:, index]


def _longest(continuations: Iterable[TokenIds]) -> int:
    return max(map(len, continuations))


def _positions(batch: Iterable[TokenIds], wanted: dict[TokenIds, set[TokenIds]]) -> list[int]:
    """Where some input of a batch predicts a token of a continuation."""
    return sorted({p for t in batch for p in range(len(t) - _longest(wanted[t]), len(t))})


def _weight(logs: Tensor, continuation: TokenIds) -> Weight:
    chosen = logs.gather(1, torch.tensor(continuation, device=logs.device)[:, None])
    total = float(chosen.double().sum())
    if not math.isfinite(total):
        raise Fatal(Reason.INVALID_NUMBER, f"the model computes log-likelihoods that are not finite: {total}")
    return Weight(total, len(continuation), logs.argmax(-1).tolist() == list(continuation))


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _padded(rows: Sequence[TokenIds], device: str, *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of equal length and the mask of what is real: left for generation, right for log-likelihoods."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        pad = [0] * (width - len(row))
        ids.append(pad + list(row) if left else list(row) + pad)
        mask.append(pad + [1] * len(row) if left else [1] * len(row) + pad)
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _within_memory(compute: Callable[[], _T]) -> _T:
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        raise Fatal(
            Reason.MODEL_DOES_NOT_FIT,
            f"the GPU's memory is full, use a smaller batchSize: {str(error)[:200]}",
        ) from error


def chosen_device(wanted: Device, *, gpu_expected: bool) -> str:
    """`cuda` or `cpu`; never a silent CPU run where a GPU was asked for."""
    visible = wanted is not Device.CPU and torch.cuda.is_available()
    if wanted is Device.CUDA and not visible:
        raise Fatal(
            Reason.DEVICE_UNAVAILABLE, "device CUDA, but torch sees no GPU: ask for one in runner.resources"
        )
    if wanted is Device.AUTO and gpu_expected and not visible:
        raise Fatal(
            Reason.DEVICE_UNAVAILABLE,
            "runner.resources asks for a GPU, but torch sees none: mend the node, or set device: CPU",
        )
    return "cuda" if visible else "cpu"


def device_name(device: str) -> str:
    """The GPU's name, or `cpu`."""
    name: str = torch.cuda.get_device_name(device) if device == "cuda" else "cpu"
    return name


def _load(folder: Path, dtype: Dtype, device: str) -> Any:  # noqa: ANN401 - torch is not typed here
    """The model in evaluation mode, every weight of it from the checkpoint."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype.value), local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"the model cannot be loaded: {str(error)[:400]}") from error
    refuse_missing(report["missing_keys"])
    return _within_memory(lambda: model.to(device).eval())


def _end_ids(model: Any, eos_id: int | None) -> list[int]:  # noqa: ANN401 - torch is not typed here
    """Every token that the checkpoint calls an end: of its generation_config, its config and its tokenizer."""
    return all_ends(model.generation_config.eos_token_id, getattr(model.config, "eos_token_id", None), eos_id)


def _window(config: Any, tokenizer_limit: int | None) -> int | None:  # noqa: ANN401 - as above
    """The longest sequence, from the fields that lm-eval reads."""
    text = config.get_text_config()
    names = ("n_positions", "max_position_embeddings", "n_ctx")
    found: int | None = next((v for n in names if (v := getattr(text, n, None))), tokenizer_limit)
    return found


def window_in(folder: Path) -> int | None:
    """The longest sequence of a checkpoint that is not loaded."""
    return _window(
        AutoConfig.from_pretrained(folder, local_files_only=True), HuggingFaceTokenizer(folder).window
    )
