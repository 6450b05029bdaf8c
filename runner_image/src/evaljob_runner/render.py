"""The first prompts of a partition, for people who check a configuration before it runs."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from evaljob_runner import data, generation, tokens
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Tokenizer
from evaljob_runner.preparing import refuse_unsupported
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.scoring import Scorer

ANSWER = "<the answer>"
"""Stands for what a model would say, where a judge's prompt is shown."""


def render(work: Assignment, tokenizer: Tokenizer | None, count: int, out: TextIO) -> None:
    """Print one JSON line per prompt: text or messages, token ids, target and sampling with origins.

    Raises:
        Fatal: for everything that an evaluation would refuse before its model loads.
    """
    refuse_unsupported(work)
    scorer = Scorer(work.task)
    with TemporaryDirectory() as scratch:
        selection = data.select(work.planned.dataset, work.task, work.partition, work.places, Path(scratch))
        samples = selection.samples.first(count)
    prompter = Prompter(work.task, selection.pools, chat=work.chat, seed=generation.example_seed(work))
    sampling = generation.origins(work.generation, work.model.generation)
    for sample in samples:
        prompt = prompter.prompt(sample)
        line = {
            "id": sample.id,
            "subset": sample.subset,
            **_rendered(prompt, work, tokenizer),
            "target": prompt.target,
            "fewShotIds": [s.id for s in prompt.few_shot],
        }
        if not prompt.choices:
            line["generation"] = sampling
        own = {"answer": ANSWER, "answers": [ANSWER], "target": prompt.target}
        own |= {"references": list(prompt.references) or [prompt.target]}
        if asked := scorer.shown(sample.columns, own, sample.where):
            line["judges"] = asked
        print(json.dumps(line, ensure_ascii=False), file=out)


def _rendered(prompt: Prompt, work: Assignment, tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        sent = {"messages": [dict(m) for m in prompt.messages]} if prompt.messages else {"text": prompt.text}
        texts = {"choices": [{"text": text} for text in prompt.choices]} if prompt.choices else {}
        return {"renderedBy": "Server", **sent, **texts}
    encoded = tokens.encode(prompt, tokenizer, work.run.date, work.template_args)
    choices = [
        {"text": text, "contextTokenIds": context, "tokenIds": continuation}
        for text, (context, continuation) in zip(prompt.choices, encoded.pairs, strict=True)
    ]
    found = {"renderedBy": "Runner", "text": encoded.text, "tokenIds": encoded.ids}
    return found | ({"choices": choices} if choices else {})
