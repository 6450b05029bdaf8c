"""What acts between two tokens of `generate`: number check, sampling, the ends of answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import pad
from transformers import (
    Cache,
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evaljob.names import Reason
from evaljob_runner.backends.base import GenerateRequest, Sampling, TokenIds
from evaljob_runner.errors import Fatal

Tensor = Any
"""The lint environment holds no torch."""
_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers of a cache that hold nothing else: of another, as of one with a state, rows are not taken out."""


class Reads(Protocol):
    """Token ids -> text."""

    def piece(self, token: int, /) -> str:
        """The text of a token that stands alone."""

    def decode(self, ids: TokenIds, /) -> str:
        """Text without special tokens."""


class NumberGuard(LogitsProcessor):  # type: ignore[misc]
    """Remembers which rows had a NaN or an infinity; argmax would turn it into token 0 in silence."""

    def __init__(self) -> None:
        self._bad: Tensor = None

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at the logits; leave them as they are."""
        # The maximum of a row is NaN with any NaN, and infinite only where no number is left.
        bad = ~scores.max(-1).values.isfinite()
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def check(self, keys: Sequence[str]) -> None:
        """Raise for the first bad row.

        Raises:
            Fatal: InvalidNumber. The same weights give the same NaN again.
        """
        bad = [key for key, flag in zip(keys, self._bad.tolist(), strict=True) if flag]
        if bad:
            raise Fatal(
                Reason.INVALID_NUMBER, f"the model computes NaN or infinite logits (sample {bad[0]!r})"
            )


class _Repetition(LogitsProcessor):  # type: ignore[misc]
    """transformers' repetition penalty without the padding, which would be penalised too."""

    def __init__(self, penalty: float, mask: Tensor) -> None:
        self._inner = RepetitionPenaltyLogitsProcessor(penalty)
        self._mask = mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalise what stands in prompt and answer."""
        width = self._mask.shape[1]
        ids = input_ids.clone()
        # The last token of a left-padded prompt is real: put it wherever padding stands.
        ids[:, :width] = ids[:, :width].where(self._mask.bool(), ids[:, width - 1 : width])
        return self._inner(ids, scores)


class _Gumbel(LogitsProcessor):  # type: ignore[misc]
    """Turns argmax into sampling (Gumbel-max), with one generator per row: no row depends on its batch."""

    def __init__(self, generators: Sequence[Tensor]) -> None:
        self._generators = generators

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to the scaled scores."""
        size = scores.shape[-1]
        rows = [torch.rand(size, generator=g, device=scores.device) for g in self._generators]
        return scores - torch.stack(rows).log().neg().log()


def sampler(sampling: Sampling, mask: Tensor, generators: Sequence[Tensor]) -> list[LogitsProcessor]:
    """The steps from logits to the scores whose maximum is the next token, in transformers' order.

    Args:
        sampling: the parameters.
        mask: which of the prompts' tokens are real.
        generators: one torch.Generator per row, where the temperature is not 0.
    """
    steps: list[LogitsProcessor] = []
    if sampling.repetition_penalty not in (None, 1):
        steps.append(_Repetition(float(sampling.repetition_penalty or 1), mask))
    if sampling.temperature == 0:
        return steps
    steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k is not None:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(float(sampling.top_p)))
    return [*steps, _Gumbel(generators)]


class Endings(StoppingCriteria):  # type: ignore[misc]
    """Where the answers of a batch end: at an end token, or once a stop text stands in them.

    A text is read only after a token that may end a stop text: reading all of them took a twentieth of the time.

    Args:
        tokenizer: reads answers.
        end_ids: tokens that end an answer.
        stops: texts that do.
        start: where answers begin.
        leave: how many rows may still be going when `generate` is left, so that the others can be dropped.
    """

    def __init__(
        self, tokenizer: Reads, end_ids: frozenset[int], stops: tuple[str, ...], start: int, leave: int
    ) -> None:
        self._tokenizer, self._end_ids, self._stops = tokenizer, end_ids, stops
        self._start, self._leave = start, leave
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + 8
        self._last = {stop[-1] for stop in stops}
        # A character of several bytes may come in several tokens; a decoder may drop a space that comes first.
        self._telling = all(character.isascii() and character != " " for character in self._last)
        self.ends: dict[int, int] = {}
        """Tokens of a row's answer up to its end; a row without is still going."""

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: object) -> Tensor:
        """Whether to leave, said of every row."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if row not in self.ends and (
                token in self._end_ids or (self._may_end(token) and self._stopped(input_ids[row]))
            ):
                self.ends[row] = input_ids.shape[1] - self._start
        rows = input_ids.shape[0]
        return torch.full((rows,), rows - len(self.ends) <= self._leave, device=input_ids.device)

    def _may_end(self, token: int) -> bool:
        """Whether a stop text may end with this token."""
        if not self._stops:
            return False
        return not self._telling or not self._last.isdisjoint(self._tokenizer.piece(token))

    def _stopped(self, row: Tensor) -> bool:
        new = row[self._start :].tolist()
        # A token has a byte at least, so the tail is enough; the whole text decides.
        return self._found(new[-self._tail :]) and self._found(new)

    def _found(self, ids: list[int]) -> bool:
        text = self._tokenizer.decode(tuple(ids))
        return any(stop in text for stop in self._stops)


@dataclass(frozen=True)
class Batch:
    """Rows that are still being answered."""

    requests: Sequence[GenerateRequest]
    ids: Tensor
    """Prompts, padded on their left, and what was generated so far: rows x tokens."""
    mask: Tensor
    """Which of the prompts' tokens are real: rows x the longest prompt."""
    generators: Sequence[Tensor]
    """One torch.Generator per row; none where nothing is drawn."""
    cache: Cache | None = None
    """Of all tokens but the last; None: it is computed anew."""

    @property
    def start(self) -> int:
        """Where answers begin."""
        width: int = self.mask.shape[1]
        return width

    @property
    def attention(self) -> Tensor:
        """Which tokens are real."""
        return pad(self.mask, (0, self.ids.shape[1] - self.start), value=1)

    def after(self, ids: Tensor, cache: Cache | None, rows: Sequence[int]) -> "Batch":
        """Some rows, as `generate` left them."""
        index = torch.tensor(rows, dtype=torch.long, device=ids.device)
        return Batch(
            [self.requests[row] for row in rows],
            ids[index],
            self.mask[index],
            [self.generators[row] for row in rows] if self.generators else (),
            _of_rows(cache, index) if rows else None,
        )


def _of_rows(cache: Cache | None, index: Tensor) -> Cache | None:
    """The cache of some rows; None where they cannot be taken out."""
    if cache is None or not all(type(layer) in _KEYS_AND_VALUES for layer in cache.layers):
        return None
    cache.batch_select_indices(index)
    return cache
