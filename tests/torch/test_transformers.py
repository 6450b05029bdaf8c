"""The transformers backend: what all backends promise, and what only this one has."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaljob.backends import Device, Dtype
from evaljob.names import Reason
from evaljob_runner import opening
from evaljob_runner.backends.base import LogLikelihoodRequest, Sampling
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal
from evaljob_runner.progress import Stopwatch
from evaljob_runner.samples import InferenceLine
from evaljob_runner.scoring import Scorer
from tests.backend_contract import QUESTIONS, BackendContract, changed, generated, run, sampling
from tests.runner_plans import DATE, TINY, assignment, planned, tiny_dataset, tiny_model, tiny_task

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend

pytestmark = pytest.mark.torch
Load = Callable[..., "TransformersBackend"]


class TestTransformers(BackendContract):
    """With the tiny model."""


def _rows_of_passes(backend: "TransformersBackend") -> list[int]:
    """The rows of each pass through the model from now on."""
    rows: list[int] = []
    inner = backend.model.forward

    def counted(**call: Any) -> Any:  # noqa: ANN401 - the model's own interface
        rows.append(len(call["input_ids"]))
        return inner(**call)

    backend.model.forward = counted
    return rows


def test_thoughts_end_at_a_mark_that_is_a_special_token(tmp_path: Path) -> None:
    """As of Magistral's [/THINK]: without it thoughts would be scored as the answer."""
    end = {"eos_token_id": 0}
    folder = changed(
        tmp_path, config=end, generation_config=end, tokenizer_config={"eos_token": "<|endoftext|>"}
    )
    thinks = {"start": "<|im_start|>", "end": "<|im_end|>", "maxTokens": 40}
    work = assignment(
        tiny_model(promptFormat="Chat", reasoning=thinks), tiny_dataset("chat", limit=2), tmp_path / "out"
    )
    checkpoint = Checkpoint("d", "sha256", dated=False, load=lambda: folder)
    found = run(work, opening.open_backend(work, checkpoint, Stopwatch(), leave=str))
    (log,) = tmp_path.rglob("*.jsonl")
    asked = [
        line["requests"][0] for line in map(json.loads, log.read_text().splitlines()) if "requests" in line
    ]
    assert found.outcomes.no_answer == 0
    assert all(r["reasoning"] and "<|im_end|>" not in r["reasoning"] for r in asked)


def test_choices_of_one_token_share_one_forward_pass(open_tiny: Load) -> None:
    backend = open_tiny()
    rows = _rows_of_passes(backend)
    context = backend.tokenizer.encode("Answer:", special=True)
    letters = [backend.tokenizer.encode(f" {letter}", special=False) for letter in "ABCD"]
    assert {len(letter) for letter in letters} == {1}
    list(backend.weigh([LogLikelihoodRequest("x", tuple((context, letter) for letter in letters))]))
    assert rows == [1]


