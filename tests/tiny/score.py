"""Reference scores of the tiny model: `python -m tests.tiny.score`, without any code of the runner.

One request at a time, float32, one thread. Prints right answers and questions per task, format and topic.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import problems

HERE = Path(__file__).parent
FORMATS = ("Text", "Chat")
Row = dict[str, Any]
Scores = dict[str, tuple[int, int]]


class Model:
    """The tiny model, asked one thing at a time."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The messages as text, ready for the assistant's answer."""
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def answer(self, prompt: str, max_tokens: int) -> str:
        """The greedy continuation of a prompt, cut at the end of the turn and at a blank line."""
        ids = torch.tensor([self._tokenizer.encode(prompt)])
        out = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
        )
        text: str = self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        return text.partition("\n\n")[0]

    def log_likelihood(self, context: str, continuation: str) -> float:
        """Sum of the log probabilities of the continuation's tokens."""
        start = len(self._tokenizer.encode(context))
        ids = torch.tensor([self._tokenizer.encode(context + continuation)])
        logits = self._model(ids).logits[0, :-1].log_softmax(-1)
        return float(logits.gather(1, ids[0, 1:, None])[start - 1 :].sum())


def _rendered(model: Model, prompt: str, prompt_format: str) -> str:
    return model.chat([{"role": "user", "content": prompt}]) if prompt_format == "Chat" else prompt


def gsm(model: Model, row: Row, prompt_format: str) -> bool:
    """Whether the number after "####" is right."""
    prompt = _rendered(model, f"Question: {row['question']}\nAnswer:", prompt_format)
    match = re.search(r"#### (-?\d+)", model.answer(prompt, 80))
    return match is not None and match[1] == row["answer"]


def _best(model: Model, prompt: str, choices: list[str], delimiter: str) -> int:
    scores = [model.log_likelihood(prompt, delimiter + choice) for choice in choices]
    return scores.index(max(scores))


def kind(model: Model, row: Row, prompt_format: str) -> bool:
    """Whether the letter is right."""
    question = problems.with_letters(row["question"], row["choices"])
    prompt = _rendered(model, f"Question: {question}\nAnswer:", prompt_format)
    delimiter = "" if prompt_format == "Chat" else " "
    return _best(model, prompt, list(problems.LETTERS), delimiter) == int(row["answer"])


def mc_with(pool: dict[str, list[Row]]) -> Callable[[Model, Row, str], bool]:
    """Whether the choice is right, after two solved examples of the topic."""

    def solved(row: Row) -> str:
        return f"Question: {row['question']}\nAnswer: {row['choices'][row['answer']]}\n\n"

    def score(model: Model, row: Row, prompt_format: str) -> bool:
        shots = "".join(solved(example) for example in pool[row["topic"]][:2])
        text = f"Questions about {row['topic']}.\n\n{shots}Question: {row['question']}\nAnswer:"
        delimiter = "" if prompt_format == "Chat" else " "
        best = _best(model, _rendered(model, text, prompt_format), row["choices"], delimiter)
        return best == int(row["answer"])

    return score


def chat(model: Model, row: Row, _: str) -> bool:
    """Whether the answer is JSON that calls the right function."""
    try:
        call = json.loads(model.answer(model.chat(row["conversation"]), 48))
    except json.JSONDecodeError:
        return False
    return isinstance(call, dict) and call.get("name") == row["expected"]


def _rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (HERE / "data" / f"{name}.jsonl").read_text().splitlines()]


def scores(model: Model) -> dict[str, Scores]:
    """`<task>/<format>` → topic → (right answers, questions)."""
    pool: dict[str, list[Row]] = defaultdict(list)
    for row in _rows("mc"):
        if row["split"] == "dev":
            pool[row["topic"]].append(row)
    tasks = {"gsm": gsm, "mc": mc_with(pool), "kind": kind}
    found = {
        f"{name}/{prompt_format}": _scored(model, name, task, prompt_format)
        for name, task in tasks.items()
        for prompt_format in FORMATS
    }
    return found | {"chat/Chat": _scored(model, "chat", chat, "Chat")}


def _scored(model: Model, name: str, task: Callable[[Model, Row, str], bool], prompt_format: str) -> Scores:
    right: dict[str, list[bool]] = defaultdict(list)
    for row in _rows(name):
        if row.get("split", "test") == "test":
            right[row["topic"]].append(task(model, row, prompt_format))
    return {topic: (sum(answers), len(answers)) for topic, answers in right.items()}


def main() -> None:
    """Score everything and print it as JSON."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = scores(Model(HERE / "model"))
    lines = [f'"{key}": {json.dumps(value)}' for key, value in found.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
