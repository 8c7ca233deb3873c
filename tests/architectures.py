"""Tiny models of every type: what their configurations need beside the common entries."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from evenbits.models.families import SUPPORTED

TOKENS = {"vocab_size": tiny_models.VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
PLAIN = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "head_dim": 16,
    "initializer_range": 0.15,
}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.15}
ALIBI = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.15}
WINDOW = {"sliding_window": 16}
TURNS = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, **WINDOW}
GATED_DELTA = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
FEW = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
NARROW = {**FEW, "moe_intermediate_size": 48}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
SHARED = {"shared_expert_intermediate_size": 48}
GRANITE = {
    "logits_scaling": 2.0,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.1,
}
PIXELS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_EYES = {
    "depth": 1,
    "hidden_size": 32,
    "embed_dim": 32,
    "num_heads": 2,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
HALF_MROPE = {"rope_parameters": {**MROPE["rope_parameters"], "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]}}

SETTINGS: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "bitnet": {},
    "diffllama": {},
    "ernie4_5": {},
    "gemma": {},
    "helium": {},
    "hunyuan_v1_dense": {},
    "internlm3": {},
    "iquestcoder": {},
    "jais2": {},
    "llama": {},
    "ministral3": {},
    "nanochat": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "persimmon": {},
    "phi": {},
    "seed_oss": {},
    "stablelm": {},
    "qwen2": {},
    "qwen3": {},
    "cohere": {"logit_scale": 0.0625},
    "cohere2": {**TURNS, "logit_scale": 0.25},
    "cwm": TURNS,
    "exaone4": TURNS,
    "falcon": {**ALIBI, "num_hidden_layers": 2, "num_attention_heads": 4, "n_layer": None, "n_head": None},
    "gemma2": {**TURNS, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 16},
    "gemma3_text": {**TURNS, "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0},
    "gemma4_text": {
        **TURNS,
        "final_logit_softcapping": 3.0,
        "vocab_size_per_layer_input": tiny_models.VOCABULARY,
        "hidden_size_per_layer_input": 16,
    },
    "gemma4_unified_text": {**TURNS, "final_logit_softcapping": 3.0},
    "glm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "codegen": {**GPT, "rotary_dim": 8},
    "gptj": {**GPT, "rotary_dim": 8},
    "gpt_neo": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
        "max_position_embeddings": 512,
    },
    "gpt_neox": {"num_key_value_heads": None},
    "bloom": ALIBI,
    "granite": GRANITE,
    "granite_swa": {**GRANITE, **TURNS},
    "hyperclovax": GRANITE,
    "ministral": WINDOW,
    "mistral": WINDOW,
    "phi3": WINDOW,
    "starcoder2": WINDOW,
    "vaultgemma": {**WINDOW, "final_logit_softcapping": 3.0},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "olmo3": {**WINDOW, "num_hidden_layers": 4},
    "opt": {
        "hidden_size": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "word_embed_proj_dim": 64,
        "init_std": 0.15,
    },
    "smollm3": {"num_hidden_layers": 4, "no_rope_layer_interval": 4},
    "xglm": {
        "d_model": 64,
        "ffn_dim": 128,
        "num_layers": 3,
        "attention_heads": 4,
        "max_position_embeddings": 512,
        "init_std": 0.15,
    },
    "falcon_h1": {
        "mamba_d_ssm": 128,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "lm_head_multiplier": 0.5,
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 16,
        "n_groups": 1,
        "expand": 2,
    },
    "qwen3_5_text": GATED_DELTA,
    "jamba": {"mamba_d_state": 8, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 8},
    "falcon_mamba": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 8},
    "olmo_hybrid": {**GATED_DELTA, "linear_num_key_heads": 4},
    "axk1": {**ROUTED, **LATENT},
    "glm4_moe_lite": {**ROUTED, **LATENT},
    "youtu": LATENT,
    "solar_open": ROUTED,
    "mimo_v2_flash": {**ROUTED, **TURNS, "v_head_dim": 8},
    "afmoe": {**NARROW, **TURNS, "num_dense_layers": 1, "num_shared_experts": 1},
    "cohere2_moe": {**FEW, **TURNS, "logit_scale": 0.25, "num_shared_experts": 1},
    "exaone_moe": {**NARROW, **TURNS},
    "flex_olmo": FEW,
    "flint": {**NARROW, **SHARED, **TURNS},
    "granitemoe_swa": {**LOCAL, **GRANITE, **TURNS, "shared_intermediate_size": 64},
    "granitemoeshared": {**LOCAL, **GRANITE, "shared_intermediate_size": 64},
    "hy_v3": NARROW,
    "kolibri1": {**LOCAL, **SHARED, **TURNS, "moe_intermediate_size": 48},
    "lfm2_moe": {**NARROW, "num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv"]},
    "mellum": {**LOCAL, **TURNS, "moe_intermediate_size": 48},
    "deepseek_v2": {**ROUTED, **LATENT},
    "deepseek_v3": {**ROUTED, **LATENT},
    # Few heads of the indexer would often score zero together, and equal scores are chosen in any order.
    "deepseek_v32": {**ROUTED, **LATENT, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 16},
    "dots1": ROUTED,
    "glm4_moe": ROUTED,
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 48, "moe_num_shared_experts": 1},
    "gpt_oss": {**LOCAL, **WINDOW},
    "granitemoe": {**LOCAL, **GRANITE},
    "minimax": LOCAL,
    "minimax_m2": LOCAL,
    "mixtral": LOCAL,
    "phimoe": LOCAL,
    "granitemoehybrid": {
        **LOCAL,
        **GRANITE,
        "shared_intermediate_size": 64,
        "layer_types": ["mamba", "attention", "mamba"],
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "mamba_expand": 2,
    },
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": [2, 2, 2]},
    "llama4_text": {
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
        "attention_chunk_size": 16,
        "num_hidden_layers": 4,
    },
    "olmoe": FEW,
    "qwen3_moe": NARROW,
    "qwen2_moe": {**NARROW, **SHARED},
    "qwen3_next": {**GATED_DELTA, **NARROW, **SHARED},
    "qwen3_5_moe_text": {**GATED_DELTA, **NARROW, **SHARED},
    "gemma3n_text": {
        **TURNS,
        "vocab_size_per_layer_input": tiny_models.VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": None,
    },
    "nemotron_h": {
        **ROUTED,
        "first_k_dense_replace": None,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"],
        "moe_shared_expert_intermediate_size": 48,
        "moe_latent_size": 32,
        "ssm_state_size": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "chunk_size": 16,
    },
}
"""Entries beside (or, for those that name them otherwise, instead of) the common ones, by type."""

OWN_NAMES = (
    "gpt2",
    "gpt_bigcode",
    "codegen",
    "gptj",
    "gpt_neo",
    "bloom",
    "falcon",
    "falcon_mamba",
    "mamba",
    "mamba2",
    "mpt",
    "opt",
    "xglm",
)
"""Types whose configurations do not know the common entries."""

WRAPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "exaone4_5": ("exaone4", QWEN_EYES),
    "gemma3": ("gemma3_text", PIXELS),
    "gemma4": ("gemma4_text", PIXELS),
    "gemma4_unified": ("gemma4_unified_text", {}),
    "glm46v": ("glm4", QWEN_EYES),
    "glm4v": ("glm4", QWEN_EYES),
    "glm4v_moe": ("glm4_moe", QWEN_EYES),
    "idefics3": ("llama", PIXELS),
    "internvl": ("qwen2", PIXELS),
    "lfm2_vl": ("lfm2", PIXELS),
    "llama4": (
        "llama4_text",
        {**PIXELS, "vision_output_dim": 64, "projector_input_dim": 64, "projector_output_dim": 64},
    ),
    "llava": ("llama", PIXELS),
    "llava_next": ("llama", PIXELS),
    "llava_onevision": ("qwen2", PIXELS),
    "mistral3": ("mistral", PIXELS),
    "ovis2": ("qwen2", PIXELS),
    "qwen2_5_vl": ("qwen2", QWEN_EYES),
    "qwen2_vl": ("qwen2", {**QWEN_EYES, "hidden_size": 64}),
    "qwen3_5": ("qwen3_5_text", QWEN_EYES),
    "qwen3_5_moe": ("qwen3_5_moe_text", QWEN_EYES),
    "qwen3_vl": ("qwen3", QWEN_EYES),
    "qwen3_vl_moe": ("qwen3_moe", QWEN_EYES),
    "smolvlm": ("llama", PIXELS),
    "hyperclovax_vision_v2": ("hyperclovax", QWEN_EYES),
}
"""Multimodal types: the type of their text part, and the entries of what reads images."""

EYES = {
    "exaone4_5": "exaone4_5_vision",
    "glm46v": "glm4v_vision",
    "hyperclovax_vision_v2": "qwen2_5_vl_vision",
    "llava": "clip_vision_model",
    "llava_next": "clip_vision_model",
    "mistral3": "pixtral",
}
"""Of wrappers that take any model to read images with, the one they are given; the rest take SigLIP's."""

