"""What every local backend promises, tested against a loop without batches, caches or code of ours.

A test folder of a backend subclasses `BackendContract` and brings two fixtures: `tiny`, the tiny model in that
backend, and `open_tiny(folder, **options)`, which loads a changed copy of it.
"""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from evaljob.names import Reason
from evaljob.result import PartitionResult
from evaljob.task import Turns
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import (
    Answer,
    Backend,
    Finish,
    GenerateRequest,
    LogLikelihoodRequest,
    Sampling,
    TokenPrompt,
)
from evaljob_runner.errors import Fatal
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from evaljob_runner.tokens import Encoded, windowed
from tests.runner_plans import DATE, TINY, assignment, planned, tiny_dataset, tiny_model, tiny_task

QUESTIONS = [json.loads(t)["question"] for t in (TINY / "data" / "gsm.jsonl").read_text().splitlines()[:24]]
SCORES = json.loads((TINY / "scores.json").read_text())
Load = Callable[..., Any]
LocalBackend = Any
"""A `Backend` with a tokenizer; its class is known only where its engine is installed."""


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


def generated(backend: LocalBackend, params: Sampling, texts: Iterable[str] = ()) -> dict[str, Answer]:
    texts = list(texts) or [f"Question: {q}\nAnswer:" for q in QUESTIONS]
    requests = [
        GenerateRequest(str(i), TokenPrompt(backend.tokenizer.encode(t, special=True)), params, seed=i)
        for i, t in enumerate(texts)
    ]
    replies = {r.key: r for r in backend.generate(requests)}
    assert all(isinstance(r, Answer) for r in replies.values())
    return replies


def changed(tmp_path: Path, **files: dict[str, Any]) -> Path:
    """The tiny model with other settings in its JSON files."""
    folder = tmp_path / "model"
    copytree(TINY / "model", folder)
    for name, settings in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def run(work: Assignment, backend: Backend) -> PartitionResult:
    """A partition on a live backend."""
    with (work.places.out.parent / "said").open("w") as said:
        return evaluate(work, Shell(lambda *_: backend, Progress(said), Stopwatch(), lambda _: None))


