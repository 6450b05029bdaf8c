"""The transformers backend against a loop without batches, caches or code of ours."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import pytest

from evaljob.names import Reason
from evaljob.result import PartitionResult
from evaljob.spec import Device, Dtype
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import (
    Answer,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    Sampling,
    TokenPrompt,
)
from evaljob_runner.errors import Fatal
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.report import Progress, Stopwatch
from tests.runner_plans import DATE, TINY, assignment, tiny_dataset, tiny_model

if TYPE_CHECKING:
    from evaljob_runner.backends.transformers import TransformersBackend

pytestmark = pytest.mark.torch
QUESTIONS = [json.loads(t)["question"] for t in (TINY / "data" / "gsm.jsonl").read_text().splitlines()[:24]]
Load = Callable[..., "TransformersBackend"]


def sampling(**changes: Any) -> Sampling:  # noqa: ANN401 - any parameter
    neutral: dict[str, Any] = {
        "max_tokens": 48,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": None,
        "repetition_penalty": None,
        "stop": (),
    }
    return Sampling(**(neutral | changes))


def generated(
    backend: "TransformersBackend", params: Sampling, texts: Iterable[str] = ()
) -> dict[str, Answer]:
    texts = list(texts) or [f"Question: {q}\nAnswer:" for q in QUESTIONS]
    requests = [
        GenerateRequest(str(i), TokenPrompt(backend.tokenizer.encode(t, special=True)), params, seed=i)
        for i, t in enumerate(texts)
    ]
    replies = {r.key: r for r in backend.generate(requests)}
    assert all(isinstance(r, Answer) for r in replies.values())
    return replies  # type: ignore[return-value]


def naive_greedy(backend: "TransformersBackend", text: str, max_tokens: int) -> str:
    """The whole sequence through the model again for every token."""
    import torch

    ids = list(backend.tokenizer.encode(text, special=True))
    start = len(ids)
    with torch.inference_mode():
        while len(ids) - start < max_tokens:
            token = int(backend.model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == backend.tokenizer.eos_id:
                break
            ids.append(token)
    return backend.tokenizer.decode(tuple(ids[start:]))


def test_greedy_answers_equal_those_of_a_naive_loop(tiny: "TransformersBackend") -> None:
    answers = generated(tiny, sampling())
    for i, question in enumerate(QUESTIONS):
        assert answers[str(i)].text == naive_greedy(tiny, f"Question: {question}\nAnswer:", 48)


def test_log_likelihoods_equal_those_of_a_naive_loop(tiny: "TransformersBackend") -> None:
    """Continuations of one and of more tokens, contexts of different length, all in shared batches."""
    import torch

    encode = tiny.tokenizer.encode
    contexts = [encode(q, special=True) for q in QUESTIONS]
    continuations = [encode(t, special=False) for t in (" A", " B", " 12 coins", " no")]
    assert {len(c) for c in continuations} > {1}
    requests = [
        LogLikelihoodRequest(str(i), tuple((c, t) for t in continuations)) for i, c in enumerate(contexts)
    ]
    found = {r.key: r.weights for r in tiny.weigh(requests)}
    with torch.inference_mode():
        for i, context in enumerate(contexts):
            for continuation, weight in zip(continuations, found[str(i)], strict=True):
                logs = tiny.model(torch.tensor([context + continuation])).logits[0].double().log_softmax(-1)
                steps = [logs[len(context) - 1 + n] for n in range(len(continuation))]
                expected = sum(float(step[token]) for step, token in zip(steps, continuation, strict=True))
                assert math.isclose(weight.total, expected, abs_tol=1e-4)
                assert weight.greedy == all(
                    int(step.argmax()) == token for step, token in zip(steps, continuation, strict=True)
                )


def test_choices_of_one_token_share_one_forward_pass(open_tiny: Load) -> None:
    backend = open_tiny()
    rows: list[int] = []
    inner = backend.model.forward

    def counted(**call: Any) -> Any:  # noqa: ANN401 - the model's own interface
        rows.append(len(call["input_ids"]))
        return inner(**call)

    backend.model.forward = counted
    context = backend.tokenizer.encode("Answer:", special=True)
    letters = [backend.tokenizer.encode(f" {letter}", special=False) for letter in "ABCD"]
    assert {len(letter) for letter in letters} == {1}
    list(backend.weigh([LogLikelihoodRequest("x", tuple((context, letter) for letter in letters))]))
    assert rows == [1]


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


def test_sampling_follows_the_seed_and_the_temperature(tiny: "TransformersBackend") -> None:
    """The same seed gives the same answer again; different samples of one prompt differ."""
    same = ["Question: Max finds"] * 8
    warm = sampling(temperature=1.5, max_tokens=16)
    first, again = generated(tiny, warm, same), generated(tiny, warm, same)
    assert first == again
    assert len({a.text for a in first.values()}) > 1
    assert {
        a.text for a in generated(tiny, sampling(temperature=1.5, top_k=1, max_tokens=16), same).values()
    } == {a.text for a in generated(tiny, sampling(max_tokens=16), same).values()}


def test_sampled_tokens_follow_the_models_distribution(tiny: "TransformersBackend") -> None:
    """400 first tokens against the softmax: within four standard errors for the likeliest token."""
    import torch

    prompt = "Question: Max finds"
    counts: dict[str, int] = {}
    answers = generated(tiny, sampling(temperature=1.0, max_tokens=1), [prompt] * 400)
    for answer in answers.values():
        counts[answer.text] = counts.get(answer.text, 0) + 1
    with torch.inference_mode():
        ids = torch.tensor([tiny.tokenizer.encode(prompt, special=True)])
        share, token = tiny.model(ids).logits[0, -1].softmax(-1).max(-1)
    p = float(share)
    seen = counts.get(tiny.tokenizer.decode((int(token),)), 0) / 400
    assert abs(seen - p) <= 4 * math.sqrt(p * (1 - p) / 400)


def test_stop_texts_end_an_answer_early_and_are_cut_off(tiny: "TransformersBackend") -> None:
    whole = generated(tiny, sampling())
    stopped = generated(tiny, sampling(stop=("\n", " = ")))
    for key, answer in stopped.items():
        text = whole[key].text
        assert answer.text == text[: min(text.find(s) for s in ("\n", " = ") if s in text)]
        assert answer.finish is Finish.STOP
        assert answer.output_tokens < whole[key].output_tokens


def test_a_stop_text_that_is_one_special_token_ends_an_answer(
    tiny: "TransformersBackend", open_tiny: Load
) -> None:
    """A base model of a chat family: the stop text is not its EOS, and is never in the decoded text."""
    backend = open_tiny()
    backend._ends = []  # noqa: SLF001 - a checkpoint that names no end
    prompt = [tiny.tokenizer.render(({"role": "user", "content": "Add 4 and 5."},), DATE)]
    endless = generated(backend, sampling(), prompt)["0"]
    ended = generated(backend, sampling(stop=("<|im_end|>",)), prompt)["0"]
    assert endless.finish is Finish.LENGTH
    assert ended.finish is Finish.STOP
    assert ended.text == generated(tiny, sampling(), prompt)["0"].text


def test_an_answer_that_reaches_max_tokens_says_so(tiny: "TransformersBackend") -> None:
    answers = generated(tiny, sampling(max_tokens=5))
    assert {(a.finish, a.output_tokens) for a in answers.values()} == {(Finish.LENGTH, 5)}


def changed(tmp_path: Path, **files: dict[str, Any]) -> Path:
    """The tiny model with other settings in its JSON files."""
    folder = tmp_path / "model"
    copytree(TINY / "model", folder)
    for name, settings in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_a_checkpoints_own_generation_settings_never_act(
    open_tiny: Load, tiny: "TransformersBackend", tmp_path: Path
) -> None:
    """Qwen2.5 ships repetition_penalty 1.05: only EOS ids may be taken from that file."""
    settings = {
        "repetition_penalty": 5.0,
        "temperature": 2.0,
        "do_sample": True,
        "top_k": 2,
        "min_new_tokens": 40,
    }
    backend = open_tiny(changed(tmp_path, generation_config=settings))
    assert generated(backend, sampling()) == generated(tiny, sampling())


def test_every_end_that_the_checkpoint_names_ends_an_answer(
    open_tiny: Load, tiny: "TransformersBackend", tmp_path: Path
) -> None:
    digit = tiny.tokenizer.encode(" =", special=False)[-1]
    backend = open_tiny(changed(tmp_path, generation_config={"eos_token_id": [2, digit]}))
    answers = generated(backend, sampling())
    assert all(" =" not in a.text and a.finish is Finish.STOP for a in answers.values())


def test_missing_weights_are_refused_and_not_made_up(open_tiny: Load, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Fatal, match=r"lacks 1 weights, for example model.layers.0.mlp.up_proj.weight"):
        open_tiny(folder)


def test_weights_that_are_cut_are_refused(open_tiny: Load, tmp_path: Path) -> None:
    folder = changed(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(Fatal, match="the model cannot be loaded") as caught:
        open_tiny(folder)
    assert caught.value.reason is Reason.BAD_CONFIGURATION


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


def test_a_gpu_that_is_full_says_what_to_change(open_tiny: Load) -> None:
    import torch

    backend = open_tiny()

    def full(**_: Any) -> None:  # noqa: ANN401 - the engine's own interface
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    backend.model.generate = full
    with pytest.raises(Fatal, match="use a smaller batchSize: CUDA out of memory") as caught:
        generated(backend, sampling())
    assert caught.value.reason is Reason.MODEL_DOES_NOT_FIT


def run(work: Assignment, backend: "TransformersBackend") -> PartitionResult:
    with (work.places.out.parent / "said").open("w") as said:
        return evaluate(work, Shell(lambda *_: backend, Progress(said), Stopwatch(), lambda _: None))


SCORES = json.loads((TINY / "scores.json").read_text())


@pytest.mark.parametrize("key", SCORES)
def test_scores_equal_the_reference_that_holds_none_of_our_code(
    tiny: "TransformersBackend", tmp_path: Path, key: str
) -> None:
    name, prompt_format = key.split("/")
    found = run(
        assignment(tiny_model(promptFormat=prompt_format), tiny_dataset(name), tmp_path / "out"), tiny
    )
    primary = next(i for i, m in enumerate(found.metrics) if m.primary)
    right = {s.name: [s.stats[primary].total, s.stats[primary].n] for s in found.subsets}
    assert right == SCORES[key]
    assert found.lint == ()
