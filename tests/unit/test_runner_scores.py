# ruff: noqa: ANN401 - changes of any field
"""Answers -> scores: extraction, metrics, lint, sampling parameters, digests."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from evaljob.names import Reason
from evaljob.stats import NATS_MAX, Aggregation
from evaljob.task import FewShot, Generation, Sampler, Task
from evaljob_runner import checkpoints, digest, extract, generation, lint
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Sampling
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal
from evaljob_runner.lint import Looked, Outputs
from evaljob_runner.prompts import Prompt
from evaljob_runner.reducing import majority, pass_at_k
from evaljob_runner.samples import Choice, InferenceLine, Outcome, Request, Score
from evaljob_runner.scoring import Scorer
from tests.runner_plans import assignment, run_plan, tiny_dataset, tiny_model, tiny_vllm
from tests.unit.test_runner_data import task


def line(
    output: str = "", *, target: str = "", outcome: Outcome = Outcome.ANSWERED, **more: Any
) -> InferenceLine:
    request = Request(rendered_by="Runner", prompt_digest="d", output=output, **more)
    return InferenceLine(
        id="x",
        doc_digest="d",
        inference_digest="i",
        attempt="a",
        outcome=outcome,
        requests=[request],
        target=target,
    )


def pipeline(*steps: dict[str, Any]) -> extract.Pipeline:
    return extract.pipelines(task(extract={"p": list(steps)}))["p"]


@pytest.mark.parametrize(
    ("steps", "answer", "found"),
    [
        ([{"regex": "is (\\d+)"}], "it is 4, is 5", "4"),
        ([{"regex": "is (\\d+)", "take": "Last"}], "it is 4, is 5", "5"),
        ([{"regex": "\\d+"}], "it is 4", "4"),
        ([{"regex": "is (\\d+)"}], "it is not", None),
        ([{"regex": "a(b)?"}], "a", None),
        ([{"regex": "is (\\d+)|equals (\\d+)"}], "it equals 4", "4"),
        ([{"regex": "(a)?(b)?c"}], "c", None),
        ([{"regex": "is (.+)"}, {"remove": "[,$]"}], "is $1,200", "1200"),
        ([{"lastNumber": {}}], "3 + 4 = 1,207.5.", "1207.5"),
        ([{"lastNumber": {}}], "it is -7", "-7"),
        ([{"lastNumber": {}}], "10-7", "7"),
        ([{"lastNumber": {}}], "none", None),
        ([{"strip": {}}], " a b\n", "a b"),
        ([{"boxed": {}}], "\\boxed{1} then \\boxed{\\frac{a}{\\{b}} end", "\\frac{a}{\\{b}"),
        ([{"boxed": {}}], "\\fbox{2}, \\boxed{3 and no more", "2"),
        ([{"boxed": {}}], "no box", None),
        ([{"codeFence": {}}], "Here:\n```python\nx = 1\n```\nor\n```\ny\n```", "x = 1"),
        ([{"codeFence": {}}], "Here:\n```c++\nx = 1\ny", "x = 1\ny"),
        ([{"codeFence": {}}], "x = 1", "x = 1"),
        ([{"firstCapital": {}}], "答案是 B", "B"),
        ([{"firstCapital": {}}], "it is b", None),
        ([{"json": {}}], ' {"a": 1} ', {"a": 1}),
        ([{"json": {}}], '{"a": 1} and more', {"a": 1}),
        ([{"json": {}}], 'Sure: {"a": [1]} or {"b": 2}', {"a": [1]}),
        ([{"json": {}}], 'Here:\n```json\n"x"\n```\nDone.', "x"),
        ([{"json": {}}], "I (3 of us) know", None),
        ([{"json": {}}], '{"a": NaN}', None),
        ([{"json": {}}], '"a\\ud83d"', "a\ufffd"),
        ([{"json": {}}], '"\\ud83d\\ude00"', "\U0001f600"),
        ([{"json": {}}], "[" * 100_000, None),
        ([{"toolCalls": {}}], '<tool_call>\n{"name": "f"}\n</tool_call>', [{"name": "f"}]),
        (
            [{"toolCalls": {}}],
            'So:<tool_call>{"name": "f"}</tool_call>\n<tool_call>{"name": "g"}',
            [{"name": "f"}, {"name": "g"}],
        ),
        ([{"toolCalls": {}}], '<tool_call>{"name": "f"}</tool_call><tool_call>g()</tool_call>', None),
        ([{"toolCalls": {}}], '[{"name": "f"}]', [{"name": "f"}]),
        ([{"toolCalls": {}}], "no call", None),
        ([{"json": {}}, {"regex": '"a": (\\d)'}], '{"a": 1}', "1"),
    ],
)
def test_extraction(steps: list[dict[str, Any]], answer: str, found: object) -> None:
    assert pipeline(*steps)(answer) == found


def scored(metric: dict[str, Any], output: str, target: str) -> float:
    scorer = Scorer(task(metrics=[metric | {"primary": True}], extract={"j": [{"json": {}}]}))
    (score,) = scorer.scores(line(output, target=target)).scores.values()
    return score.value


@pytest.mark.parametrize(
    ("metric", "output", "target", "value"),
    [
        ({"name": "contains"}, "It is Paris.", "Paris", 1),
        ({"name": "contains"}, "It is paris.", "Paris", 0),
        ({"name": "contains", "args": {"ignore_case": "true"}}, "It is paris.", "Paris", 1),
        (
            {"name": "exact_match", "args": {"regexes_to_ignore": ",\n(?s).*#### \n\\.$"}},
            "1,200.",
            "so\n#### 1200",
            1,
        ),
        ({"name": "exact_match"}, "42", "42", 1),
        ({"name": "exact_match"}, " 42", "42", 0),
        ({"name": "exact_match", "args": {"ignore_punctuation": "true"}}, "42.", "42", 1),
        ({"name": "exact_match", "args": {"ignore_numbers": "true"}}, "a1", "a2", 1),
        ({"name": "json_valid"}, "[1]", "", 1),
        ({"name": "json_valid"}, "no", "", 0),
        ({"name": "field_match", "args": {"field": "name"}}, '{"name": "add"}', "add", 1),
        ({"name": "field_match", "args": {"field": "name"}}, '{"name": "sub"}', "add", 0),
        ({"name": "field_match", "args": {"field": "name"}}, '["name"]', "add", 0),
        ({"name": "field_match", "extract": "j", "args": {"field": "n"}}, 'x {"n": 1}', "1", 1),
    ],
)
def test_metrics(metric: dict[str, Any], output: str, target: str, value: float) -> None:
    assert scored(metric, output, target) == value


def weighed(metric: str, target: int, *choices: tuple[str, float]) -> float:
    scorer = Scorer(
        Task.model_validate(
            {
                "requestType": "LogLikelihood",
                "prompt": "",
                "choices": {"values": ["a", "b"]},
                "target": "0",
                "metrics": [{"name": metric, "primary": True}],
            }
        )
    )
    logs = [
        Choice(text=t, sum=s, tokens=1, characters=len(t), bytes=len(t.encode()), greedy=False)
        for t, s in choices
    ]
    return scorer.scores(line(target=str(target), logprobs=logs)).scores[metric].value


def test_acc_takes_the_likeliest_and_the_first_of_equals() -> None:
    assert weighed("acc", 1, ("a", -2.0), ("b", -1.0)) == 1
    assert weighed("acc", 0, ("a", -1.0), ("b", -1.0)) == 1


def test_acc_norm_divides_by_characters_and_acc_bytes_by_bytes() -> None:
    """Two characters of two bytes each against three of one: the division decides."""
    choices = ("éé", -2.5), ("abc", -3.0)
    assert weighed("acc", 0, *choices) == 1
    assert weighed("acc_norm", 1, *choices) == 1
    assert weighed("acc_bytes", 0, *choices) == 1


def of_choices(metric: str) -> Scorer:
    names = {"values": ["a", "b", "c"]}
    return Scorer(
        task(requestType="LogLikelihood", choices=names, metrics=[{"name": metric, "primary": True}])
    )


@pytest.mark.parametrize(
    ("right", "greedy", "nats"), [(["0"], 1, 2.0), (["1"], 0, 1.0), (["2", "0"], 1, 2.0)]
)
def test_the_right_choice_alone_is_weighed(right: list[str], greedy: int, nats: float) -> None:
    """LAMBADA's accuracy and perplexity: no other choice counts, and of several right ones the best does."""
    weights = (("a", -2.0, True), ("b", -1.0, False), ("c", -3.0, False))
    logs = [Choice(text=t, sum=s, tokens=1, characters=1, bytes=1, greedy=g) for t, s, g in weights]
    said = line(target=right[0], logprobs=logs).model_copy(update={"references": right})
    assert of_choices("greedy_match").scores(said).scores["greedy_match"].value == greedy
    assert of_choices("perplexity").scores(said).scores["perplexity"].value == nats


