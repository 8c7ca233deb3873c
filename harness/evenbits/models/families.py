"""Families: the types of model that are known to be measured right, and why others are refused. Needs no torch.

What a type looks like inside is read off its modules (`layout.py`). A type is in the list below once a test has held
its losses and the damage of a spec to an independent float32 computation; that test writes docs/models.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from evenbits.errors import ModelError

__all__ = ["REFUSED", "SUPPORTED", "WRAPPERS", "check_type", "listed"]

DENSE = (
    "apertus",
    "arcee",
    "biogpt",
    "bitnet",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "cwm",
    "diffllama",
    "ernie4_5",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "granite_swa",
    "helium",
    "hunyuan_v1_dense",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "mpt",
    "nanochat",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "vaultgemma",
    "xglm",
    "youtu",
)
"""Attention in every layer and one feed-forward part."""

HYBRID = (
    "falcon_h1",
    "falcon_mamba",
    "jamba",
    "lfm2",
    "mamba",
    "mamba2",
    "olmo_hybrid",
    "qwen3_5_text",
)
"""State spaces, convolutions or linear attention in some layers or all."""

EXPERTS = (
    "afmoe",
    "axk1",
    "cohere2_moe",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "flex_olmo",
    "flint",
    "glm4_moe",
    "glm4_moe_lite",
    "gpt_oss",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "hunyuan_v1_moe",
    "hy_v3",
    "kolibri1",
    "lfm2_moe",
    "llama4_text",
    "mellum",
    "mimo_v2_flash",
    "minimax",
    "minimax_m2",
    "mixtral",
    "nemotron_h",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe_text",
    "qwen3_moe",
    "qwen3_next",
    "solar_open",
)
"""Experts, of which a router chooses a few for each token."""

WRAPPERS = (
    "exaone4_5",
    "gemma3",
    "gemma4",
    "gemma4_unified",
    "glm46v",
    "glm4v",
    "glm4v_moe",
    "hyperclovax_vision_v2",
    "idefics3",
    "internvl",
    "lfm2_vl",
    "llama4",
    "llava",
    "llava_next",
    "llava_onevision",
    "mistral3",
    "ovis2",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
)
"""Multimodal models: their text part is measured, what reads images is left as it is."""

SUPPORTED: tuple[str, ...] = tuple(sorted((*DENSE, *HYBRID, *EXPERTS, *WRAPPERS)))

UNHEEDED = "transformers ignores the logit scale of its text part, so that its scores are not those of the text part"

REFUSED: Mapping[str, str] = {
    "aya_vision": UNHEEDED,
    "cohere2_vision": UNHEEDED,
    "gemma3n_text": "its layers mix several streams and low-rank paths, and the losses differ from transformers' own",
    "glm_moe_dsa": "some layers attend to what an earlier one has chosen, so that none can be run or changed alone",
    "kimi_k25": "its checkpoints hold what reads images in a way that is not understood yet",
    "laguna": "gates of attention have one number per head or per channel, and their name does not say which",
    "longcat_flash": "a layer holds two attention and two feed-forward parts",
    "recurrent_gemma": "its layers are not found among its modules",
    "rwkv": "mixing along the text has parameters that are neither quantized nor kept by a rule yet",
}
"""Types that were looked at and do not come out right, with the reason."""


def listed() -> str:
    """Return the supported types in words."""
    return f"supported are decoder-only causal language models of the types {', '.join(SUPPORTED)}"


def check_type(model_type: str) -> None:
    """Raise `ModelError` with the list, and the reason where one is known, unless `model_type` is supported."""
    if model_type not in SUPPORTED:
        why = f" ({REFUSED[model_type]})" if model_type in REFUSED else ""
        raise ModelError(f"models of type {model_type!r} are not supported{why}; {listed()}")
