"""Checkpoints of any size that take little room: safetensors files with holes, random numbers in a few rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

QWEN3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
}
ROWS = 64
"""Rows of a matrix that hold random numbers; the others are holes, which read as zero."""


def write_sparse(folder: Path, shape: dict[str, int], *, tokenizer: Path, seed: int = 0) -> Path:
    """Write a Qwen3 of `shape` in bfloat16, a file per layer, with the tokenizer of the model in `tokenizer`."""
    from transformers import Qwen3Config

    folder.mkdir(parents=True)
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = Qwen3Config(
        **shape, **special, tie_word_embeddings=False, dtype="bfloat16", architectures=["Qwen3ForCausalLM"]
    )
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder)
    rng = np.random.default_rng(seed)
    parts = [_outside(shape), *(_layer(shape, index) for index in range(shape["num_hidden_layers"]))]
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, tensors in enumerate(parts):
        name = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        _write(folder / name, tensors, rng)
        index["weight_map"] |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _outside(shape: dict[str, int]) -> dict[str, tuple[int, ...]]:
    matrix = (shape["vocab_size"], shape["hidden_size"])
    return {"model.embed_tokens.weight": matrix, "lm_head.weight": matrix, "model.norm.weight": matrix[1:]}


def _layer(shape: dict[str, int], index: int) -> dict[str, tuple[int, ...]]:
    wide, inner, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    named: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, wide),
        "self_attn.k_proj": (keys, wide),
        "self_attn.v_proj": (keys, wide),
        "self_attn.o_proj": (wide, queries),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "mlp.gate_proj": (inner, wide),
        "mlp.up_proj": (inner, wide),
        "mlp.down_proj": (wide, inner),
        "input_layernorm": (wide,),
        "post_attention_layernorm": (wide,),
    }
    return {f"model.layers.{index}.{name}.weight": size for name, size in named.items()}


def _write(path: Path, tensors: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    """Write a header, then numbers where there are any: ones for norms, N(0, .05) in the first rows of a matrix."""
    header, end = {}, 0
    for name, size in tensors.items():
        begin, end = end, end + 2 * int(np.prod(size))
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, size in tensors.items():
            values = np.ones(size) if len(size) == 1 else rng.normal(0, 0.05, (min(ROWS, size[0]), size[1]))
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write((values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes())
        file.truncate(8 + len(text) + end)