def test_a_perplexity_without_an_answer_is_the_worst() -> None:
    scorer = of_choices("perplexity")
    (info,) = scorer.info
    assert (info.higher_is_better, info.aggregation) == (False, Aggregation.PERPLEXITY)
    finished = line(target="0", outcome=Outcome.CONTEXT_OVERFLOW)
    assert scorer.scores(finished).scores["perplexity"].value == NATS_MAX


def test_no_answer_is_what_the_primary_pipeline_does_not_find_and_counts_the_floor() -> None:
    scorer = Scorer(
        task(
            extract={"n": [{"lastNumber": {}}]},
            metrics=[{"name": "exact_match", "extract": "n", "primary": True}, {"name": "contains"}],
        )
    )
    finished = line("seven", target="seven")
    outcome, scores = scorer.outcome(finished), scorer.scores(finished)
    assert outcome is Outcome.NO_ANSWER
    assert {k: s.value for k, s in scores.scores.items()} == {"exact_match,n": 0, "contains": 1}


def test_a_truncated_answer_is_scored_as_it_is_and_an_overflow_at_the_floor() -> None:
    scorer = Scorer(task())
    assert (
        scorer.scores(line("Paris", target="Paris", outcome=Outcome.TRUNCATED)).scores["contains"].value == 1
    )
    finished = line("", target="", outcome=Outcome.CONTEXT_OVERFLOW)
    outcome, scores = scorer.outcome(finished), scorer.scores(finished)
    assert outcome is Outcome.CONTEXT_OVERFLOW
    assert scores.scores["contains"].value == 0