class NaiveModel:
    """The tiny model in float32, the whole sequence through it again for every token."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
        self._model = AutoModelForCausalLM.from_pretrained(TINY / "model", dtype="float32").eval()

    def logs(self, ids: list[int]) -> Any:  # noqa: ANN401 - a tensor, and torch is not typed here
        """Log-probabilities at every position, in double precision."""
        import torch

        with torch.inference_mode():
            return self._model(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def greedy(self, text: str, max_tokens: int) -> str:
        """The likeliest token, again and again."""
        ids = self.encode(text)
        start = len(ids)
        while len(ids) - start < max_tokens:
            token = int(self.logs(ids)[-1].argmax())
            if token == self._tokenizer.eos_token_id:
                break
            ids.append(token)
        return self.decode(ids[start:])


class BackendContract:
    """The promises."""

    def test_greedy_answers_equal_those_of_a_naive_loop(self, tiny: LocalBackend, naive: NaiveModel) -> None:
        answers = generated(tiny, sampling())
        for i, question in enumerate(QUESTIONS[:8]):
            assert answers[str(i)].text == naive.greedy(f"Question: {question}\nAnswer:", 48)

    def test_log_likelihoods_equal_those_of_a_naive_loop(self, tiny: LocalBackend, naive: NaiveModel) -> None:
        """Continuations of one and of more tokens, contexts of different length, all in shared batches."""
        encode = tiny.tokenizer.encode
        contexts = [encode(q, special=True) for q in QUESTIONS]
        continuations = [encode(t, special=False) for t in (" A", " B", " 12 coins", " no")]
        assert {len(c) for c in continuations} > {1}
        requests = [
            LogLikelihoodRequest(str(i), tuple((c, t) for t in continuations)) for i, c in enumerate(contexts)
        ]
        found = {r.key: r.weights for r in tiny.weigh(requests)}
        for i, context in enumerate(contexts):
            for continuation, weight in zip(continuations, found[str(i)], strict=True):
                steps = naive.logs([*context, *continuation])[len(context) - 1 : -1]
                expected = sum(float(step[token]) for step, token in zip(steps, continuation, strict=True))
                assert math.isclose(weight.total, expected, abs_tol=1e-4)
                assert weight.tokens == len(continuation)
                assert weight.greedy == (steps.argmax(-1).tolist() == list(continuation))

    def test_a_text_longer_than_the_window_is_weighed_in_parts(
        self, open_tiny: Load, naive: NaiveModel, tmp_path: Path
    ) -> None:
        """Each token once, with what its window holds before it, by a loop over every position."""
        tiny = open_tiny(changed(tmp_path, config={"max_position_embeddings": 40}))
        text = Encoded(" ".join(QUESTIONS[:4]), tiny.tokenizer.encode(" ".join(QUESTIONS[:4]), special=True))
        windows = windowed(text, tiny.tokenizer.prefix_id, tiny.rolling_window, "").pairs
        assert len(windows) > 2
        assert sum((continuation for _, continuation in windows), ()) == text.ids
        (found,) = tiny.weigh([LogLikelihoodRequest("x", windows)])
        for (context, continuation), weight in zip(windows, found.weights, strict=True):
            steps = naive.logs([*context, *continuation])[len(context) - 1 : -1]
            expected = sum(float(step[token]) for step, token in zip(steps, continuation, strict=True))
            assert math.isclose(weight.total, expected, abs_tol=1e-4)

    @pytest.mark.parametrize(
        "params",
        [sampling(), sampling(temperature=1.0, top_k=20, top_p=0.9), sampling(repetition_penalty=1.3)],
        ids=["greedy", "sampled", "repetition"],
    )
    def test_an_answer_does_not_depend_on_what_else_is_asked(
        self, tiny: LocalBackend, params: Sampling
    ) -> None:
        together = generated(tiny, params)
        for key in ("0", "7", "23"):
            prompt = tiny.tokenizer.encode(f"Question: {QUESTIONS[int(key)]}\nAnswer:", special=True)
            (alone,) = tiny.generate([GenerateRequest(key, TokenPrompt(prompt), params, seed=int(key))])
            assert alone == together[key]

    def test_sampling_follows_the_seed_and_the_temperature(self, tiny: LocalBackend) -> None:
        """The same seed gives the same answer again; different samples of one prompt differ."""
        same = ["Question: Max finds"] * 8
        warm = sampling(temperature=1.5, max_tokens=16)
        first, again = generated(tiny, warm, same), generated(tiny, warm, same)
        assert first == again
        assert len({a.text for a in first.values()}) > 1
        narrow = generated(tiny, sampling(temperature=1.5, top_k=1, max_tokens=16), same)
        greedy = generated(tiny, sampling(max_tokens=16), same)
        assert {a.text for a in narrow.values()} == {a.text for a in greedy.values()}

    def test_sampled_tokens_follow_the_models_distribution(
        self, tiny: LocalBackend, naive: NaiveModel
    ) -> None:
        """400 first tokens against the softmax: within four standard errors for the likeliest token."""
        prompt = "Question: Max finds"
        answers = generated(tiny, sampling(temperature=1.0, max_tokens=1), [prompt] * 400)
        share, token = naive.logs(naive.encode(prompt))[-1].exp().max(-1)
        p = float(share)
        seen = sum(a.text == naive.decode([int(token)]) for a in answers.values()) / 400
        assert abs(seen - p) <= 4 * math.sqrt(p * (1 - p) / 400)

    def test_stop_texts_end_an_answer_early_and_are_cut_off(self, tiny: LocalBackend) -> None:
        whole = generated(tiny, sampling())
        stopped = generated(tiny, sampling(stop=("\n", " = ")))
        for key, answer in stopped.items():
            text = whole[key].text
            assert answer.text == text[: min(text.find(s) for s in ("\n", " = ") if s in text)]
            assert answer.finish is Finish.STOP
            assert answer.output_tokens < whole[key].output_tokens

    def test_a_stop_text_that_is_one_special_token_ends_an_answer(
        self, tiny: LocalBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A base model of a chat family: the stop text is not its EOS, and is never in the decoded text."""
        prompt = [tiny.tokenizer.render(({"role": "user", "content": "Add 4 and 5."},), DATE)]
        expected = generated(tiny, sampling(), prompt)["0"].text
        monkeypatch.setattr(tiny, "_ends", [])  # a checkpoint that names no end
        endless = generated(tiny, sampling(), prompt)["0"]
        ended = generated(tiny, sampling(stop=("<|im_end|>",)), prompt)["0"]
        assert endless.finish is Finish.LENGTH
        assert (ended.finish, ended.text) == (Finish.STOP, expected)

    def test_a_mark_that_is_a_special_token_shows_in_an_answer(
        self, open_tiny: Load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or thoughts would have no end; what else is special stays out."""
        marking = open_tiny(marks=("a = 1", "<|im_end|>\n"))
        prompt = [marking.tokenizer.render(({"role": "user", "content": "Add 4 and 5."},), DATE)]
        expected = generated(marking, sampling(), prompt)["0"].text
        monkeypatch.setattr(marking, "_ends", [])  # a checkpoint that names no end
        assert generated(marking, sampling(), prompt)["0"].text.startswith(f"{expected}<|im_end|>")
        ids = marking.tokenizer.encode("a<|im_start|>é<|im_end|>\nb<|endoftext|>", special=False)
        assert marking.tokenizer.decode(ids) == "aé<|im_end|>\nb"

    def test_every_special_token_ends_an_answer_where_it_is_a_stop_text(self, tiny: LocalBackend) -> None:
        """Such as `<|im_start|>`, which transformers does not name among `all_special_ids`."""
        stops = ("<|im_start|>", "<|im_end|>", "\n", " ", "a <|im_end|>")
        found = tiny.tokenizer.special_ids(stops)
        assert [tiny.tokenizer.encode(stop, special=False) for stop in stops[:2]] == [(i,) for i in found]

    def test_an_answer_that_reaches_max_tokens_says_so(self, tiny: LocalBackend) -> None:
        answers = generated(tiny, sampling(max_tokens=5))
        assert {(a.finish, a.output_tokens) for a in answers.values()} == {(Finish.LENGTH, 5)}

    def test_only_the_ends_of_a_checkpoints_own_settings_act(
        self, open_tiny: Load, tiny: LocalBackend, tmp_path: Path
    ) -> None:
        """Qwen2.5 ships repetition_penalty 1.05; and every end that the file names ends an answer."""
        equals = tiny.tokenizer.encode(" =", special=False)[-1]
        settings: dict[str, Any] = {"repetition_penalty": 5.0, "temperature": 2.0, "do_sample": True}
        settings |= {"top_k": 2, "min_new_tokens": 40, "eos_token_id": [2, equals]}
        backend = open_tiny(changed(tmp_path, generation_config=settings))
        found, whole = generated(backend, sampling()), generated(tiny, sampling())
        assert {k: a.text for k, a in found.items()} == {k: a.text.split(" =")[0] for k, a in whole.items()}
        assert {a.finish for a in found.values()} == {Finish.STOP}

    def test_missing_weights_are_refused_and_not_made_up(self, open_tiny: Load, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        folder = changed(tmp_path)
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.0.mlp.down_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(Fatal, match=r"model.layers.0.mlp.down_proj.weight") as caught:
            open_tiny(folder)
        assert caught.value.reason is Reason.BAD_CONFIGURATION

    def test_weights_that_are_cut_are_refused(self, open_tiny: Load, tmp_path: Path) -> None:
        folder = changed(tmp_path)
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(Fatal, match="model") as caught:
            open_tiny(folder)
        assert caught.value.reason is Reason.BAD_CONFIGURATION

    def test_numbers_that_are_none_end_the_partition(self, open_tiny: Load, tmp_path: Path) -> None:
        """An argmax would turn a NaN into token 0 in silence."""
        from safetensors.torch import load_file, save_file

        folder = changed(tmp_path)
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][3] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        backend = open_tiny(folder)
        with pytest.raises(Fatal) as caught:
            generated(backend, sampling())
        assert caught.value.reason is Reason.INVALID_NUMBER
        pair = (
            backend.tokenizer.encode("a b", special=True),
            backend.tokenizer.encode(" c d", special=False),
        )
        with pytest.raises(Fatal) as caught:
            list(open_tiny(folder).weigh([LogLikelihoodRequest("x", (pair,))]))
        assert caught.value.reason is Reason.INVALID_NUMBER

    def test_a_conversation_led_turn_by_turn_ends_as_the_one_that_is_given(
        self, tiny: LocalBackend, tmp_path: Path
    ) -> None:
        """Behind the document's answers the last turn is the question of `turns: Last`, to the token."""
        last: dict[str, dict[str, tuple[str, str]]] = {}
        for turns in Turns:
            task = tiny_task("chat", turns=turns)
            dataset = planned(task, name="chat", source="pvc://data/chat.jsonl", limit=6)
            work = assignment(tiny_model(promptFormat="Chat"), dataset, tmp_path / turns / "out")
            (tmp_path / turns).mkdir()
            run(work, tiny)
            (log,) = (tmp_path / turns).rglob("*.jsonl")
            lines = [line for line in map(json.loads, log.read_text().splitlines()) if "requests" in line]
            asked = {line["id"]: line["requests"] for line in lines}
            last[turns] = {k: (r[-1]["promptDigest"], r[-1]["output"]) for k, r in asked.items()}
            several = [k for k, r in asked.items() if len(r) > 1]
            assert bool(several) == (turns is not Turns.LAST)
        assert last[Turns.EVERY_WITH_GOLD] == last[Turns.LAST]
        assert last[Turns.EVERY] == last[Turns.LAST]  # the model answers what the document does

    @pytest.mark.parametrize("key", SCORES)
    def test_scores_equal_the_reference_that_holds_none_of_our_code(
        self, tiny: LocalBackend, tmp_path: Path, key: str
    ) -> None:
        name, prompt_format = key.split("/")
        work = assignment(tiny_model(promptFormat=prompt_format), tiny_dataset(name), tmp_path / "out")
        found = run(work, tiny)
        primary = next(i for i, m in enumerate(found.metrics) if m.primary)
        right = {s.name: [s.stats[primary].total, s.stats[primary].n] for s in found.subsets}
        assert right == SCORES[key]
        assert found.lint == ()
