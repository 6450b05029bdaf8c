"""What acts between two tokens of `generate`: number check, sampling, stop texts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from evaljob.names import Reason
from evaljob_runner.backends.base import Sampling, TokenIds
from evaljob_runner.errors import Fatal

Tensor = Any
"""The lint environment holds no torch."""


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

    def __init__(self, seeds: Sequence[int], device: Any) -> None:  # noqa: ANN401 - torch.device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to the scaled scores."""
        size = scores.shape[-1]
        rows = [torch.rand(size, generator=g, device=scores.device) for g in self._generators]
        return scores - torch.stack(rows).log().neg().log()


def sampler(sampling: Sampling, mask: Tensor, seeds: Sequence[int]) -> list[LogitsProcessor]:
    """The steps from logits to the scores whose maximum is the next token, in transformers' order."""
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
    return [*steps, _Gumbel(seeds, mask.device)]


class StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends a row once a stop text stands in its answer, so that a one-line answer does not run to its last token.

    A text is read only after a token that may end a stop text: reading all of them took a twentieth of the time.

    Args:
        decode: token ids -> text.
        piece: one token -> text.
        stops: the stop texts.
        start: where answers begin.
    """

    def __init__(
        self,
        decode: Callable[[TokenIds], str],
        piece: Callable[[int], str],
        stops: tuple[str, ...],
        start: int,
    ) -> None:
        self._decode, self._piece, self._stops, self._start = decode, piece, stops, start
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + 8
        self._last = {stop[-1] for stop in stops}
        # A character of several bytes may come in several tokens; a decoder may drop a space that comes first.
        self._telling = all(character.isascii() and character != " " for character in self._last)
        self.ends: dict[int, int] = {}
        """Tokens of a row's answer up to its stop."""

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: object) -> Tensor:
        """Which rows are done."""
        if self._stops:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                if row not in self.ends and self._may_end(token):
                    new = input_ids[row, self._start :].tolist()
                    # A token has a byte at least, so the tail is enough; the whole text decides.
                    if self._found(new[-self._tail :]) and self._found(new):
                        self.ends[row] = len(new)
        done = [row in self.ends for row in range(input_ids.shape[0])]
        return torch.tensor(done, device=input_ids.device)

    def _may_end(self, token: int) -> bool:
        return not self._telling or not self._last.isdisjoint(self._piece(token))

    def _found(self, ids: list[int]) -> bool:
        text = self._decode(tuple(ids))
        return any(stop in text for stop in self._stops)