@pytest.mark.parametrize(
    ("passed", "n", "k", "value"),
    [(0, 4, 2, 0), (4, 4, 1, 1), (1, 4, 1, 0.25), (1, 4, 4, 1), (2, 4, 2, 5 / 6)],
)
def test_pass_at_k_is_unbiased(passed: int, n: int, k: int, value: float) -> None:
    """Against the definition: the share of all k-subsets of the answers that hold a right one."""
    answers = [True] * passed + [False] * (n - passed)
    drawn = [any(c) for c in itertools.combinations(answers, k)]
    assert float(pass_at_k(passed, n, k)) == pytest.approx(value) == pytest.approx(sum(drawn) / len(drawn))


def votes(*answers: tuple[str | None, float]) -> float:
    return majority([Score(extracted=text, value=value) for text, value in answers], floor=-1.0)


def test_the_majority_is_of_answers_and_of_equals_the_first() -> None:
    assert votes(("1", 0), ("2", 1), ("2", 1)) == 1
    assert votes(("1", 0), ("2", 1)) == 0
    assert votes((None, -1.0), (None, -1.0), ("2", 1)) == 1
    assert votes((None, -1.0)) == -1


def looked(text: str = "What?", *, doubled: bool = False, name: str = "x", leaks: bool = False) -> Looked:
    sample = Sample(id=name, subset="", cluster=None, columns={}, digest=name, where="f line 1")
    prompt = Prompt(
        sample=sample,
        text=text,
        messages=(),
        tools=(),
        prefix="",
        choices=(),
        delimiter=" ",
        target="",
        references=(),
        few_shot=(),
        leaks=leaks,
    )
    return Looked(prompt, doubled)


