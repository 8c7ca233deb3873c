"""Tiny models for tests: the architectures of long standing, randomly initialised, with a byte-level tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = (
    "bloom",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "olmo2",
    "opt",
    "qwen2",
    "qwen3",
    "smollm3",
    "xglm",
)
VOCABULARY = 272  # rows of the embedding; the tokenizer has 268 tokens
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("a", "n"), ("Ġ", "a"), ("o", "n"))


def build_tokenizer() -> Any:
    """Byte-level BPE: 4 special tokens, 256 bytes, 8 merges. Any text goes through and comes back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = dict(zip(("bos_token", "eos_token", "pad_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **names,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def build_config(architecture: str, *, layers: int = 2, hidden: int = 32, **changes: Any) -> Any:
    """The configuration of a tiny model; `changes` override entries of it."""
    from transformers import AutoConfig

    heads = 4
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    plain = {
        "hidden_size": hidden,
        "intermediate_size": hidden * 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    grouped = {**plain, "num_key_value_heads": 2, "head_dim": hidden // heads}
    entries: dict[str, dict[str, Any]] = {
        "llama": {**grouped, "tie_word_embeddings": True},
        "qwen2": grouped,
        "qwen3": {**grouped, "tie_word_embeddings": True},
        "gemma3_text": {**grouped, "query_pre_attn_scalar": hidden // heads, "sliding_window": 128},
        "smollm3": {**grouped, "tie_word_embeddings": True},
        "olmo2": grouped,
        "gpt_neox": plain,
        "gpt2": {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": 256, "initializer_range": 0.2},
        "bloom": {"hidden_size": hidden, "n_layer": layers, "n_head": heads, "initializer_range": 0.2},
        "opt": {
            "hidden_size": hidden,
            "ffn_dim": hidden * 2,
            "num_hidden_layers": layers,
            "init_std": 0.2,
            "num_attention_heads": heads,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": hidden,
        },
        "xglm": {
            "d_model": hidden,
            "ffn_dim": hidden * 2,
            "num_layers": layers,
            "attention_heads": heads,
            "max_position_embeddings": 256,
            "init_std": 0.2,
            "decoder_start_token_id": 0,
        },
    }
    config = AutoConfig.for_model(architecture, **{**entries[architecture], **tokens, **changes})
    if not getattr(config, "architectures", None):
        config.architectures = None
    return config


def build_model(architecture: str, folder: Path, *, seed: int = 0, shard: str | None = None, **options: Any) -> Path:
    """Save a tiny float32 model and its tokenizer into `folder`, return it. `shard`: largest file, e.g. "20KB"."""
    import torch
    from transformers import AutoModelForCausalLM

    config = build_config(architecture, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        # Freshly made norms and biases are all ones and zeros, which would hide a mix-up of names.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    build_tokenizer().save_pretrained(folder)
    return folder


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = GGUF_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def build_gguf(
    folder: Path,
    path: Path,
    *,
    architecture: str = "llama",
    entries: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model in `folder` (a tiny one, or one of the reference family) as a float32 GGUF file, return its path.

    `architecture`: llama, qwen3 or gemma3, as GGUF has it. The tokenizer must be byte-level BPE.
    `entries`: metadata put in or over, None takes one out; `without`: tensors left out; `extra`: arrays put in.
    """
    import gguf
    import numpy as np
    from safetensors.torch import load_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (_gguf_entries(folder, config, architecture) | dict(entries or {})).items():
        if value is not None:
            kind = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
            getattr(writer, f"add_{kind}")(key, value)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    names = GEMMA_NAMES if architecture == "gemma3" else GGUF_NAMES
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        weight = tensor.float().numpy()
        module = name.removesuffix(".weight")
        role = module.rsplit(".", 1)[-1]
        if architecture == "llama" and role in heads:  # llama.cpp interleaves the two halves of each rotary head
            rows, columns = weight.shape
            halves = weight.reshape(heads[role], 2, rows // heads[role] // 2, columns)
            weight = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
        if architecture == "gemma3" and "norm" in role:
            weight = weight + 1  # transformers stores what is added to one
        _, _, inside = module.partition("model.layers.")
        layer, _, part = inside.partition(".")
        tensors[f"blk.{layer}.{names[part]}.weight" if inside else f"{names[module]}.weight"] = weight
    for name, array in (tensors | dict(extra or {})).items():
        if name not in without:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_entries(folder: Path, config: Any, architecture: str) -> dict[str, Any]:
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"] for token in described["added_tokens"]}
    tokens = [f"[unused{i}]" for i in range(config.vocab_size)]
    for token, number in described["model"]["vocab"].items():
        tokens[number] = token
    for token in described["added_tokens"]:
        tokens[token["id"]] = token["content"]
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    own = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    if architecture == "llama":
        own["rope.dimension_count"] = config.head_dim
    else:
        own |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if architecture == "gemma3":
        own["attention.sliding_window"] = config.sliding_window
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]]
    return {f"{architecture}.{name}": value for name, value in own.items()} | {
        "general.name": "tiny",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
        "tokenizer.ggml.padding_token_id": config.pad_token_id,
    }
