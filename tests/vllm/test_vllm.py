"""The vllm backend: what all backends promise, and what only this one has."""

import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from evaljob.names import Reason
from evaljob_runner.backends.base import GenerateRequest, LogLikelihoodRequest, TokenPrompt
from evaljob_runner.errors import Fatal, Retry, Stop
from tests.backend_contract import QUESTIONS, BackendContract, generated, sampling
from tests.isolation import Seen, leaks
from tests.runner_plans import TINY, assignment, tiny_dataset, tiny_vllm

if TYPE_CHECKING:
    from evaljob_runner.backends.vllm import VLLMBackend

# vLLM and torch warn of each other's deprecations at import.
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
Load = Callable[..., "VLLMBackend"]


class TestVLLM(BackendContract):
    """With the tiny model."""


@contextmanager
def watched(backend: "VLLMBackend") -> Iterator[Seen]:
    """Every request with every parameter."""
    seen: Seen = []
    inner = backend.engine.add_request

    def adding(name: str, prompt: Any, params: Any) -> Any:  # noqa: ANN401 - the engine's own interface
        seen.append((tuple(prompt["prompt_token_ids"]), str(params)))
        return inner(name, prompt, params)

    backend.engine.add_request = adding
    try:
        yield seen
    finally:
        del backend.engine.add_request


def test_the_order_of_datasets_changes_neither_tokens_nor_answers(open_tiny: Load, tmp_path: Path) -> None:
    """One live engine, prefix cache and all, against engines that served nothing else."""
    assert leaks(open_tiny, watched, tmp_path) == set()


def test_choices_of_one_token_share_one_request_and_read_the_prefix_cache(tiny: "VLLMBackend") -> None:
    encode = tiny.tokenizer.encode
    context = encode("Question: " * 100 + "\nAnswer:", special=True)
    letters = [encode(f" {letter}", special=False) for letter in "ABCD"]
    cached = []
    for _ in range(2):
        with watched(tiny) as seen, finished(tiny) as outputs:
            list(tiny.weigh([LogLikelihoodRequest("x", tuple((context, letter) for letter in letters))]))
        assert len(seen) == 1
        cached += [output.num_cached_tokens for output in outputs]
    assert cached[1] > 0


def test_more_choices_than_a_request_may_name_are_all_weighed(tiny: "VLLMBackend") -> None:
    context = tiny.tokenizer.encode("Answer:", special=True)
    many = LogLikelihoodRequest("x", tuple((context, (token,)) for token in range(700)))
    (found,) = tiny.weigh([many])
    assert sum(math.exp(w.total) for w in found.weights) == pytest.approx(1, abs=0.05)
    assert sum(w.greedy for w in found.weights) <= 1
    one = LogLikelihoodRequest("x", ((context, (500,)),))
    assert next(tiny.weigh([one])).weights[0].total == pytest.approx(found.weights[500].total, abs=1e-4)


@contextmanager
def finished(backend: "VLLMBackend") -> Iterator[list[Any]]:
    """Everything that the engine gave back."""
    outputs: list[Any] = []
    inner = backend.engine.step

    def stepping() -> Any:  # noqa: ANN401 - the engine's own interface
        found = inner()
        outputs.extend(found)
        return found

    backend.engine.step = stepping
    try:
        yield outputs
    finally:
        del backend.engine.step


def requests(backend: "VLLMBackend", count: int) -> Iterator[GenerateRequest]:
    for i in range(count):
        prompt = backend.tokenizer.encode(f"Question: {QUESTIONS[i % 24]} {i}", special=True)
        yield GenerateRequest(str(i), TokenPrompt(prompt), sampling(max_tokens=1 + i % 3), seed=i)


def test_requests_are_pulled_as_there_is_room_and_answers_leave_as_they_finish(tiny: "VLLMBackend") -> None:
    """So a million samples need no memory, and a kill loses what was in flight only."""
    from evaljob_runner.backends.vllm import IN_FLIGHT

    pulled = itertools.count()
    answered, most = 0, 0
    for _ in tiny.generate(r for r in requests(tiny, 1500) if next(pulled) >= 0):
        answered += 1
        most = max(most, int(repr(pulled)[6:-1]) - answered)
    assert answered == 1500
    assert IN_FLIGHT / 2 < most <= IN_FLIGHT