def codes(found: tuple[Any, ...]) -> dict[str, int]:
    return {item.code: item.count for item in found}


def test_prompts_of_newlines_only_are_found() -> None:
    """The original leak: a base model was run on such prompts and reported success."""
    found = lint.prompts([looked("\n\n"), looked("\n\n")])
    assert codes(found) == {"BlankPrompt": 2, "IdenticalPrompts": 1}


def test_one_repeated_question_among_many_is_no_lint() -> None:
    many = [looked(f"q{i}") for i in range(20)]
    assert lint.prompts([*many, many[0]]) == ()


def test_a_doubled_bos_and_a_leaked_item_are_found() -> None:
    found = lint.prompts([looked("a", doubled=True), looked("b", leaks=True)])
    assert codes(found) == {"DoubledBos": 1, "FewShotLeak": 1}


def outputs(*ended: tuple[Outcome, str | None]) -> dict[str, int]:
    seen = Outputs()
    for outcome, output in ended:
        seen.add(outcome, output)
    return codes(seen.found())


def test_many_bad_outputs_are_found_and_few_are_not() -> None:
    good = [(Outcome.ANSWERED, "yes")] * 8
    assert outputs(*good, (Outcome.NO_ANSWER, "?"), (Outcome.TRUNCATED, "...")) == {}
    bad = [(Outcome.NO_ANSWER, "?")] * 3 + [(Outcome.TRUNCATED, " ")] * 3
    assert outputs(*good, *bad) == {"ManyNoAnswer": 3, "ManyTruncated": 3, "ManyEmpty": 3}
    assert outputs(*[(Outcome.ANSWERED, None)] * 3) == {}


def test_the_model_overrides_the_task_which_overrides_the_default() -> None:
    task_side = Generation(temperature=0.5, max_tokens=24, stop=("\n",))
    model_side = Generation(max_tokens=64, top_k=5, stop=("Q:", "\n"))
    assert generation.resolve(task_side, model_side) == Sampling(
        max_tokens=64, temperature=0.5, top_p=1.0, top_k=5, repetition_penalty=None, stop=("\n", "Q:")
    )
    origins = generation.origins(task_side, model_side)
    assert {k: v["origin"] for k, v in origins.items() if k != "stop"} == {
        "temperature": "task",
        "topP": "default",
        "topK": "model",
        "repetitionPenalty": "default",
        "maxTokens": "model",
    }
    assert origins["stop"] == {"value": ["\n", "Q:"], "origin": {"\n": "task", "Q:": "model"}}


def test_seeds_differ_by_everything_that_names_a_sample() -> None:
    one = {"run": 0, "task": "t", "subset": "s", "sample": "x", "repeat": 0}
    changes = ({"run": 1}, {"task": "u"}, {"subset": "r"}, {"sample": "y"}, {"repeat": 1})
    others = [one | change for change in changes]
    seeds = {generation.seed_of(**c) for c in [one, *others]}  # type: ignore[arg-type]
    assert len(seeds) == 6
    assert all(0 <= s < 2**31 for s in seeds)


GREEDY = generation.resolve(Generation(), Generation())


def inference(work: Assignment, sampling: Sampling = GREEDY, **changes: Any) -> str:
    found: dict[str, Any] = {"weights": "w", "data": "d", "dated": False} | changes
    model = Checkpoint(found["weights"], "sha256", dated=found["dated"], load=Path)
    return digest.inference(work, sampling, model, found["data"])


