"""The configuration and tokenizer files of a Llama model, from the metadata of its GGUF file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTROL_TOKEN = 3
"""GGUF's token type for tokens that are never text."""
WINDOW = "llama.context_length"
Metadata = Mapping[str, Any]


def model_config(metadata: Metadata) -> dict[str, Any]:
    """config.json of transformers."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": metadata["llama.vocab_size"],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "max_position_embeddings": metadata[WINDOW],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        **_special_ids(metadata),
    }


def generation_config(metadata: Metadata) -> dict[str, Any]:
    """generation_config.json: only what ends an answer; sampling is the task's business."""
    return _special_ids(metadata)


def _special_ids(metadata: Metadata) -> dict[str, int]:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def tokenizer(metadata: Metadata) -> dict[str, Any]:
    """tokenizer.json of the tokenizers library.

    GGUF names the split before byte-pair encoding `smollm`: every digit alone, then GPT-2's pattern (source:
    llama.cpp, llama-vocab.cpp). transformers' own GGUF import leaves the digits out.

    Raises:
        ValueError: the file names another split.
    """
    if (split := metadata["tokenizer.ggml.pre"]) != "smollm":
        raise ValueError(f"tokenizer.ggml.pre is {split!r}, known is only 'smollm'")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _control_tokens(tokens, metadata["tokenizer.ggml.token_type"]),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _control_tokens(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [
        {"id": number, "content": token, **flags}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == CONTROL_TOKEN
    ]


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    return {
        # The class that takes tokenizer.json as it is.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        "add_bos_token": metadata["tokenizer.ggml.add_bos_token"],
        "model_max_length": metadata[WINDOW],
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
    }


def write(out: Path, metadata: Metadata) -> None:
    """Write the four JSON files into the folder `out`."""
    files = {
        "config.json": model_config(metadata),
        "generation_config.json": generation_config(metadata),
        "tokenizer.json": tokenizer(metadata),
        "tokenizer_config.json": tokenizer_config(metadata),
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
