"""The engines as fast as a script of one's own would drive them: prompts at hand, nothing logged, nothing scored."""

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


def loop(backend: str, lm: Any, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - lm-eval's, loaded
    """A function that generates all answers with the engine that lm-eval has loaded."""
    return _vllm(lm.model, ids) if backend == "vllm" else _transformers(lm.model, lm.tokenizer, ids)


def _vllm(llm: Any, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - a vllm.LLM
    """One call with all prompts: continuous batching without a pause."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS, stop=[STOP])
    asked = [TokensPrompt(prompt_token_ids=tokens) for tokens in ids]
    return lambda: llm.generate(asked, params, use_tqdm=False)


def _transformers(model: Any, tokenizer: Any, ids: list[Ids]) -> Callable[[], object]:  # noqa: ANN401 - as above
    """Static batches, sorted by length, with transformers' own stop strings."""
    import torch

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
                pad_token_id=0,
                stop_strings=[STOP],
                tokenizer=tokenizer,
            )
            texts += tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return texts

    return run
