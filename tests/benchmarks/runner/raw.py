"""The engines as fast as a script of one's own would drive them: prompts at hand, nothing logged, nothing scored.

They are the runner's own engines: of two that are loaded alike, one is a tenth slower by where its memory lies.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 16
"""As the runner's batches in this comparison."""
MAX_TOKENS = 80
STOP = "\n\n"
Ids = list[int]


def prompts(tokenizer: Any, path: Path) -> list[Ids]:  # noqa: ANN401 - of a local backend
    """Token ids of each question, as the task asks it."""
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    return [list(tokenizer.encode(f"Question: {r['question']}\nAnswer:", special=True)) for r in rows]


def loop(backend: Any, folder: Path, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - a local backend
    """A function that generates all answers with the engine that a backend has loaded from a folder."""
    return (
        _vllm(backend.engine, ids)
        if hasattr(backend, "engine")
        else _transformers(backend.model, folder, ids)
    )


def _vllm(engine: Any, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - an LLMEngine
    """What `vllm.LLM.generate` does: all prompts at once, then step after step, with continuous batching."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        temperature=0, max_tokens=MAX_TOKENS, stop=[STOP], output_kind=RequestOutputKind.FINAL_ONLY
    )

    def run() -> list[str]:
        for number, tokens in enumerate(ids):
            engine.add_request(str(number), TokensPrompt(prompt_token_ids=tokens), params)
        found = []
        while engine.has_unfinished_requests():
            found += [output.outputs[0].text for output in engine.step() if output.finished]
        return found

    return run


def _transformers(model: Any, folder: Path, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - of transformers
    """Static batches, sorted by length, with transformers' own stop strings."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ordered = sorted(ids, key=len, reverse=True)
    batches = [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]

    def run() -> list[str]:
        texts = []
        for batch in batches:
            width = max(map(len, batch))
            rows = torch.tensor([[0] * (width - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
            out = model.generate(
                input_ids=rows,
                attention_mask=mask,
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=0,
                stop_strings=[STOP],
                tokenizer=tokenizer,
            )
            texts += tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return texts

    return run