def test_the_inference_digest_changes_with_what_changes_tokens(tmp_path: Path) -> None:
    work = assignment(tiny_model(), tiny_dataset("gsm"), tmp_path)
    sampled = dataclasses.replace(GREEDY, temperature=1.0)
    bfloat = tiny_model(transformers={"dtype": "bfloat16"})
    engines = [{}, {"dtype": "bfloat16"}, {"tensorParallelSize": 2}, {"maxModelLen": 512}]
    other_prompt = dataclasses.replace(
        work, planned=work.planned.model_copy(update={"task": work.task.model_copy(update={"prompt": "x"})})
    )
    shots = FewShot(count=1, sampler=Sampler.RANDOM)
    random_examples = dataclasses.replace(
        work,
        planned=work.planned.model_copy(update={"task": work.task.model_copy(update={"few_shot": shots})}),
    )
    different = [
        inference(work),
        inference(work, weights="v"),
        inference(work, data="e"),
        inference(work, sampled),
        inference(dataclasses.replace(work, run=run_plan(seed=1)), sampled),
        inference(dataclasses.replace(work, model=bfloat)),
        inference(dataclasses.replace(work, model=tiny_model(promptFormat="Chat"))),
        inference(dataclasses.replace(work, model=tiny_model(promptFormat="Chat")), dated=True),
        inference(other_prompt),
        inference(random_examples),
        inference(dataclasses.replace(random_examples, run=run_plan(seed=1))),
        *(inference(dataclasses.replace(work, model=tiny_vllm(vllm=engine))) for engine in engines),
    ]
    assert len(set(different)) == len(different)


def test_the_inference_digest_stays_with_what_does_not(tmp_path: Path) -> None:
    """Shards agree, scoring may change, a text prompt knows no date, a greedy run no seed."""
    work = assignment(tiny_model(), tiny_dataset("gsm"), tmp_path)
    metrics_changed = work.planned.model_copy(
        update={"task": work.task.model_copy(update={"metrics": work.task.metrics[:1], "extract": {}})}
    )
    same = [
        inference(work),
        inference(assignment(tiny_model(), tiny_dataset("gsm"), tmp_path, shard=(1, 2), attempt="b")),
        inference(dataclasses.replace(work, planned=metrics_changed)),
        inference(work, dated=True),
        inference(dataclasses.replace(work, run=run_plan(seed=1, uid="other"))),
    ]
    assert len(set(same)) == 1
    engines = (tiny_vllm(vllm={"gpuMemoryUtilization": share}) for share in (0.5, 0.9))
    assert len({inference(dataclasses.replace(work, model=engine)) for engine in engines}) == 1


def test_answers_of_a_server_are_never_shared_between_evaljobs(tmp_path: Path) -> None:
    served = tiny_model(transformers={}).model_validate(
        {"name": "s", "promptFormat": "Chat", "openai": {"url": "http://x/v1", "model": "m"}}
    )
    one = assignment(served, tiny_dataset("gsm"), tmp_path)
    other = dataclasses.replace(one, run=run_plan(uid="another"))
    assert inference(one) != inference(other)


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_checkpoint_is_known_by_its_bytes_and_not_by_its_readme(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    first = checkpoints.hashed(folder, tmp_path, "m")
    (folder / "README.md").write_text("hello")
    assert checkpoints.hashed(folder, tmp_path, "m") == first
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ strftime_now('%d') }}"}))
    second = checkpoints.hashed(folder, tmp_path, "m")
    assert second.digest != first.digest
    assert (first.dated, second.dated) == (False, True)
    assert str(first).startswith("sha256:")


def test_large_weights_are_sampled_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FULL_MAX", 1000)
    monkeypatch.setattr(checkpoints, "WINDOW_BYTES", 10)
    header = (16).to_bytes(8, "little") + b"h" * 16
    first = checkpoints.hashed(model_folder(tmp_path / "m", header + bytes(2000)), tmp_path, "m")
    changed = header + bytes(1999) + b"x"
    assert checkpoints.hashed(model_folder(tmp_path / "m", changed), tmp_path, "m").digest != first.digest
    assert str(first).startswith("sampled:")


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"no config\.json") as caught:
        checkpoints.hashed(tmp_path, tmp_path, "pvc://m/x")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_weights_that_link_out_of_the_claim_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    folder = model_folder(tmp_path / "claim")
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(Fatal, match="leads out of its volume"):
        checkpoints.hashed(folder, folder, "m")