def test_a_batch_of_long_texts_is_split_where_its_logits_would_be_too_large(
    open_tiny: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaljob_runner.backends import transformers as module

    backend = open_tiny()
    texts = [backend.tokenizer.encode(question, special=True) for question in QUESTIONS[:6]]
    requests = [LogLikelihoodRequest(str(i), ((ids[:1], ids[1:]),)) for i, ids in enumerate(texts)]
    whole = list(backend.weigh(requests))
    rows: list[int] = []
    logits = backend._logits  # noqa: SLF001 - right before the engine

    def counted(ids: Any, mask: Any, positions: list[int]) -> Any:  # noqa: ANN401 - as above
        rows.append(len(ids))
        return logits(ids, mask, positions)

    monkeypatch.setattr(backend, "_logits", counted)
    monkeypatch.setattr(module, "LOGITS_MAX", 2 * max(map(len, texts)) * backend.model.config.vocab_size)
    split = list(backend.weigh(requests))
    assert rows == [2, 2, 2]
    totals = [[reply.weights[0].total for reply in replies] for replies in (whole, split)]
    assert totals[0] == pytest.approx(totals[1], abs=1e-4)


@pytest.mark.parametrize(
    "params",
    [sampling(), sampling(temperature=1.0, top_k=20, top_p=0.9), sampling(repetition_penalty=1.3)],
    ids=["greedy", "sampled", "repetition"],
)
def test_answers_do_not_depend_on_the_batch(open_tiny: Load, params: Sampling) -> None:
    texts = {
        size: {k: a.text for k, a in generated(open_tiny(batch_size=size), params).items()}
        for size in (1, 5, 24)
    }
    assert texts[1] == texts[5] == texts[24]


@pytest.mark.parametrize("kept", [True, False], ids=["its cache is cut", "its cache is computed anew"])
@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, {"repetition_penalty": 1.3}])
def test_rows_leave_a_batch_once_half_of_them_have_ended(
    open_tiny: Load, monkeypatch: pytest.MonkeyPatch, params: dict[str, float], kept: bool
) -> None:
    from evaljob_runner.backends import decoding

    wanted = sampling(stop=("a", "\n"), **params)
    alone = {key: answer.text for key, answer in generated(open_tiny(batch_size=1), wanted).items()}
    if not kept:
        monkeypatch.setattr(decoding, "_KEYS_AND_VALUES", ())
    backend = open_tiny(batch_size=24)
    rows = _rows_of_passes(backend)
    answers = {key: answer.text for key, answer in generated(backend, wanted).items()}
    assert answers == alone
    assert rows[0] == 24
    assert len(set(rows)) > 2
    assert all(after == before or after <= before // 2 for before, after in pairwise(rows))


@pytest.mark.parametrize("stops", [("\n\n",), ("7", "a."), ("é",), (" ",), ("\n", "e ")])
def test_a_stop_text_is_found_at_the_token_that_ends_it(open_tiny: Load, stops: tuple[str, ...]) -> None:
    """Few texts are read while they grow; none ends earlier or later for that."""
    import torch

    from evaljob_runner.backends.decoding import Endings

    tokenizer = open_tiny().tokenizer
    decode = tokenizer.decode
    rows = torch.randint(0, 768, (40, 60), generator=torch.Generator().manual_seed(0))
    rows[:, ::7] = rows[:, 1::7] = torch.tensor(tokenizer.encode("\n", special=False)[-1:])
    watch = Endings(tokenizer, frozenset(), stops, start=2, leave=0)
    for width in range(3, 61):
        watch(rows[:, :width], None)
    found = {
        row: next(n for n in range(1, 59) if any(stop in decode(tuple(new[:n])) for stop in stops))
        for row, new in enumerate(rows[:, 2:].tolist())
        if any(stop in decode(tuple(new)) for stop in stops)
    }
    assert watch.ends == found
    assert found or stops == ("é",)


def test_functions_on_offer_go_through_the_template_and_the_calls_that_come_back_are_scored(
    open_tiny: Load, tmp_path: Path
) -> None:
    """With arguments, against the document's own call; once as the model writes it, once in Hermes' form."""
    plain = json.loads((TINY / "model" / "tokenizer_config.json").read_text())["chat_template"]
    offer = "{% if tools %}<|im_start|>system\n{{ tools|tojson }}<|im_end|>\n{% endif %}"
    backend = open_tiny(changed(tmp_path, tokenizer_config={"chat_template": offer + plain}))
    functions = [{"type": "function", "function": {"name": name}} for name in ("add", "subtract")]
    task = tiny_task(
        "chat",
        tools=f"{{{{ {functions} }}}}",
        target="{{ call }}",
        extract={"calls": [{"toolCalls": {}}]},
        metrics=[{"name": "tool_call", "extract": "calls", "primary": True}],
    )
    dataset = planned(task, name="chat", source="pvc://data/chat.jsonl", limit=6)
    work = assignment(tiny_model(promptFormat="Chat"), dataset, tmp_path / "run" / "out")
    (tmp_path / "run").mkdir()
    found = run(work, backend)
    assert {(s.stats[0].total, s.stats[0].n) for s in found.subsets} == {(6, 6)}
    (log,) = (tmp_path / "run").rglob("*.jsonl")
    line = InferenceLine.model_validate_json(log.read_text().splitlines()[0])
    assert '"name": "subtract"' in (line.requests[0].prompt or "").split("<|im_end|>")[0]
    tagged = line.requests[0].model_copy(
        update={"output": f"<tool_call>\n{line.requests[0].output}\n</tool_call>"}
    )
    scores = Scorer(task).scores(line.model_copy(update={"requests": [tagged]})).scores
    assert scores["tool_call,calls"].value == 1


def test_a_chat_model_without_a_template_is_refused(open_tiny: Load, tmp_path: Path) -> None:
    backend = open_tiny(changed(tmp_path, tokenizer_config={"chat_template": None}))
    with pytest.raises(Fatal, match="promptFormat Chat needs a chat template"):
        backend.tokenizer.render(({"role": "user", "content": "x"},), DATE)


def test_the_clock_of_a_chat_template_stands_still(open_tiny: Load, tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %B %Y') }}|{% for m in messages %}{{ m.content }}{% endfor %}"
    backend = open_tiny(changed(tmp_path, tokenizer_config={"chat_template": template}))
    text = backend.tokenizer.render(({"role": "user", "content": "x"},), DATE)
    assert text == "31 January 2026|x"


@pytest.mark.parametrize(("device", "expected"), [(Device.AUTO, True), (Device.CUDA, False)])
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(device: Device, expected: bool) -> None:
    import torch

    from evaljob_runner.backends.transformers import Options, TransformersBackend

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    options = Options(Dtype.FLOAT32, device, batch_size=1, gpu_expected=expected, threads=1)
    with pytest.raises(Fatal) as caught:
        TransformersBackend(TINY / "model", options)
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE


def test_a_slice_of_a_gpu_that_is_not_there_is_not_replaced_either(tmp_path: Path) -> None:
    import torch

    from evaljob_runner.opening import machine

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    slices = {"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}
    work = assignment(
        tiny_model(transformers={"device": "Auto"}, runner=slices), tiny_dataset("kind"), tmp_path
    )
    with pytest.raises(Fatal, match="torch sees none"):
        machine(work, TINY / "model")


def test_a_gpu_that_is_full_says_what_to_change(open_tiny: Load) -> None:
    import torch

    backend = open_tiny()

    def full(**_: Any) -> None:  # noqa: ANN401 - the engine's own interface
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    backend.model.generate = full
    with pytest.raises(Fatal, match="use a smaller batchSize: CUDA out of memory") as caught:
        generated(backend, sampling())
    assert caught.value.reason is Reason.MODEL_DOES_NOT_FIT