CHANGED: dict[str, dict[str, Any]] = {
    "gemma3": {"final_logit_softcapping": None},
    "glm46v": HALF_MROPE,
    "glm4v": HALF_MROPE,
    "glm4v_moe": HALF_MROPE,
    "qwen2_5_vl": MROPE,
    "qwen2_vl": MROPE,
    "qwen3_vl": MROPE,
}
"""Entries of the text part that differ from those of the type alone."""


def every_type(*quick: str) -> list[Any]:
    """Return every supported type as a parameter of a test; all but the `quick` ones are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in SUPPORTED]


def rounded_rows(w_OI: Any) -> Any:
    """int4-row by its definition: absmax / 7 in FP16, round half to even."""
    scale = (w_OI.abs().amax(1, keepdim=True) / 7).clamp(2**-24, 65504).half().float()
    return (w_OI / scale).round().clamp(-7, 7) * scale


def config_of(architecture: str) -> Any:
    """The configuration of a tiny model of `architecture`."""
    from transformers import AutoConfig

    if architecture in WRAPPED:
        text, pixels = WRAPPED[architecture]
        parts = {"text_config": _entries(text) | CHANGED.get(architecture, {}), "vision_config": pixels}
        parts = deepcopy(parts)  # transformers writes into what it is given
        kinds = {"text_config": text, "vision_config": EYES.get(architecture, "siglip_vision_model")}
        for part, kind in type(AutoConfig.for_model(architecture)).sub_configs.items():
            if kind is AutoConfig:
                parts[part]["model_type"] = kinds[part]
        return AutoConfig.for_model(architecture, **parts)
    return AutoConfig.for_model(architecture, **_entries(architecture))


def _entries(architecture: str) -> dict[str, Any]:
    common = {} if architecture in OWN_NAMES else PLAIN
    entries = {**TOKENS, **common, **SETTINGS[architecture]}
    return {name: value for name, value in entries.items() if value is not None}


def build(architecture: str, folder: Path) -> Path:
    """Save a tiny random float32 model of `architecture` with its tokenizer into `folder`, return it."""
    import torch
    from evenbits.models.quiet import quiet_transformers
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config = config_of(architecture)
    maker = AutoModelForImageTextToText if architecture in WRAPPED else AutoModelForCausalLM
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = maker.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.02 * torch.randn_like(parameter))  # all ones or zeros would hide a mix-up of names
                elif not torch.isfinite(parameter).all() or parameter.std() < 0.05 or parameter.abs().max() > 100:
                    parameter.normal_(0, 0.12)  # empty memory, or too small to matter
            for name, buffer in model.named_buffers():
                if name.endswith(
                    ("e_score_correction_bias", "layer_scalar")
                ):  # learned: at first 0 and 1, like no buffer
                    buffer.add_(0.5 * torch.rand_like(buffer))
        model.save_pretrained(folder)
        tiny_models.build_tokenizer().save_pretrained(folder)
    if architecture in TURNED:
        _turn_experts(folder / "model.safetensors")
    return folder


TURNED = ("qwen3_vl_moe",)
"""Types whose published checkpoints hold experts input x output, which transformers reads, but does not write."""


def _turn_experts(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(file)
    turned = {
        name: value.transpose(1, 2).contiguous()
        for name, value in held.items()
        if ".experts." in name and value.dim() == 3
    }
    save_file(held | turned, file, metadata={"format": "pt"})