def test_a_consumer_that_stops_leaves_nothing_in_the_engine(tiny: "VLLMBackend") -> None:
    replies = tiny.generate(requests(tiny, 20))
    next(iter(replies))
    replies.close()  # type: ignore[attr-defined]
    assert not tiny.engine.has_unfinished_requests()
    assert len(generated(tiny, sampling())) == 24


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: unspecified launch failure"), TimeoutError("RPC")]
)
def test_an_engine_that_fails_is_tried_again(
    tiny: "VLLMBackend", monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(tiny.engine, "step", Mock(side_effect=error))
    with pytest.raises(Retry, match=str(error)) as caught:
        list(tiny.generate(requests(tiny, 3)))
    assert caught.value.reason is Reason.ENGINE_FAILED
    tiny.engine.abort_request([str(i) for i in range(3)])


def test_an_engine_that_hangs_is_left(open_tiny: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaljob_runner.backends import vllm

    monkeypatch.setattr(vllm, "STEP_SECONDS", 0.2)
    hung: list[Stop] = []
    backend = open_tiny(leave=hung.append)
    inner = backend.engine.step

    def slow() -> Any:  # noqa: ANN401 - the engine's own interface
        time.sleep(0.1 if hung else 1)
        return inner()

    monkeypatch.setattr(backend.engine, "step", slow)
    list(backend.generate(requests(backend, 3)))
    (end,) = hung
    assert isinstance(end, Retry)
    assert end.reason is Reason.ENGINE_FAILED


def test_a_window_that_the_memory_does_not_hold_is_never_tried_again(open_tiny: Load) -> None:
    for room in (2 * 1024**2, 1024):
        with pytest.raises(Fatal, match="use a smaller maxModelLen") as caught:
            open_tiny(cache_bytes=room)
        assert caught.value.reason is Reason.MODEL_DOES_NOT_FIT


def test_a_smaller_window_needs_less(open_tiny: Load) -> None:
    assert open_tiny(max_model_len=64).window == 64


def test_a_window_beyond_the_checkpoints_is_refused(open_tiny: Load) -> None:
    with pytest.raises(Fatal, match="max_model_len") as caught:
        open_tiny(max_model_len=10_000)
    assert caught.value.reason is Reason.BAD_CONFIGURATION


def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(open_tiny: Load) -> None:
    with pytest.raises(Fatal, match="this image holds vLLM's CPU build") as caught:
        open_tiny(gpu_expected=True)
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE


def test_nor_where_lm_eval_computes(tmp_path: Path) -> None:
    from evaljob_runner.opening import machine

    slices = {"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}
    work = assignment(tiny_vllm(runner=slices), tiny_dataset("kind"), tmp_path)
    with pytest.raises(Fatal, match="this image holds vLLM's CPU build"):
        machine(work, TINY / "model")


def test_the_share_of_the_gpus_memory_reaches_the_engine(open_tiny: Load) -> None:
    cache = open_tiny(gpu_memory_utilization=0.5).engine.vllm_config.cache_config
    assert cache.gpu_memory_utilization == 0.5


def ranks() -> list[int]:
    """The ids of this process's children that compute a part of a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, _, rest = path.read_text().rpartition(")")
            if int(rest.split()[1]) == os.getpid() and b"Worker" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
    return found


def test_two_ranks_answer_as_one_and_the_death_of_one_is_tried_again(
    open_tiny: Load, tiny: "VLLMBackend"
) -> None:
    backend = open_tiny(tensor_parallel_size=2)
    assert generated(backend, sampling()) == generated(tiny, sampling())
    assert backend.device == "2 x cpu"
    first, _ = ranks()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(Retry) as caught:
        list(backend.generate(requests(backend, 3)))
    assert caught.value.reason is Reason.ENGINE_FAILED
    backend.engine.engine_core.shutdown()
    assert ranks() == []
