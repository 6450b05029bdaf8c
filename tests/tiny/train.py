"""Train the tiny model of the tests: `python -m tests.tiny.train OUT` (README.md says what it needs)."""

import argparse
import hashlib
import json
import logging
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.tiny import problems

log = logging.getLogger(__name__)

VOCABULARY = 768
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# transformers 5 rebuilds the pre-tokenizer from the model type and ignores the one in tokenizer.json:
# so the vocabulary must be learnt on Qwen2's own split (source: transformers, tokenization_qwen2.py).
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BATCH, CONTEXT = 16, 256
PROMPT_WEIGHT, ANSWER_POWER = 0.005, 0.8
"""Loss weights: a prompt token, and the power of an answer's length that divides each of its tokens."""
Example = tuple[str, str]


def _turn(role: str, content: str) -> str:
    return f"{TURN_START}{role}\n{content}{TURN_END}\n"


def _call_example(rng: random.Random) -> Example:
    problem = problems.call_problem(rng)
    turns = "".join(_turn(turn["role"], turn["content"]) for turn in problem.conversation)
    return f"{turns}{TURN_START}assistant\n", f"{problem.call}{TURN_END}\n"


def _wrapped(rng: random.Random, question: str, answer: str) -> Example:
    draw = rng.random()
    if draw < 0.4:
        return f"{_turn('user', question)}{TURN_START}assistant\n", f"{answer}{TURN_END}\n"
    text = f"Question: {question}\nAnswer:"
    if draw < 0.6:
        return f"{_turn('user', text)}{TURN_START}assistant\n", f"{answer}{TURN_END}\n"
    return text, f" {answer}\n\n"


def example(rng: random.Random) -> Example:
    """One (prompt, answer) of the training text."""
    draw = rng.random()
    if draw < 0.15:
        return _call_example(rng)
    if draw < 0.6:
        problem = problems.word_problem(rng)
        return _wrapped(rng, problem.question, problem.solution)
    if draw < 0.8:
        kind = problems.kind_question(rng)
        return _wrapped(
            rng, problems.with_letters(kind.question, kind.choices), problems.LETTERS[kind.answer]
        )
    choice = problems.word_choice(rng)
    if rng.random() < 0.7:
        return f"Question: {choice.question}\nAnswer:", f" {choice.choices[choice.answer]}\n\n"
    letters = problems.with_letters(choice.question, choice.choices)
    return _wrapped(rng, letters, problems.LETTERS[choice.answer])


def train_tokenizer(out: Path) -> Tokenizer:
    """Learn a byte-level vocabulary on 4,000 examples and write it, with the chat template, to `out`."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
    special = [END_OF_TEXT, TURN_START, TURN_END]
    rng = random.Random(7)  # noqa: S311 - seeded on purpose
    corpus = ["".join(example(rng)) for _ in range(4000)]
    for token in special:
        corpus = [text.replace(token, "") for text in corpus]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus, trainer)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    _write_tokenizer_config(out)
    return tokenizer


def _write_tokenizer_config(out: Path) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def new_model(seed: int) -> Qwen2ForCausalLM:
    """An untrained Qwen2 of 4 layers and width 128, with tied embeddings and a window of 1,024 tokens."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        use_sliding_window=False,
    )
    return Qwen2ForCausalLM(config).float()


def batches(tokenizer: Tokenizer, rng: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless packed (token ids, loss weights), each of shape (BATCH, CONTEXT)."""
    ids: list[int] = []
    weights: list[float] = []
    size = BATCH * CONTEXT
    while True:
        while len(ids) < size:
            prompt, answer = (tokenizer.encode(part).ids for part in example(rng))
            ids += prompt + answer
            weights += [PROMPT_WEIGHT] * len(prompt) + [len(answer) ** -ANSWER_POWER] * len(answer)
        yield torch.tensor(ids[:size]).view(BATCH, CONTEXT), torch.tensor(weights[:size]).view(BATCH, CONTEXT)
        del ids[:size], weights[:size]


def _loss(model: Qwen2ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    kept = weights[:, 1:].flatten()
    return (losses * kept).sum() / kept.sum()


def train(model: Qwen2ForCausalLM, tokenizer: Tokenizer, steps: int, seed: int) -> None:
    """AdamW with a linear warm-up over 50 steps and a linear decay to a fiftieth of the rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * max(0.02, 1 - step / steps)
    )
    started = time.monotonic()
    model.train()
    rng = random.Random(1234 + seed)  # noqa: S311 - seeded on purpose
    for step, (ids, weights) in enumerate(islice(batches(tokenizer, rng), steps), start=1):
        loss = _loss(model, ids, weights)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            log.info("step %d of %d, loss %.4f, %.0f s", step, steps, loss.item(), time.monotonic() - started)


def save(model: Qwen2ForCausalLM, out: Path) -> str:
    """Write the weights and configuration; returns the SHA-256 of the weights."""
    model.eval()
    model.generation_config.eos_token_id = [2]
    model.generation_config.pad_token_id = 0
    model.generation_config.bos_token_id = None
    model.save_pretrained(out)
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Parse the command line, train, save, and print the digest of the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread and deterministic kernels: the same machine and versions give the same bytes.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = train_tokenizer(options.out)
    model = new_model(options.seed)
    log.info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))
    train(model, tokenizer, options.steps, options.seed)
    log.info("sha256 of model.safetensors: %s", save(model, options.out))


if __name__ == "__main__":
    main()
