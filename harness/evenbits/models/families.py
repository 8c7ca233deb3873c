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
    "bitnet",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "ernie4_5",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "helium",
    "hunyuan_v1_dense",
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
)
"""Attention in every layer and one feed-forward part."""

HYBRID = ("falcon_h1", "lfm2", "mamba2", "qwen3_5_text")
"""State spaces, convolutions or linear attention in some layers or all."""

EXPERTS = (
    "deepseek_v2",
    "deepseek_v3",
    "dots1",
    "ernie4_5_moe",
    "glm4_moe",
    "gpt_oss",
    "granitemoe",
    "granitemoehybrid",
    "hunyuan_v1_moe",
    "llama4_text",
    "minimax",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe_text",
    "qwen3_moe",
    "qwen3_next",
)
"""Experts, of which a router chooses a few for each token."""

WRAPPERS = ("gemma3", "gemma4", "llama4", "llava", "mistral3", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_vl")
"""Multimodal models: their text part is measured, what reads images is left as it is."""

SUPPORTED: tuple[str, ...] = tuple(sorted((*DENSE, *HYBRID, *EXPERTS, *WRAPPERS)))

REFUSED: Mapping[str, str] = {
    "gemma3n_text": "its layers mix several streams and low-rank paths, and the losses differ from transformers' own",
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
