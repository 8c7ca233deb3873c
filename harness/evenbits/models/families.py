"""Families: how each supported architecture lays out its decoder layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evenbits.errors import ModelError
from evenbits.models.anatomy import Anatomy, Block, Linear, Part

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FAMILIES", "SUPPORTED", "Family", "anatomy_of", "family_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Paths of one architecture; paths of linears are relative to a decoder layer.

    `legacy`: beginnings of tensor names in published checkpoints -> beginnings of parameter names in transformers.
    """

    layers: str
    attention: str
    mlp: str | None
    linears: Mapping[str, Part]
    attention_output: str
    mlp_output: str
    embedding: str
    final_norm: str
    head: str = "lm_head"
    projections: tuple[str, ...] = ()
    legacy: Mapping[str, str] = field(default_factory=dict)


def _llama_like() -> Family:
    return Family(
        layers="model.layers",
        attention="self_attn",
        mlp="mlp",
        linears={
            "self_attn.q_proj": "attention",
            "self_attn.k_proj": "attention",
            "self_attn.v_proj": "attention",
            "self_attn.o_proj": "attention",
            "mlp.gate_proj": "mlp",
            "mlp.up_proj": "mlp",
            "mlp.down_proj": "mlp",
        },
        attention_output="self_attn.o_proj",
        mlp_output="mlp.down_proj",
        embedding="model.embed_tokens",
        final_norm="model.norm",
    )


def _fused(*, layers: str, attention: str, embedding: str, final_norm: str, legacy: Mapping[str, str]) -> Family:
    return Family(
        layers=layers,
        attention=attention,
        mlp="mlp",
        linears={
            f"{attention}.query_key_value": "attention",
            f"{attention}.dense": "attention",
            "mlp.dense_h_to_4h": "mlp",
            "mlp.dense_4h_to_h": "mlp",
        },
        attention_output=f"{attention}.dense",
        mlp_output="mlp.dense_4h_to_h",
        embedding=embedding,
        final_norm=final_norm,
        legacy=legacy,
    )


def _fairseq_like(*, root: str, final_norm: str, projections: tuple[str, ...], legacy: Mapping[str, str]) -> Family:
    return Family(
        layers=f"{root}.layers",
        attention="self_attn",
        mlp=None,
        linears={
            "self_attn.q_proj": "attention",
            "self_attn.k_proj": "attention",
            "self_attn.v_proj": "attention",
            "self_attn.out_proj": "attention",
            "fc1": "mlp",
            "fc2": "mlp",
        },
        attention_output="self_attn.out_proj",
        mlp_output="fc2",
        embedding=f"{root}.embed_tokens",
        final_norm=f"{root}.{final_norm}",
        projections=projections,
        legacy=legacy,
    )


FAMILIES: Mapping[str, Family] = {
    "llama": _llama_like(),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "gemma3_text": _llama_like(),
    "smollm3": _llama_like(),
    "olmo2": _llama_like(),
    "gpt2": Family(
        layers="transformer.h",
        attention="attn",
        mlp="mlp",
        linears={"attn.c_attn": "attention", "attn.c_proj": "attention", "mlp.c_fc": "mlp", "mlp.c_proj": "mlp"},
        attention_output="attn.c_proj",
        mlp_output="mlp.c_proj",
        embedding="transformer.wte",
        final_norm="transformer.ln_f",
        legacy={"": "transformer."},
    ),
    "gpt_neox": _fused(
        layers="gpt_neox.layers",
        attention="attention",
        embedding="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        legacy={"embed_out.": "lm_head.", "": "gpt_neox."},
    ),
    "bloom": _fused(
        layers="transformer.h",
        attention="self_attention",
        embedding="transformer.word_embeddings",
        final_norm="transformer.ln_f",
        legacy={"": "transformer."},
    ),
    "opt": _fairseq_like(
        root="model.decoder",
        final_norm="final_layer_norm",
        projections=("model.decoder.project_in", "model.decoder.project_out"),
        legacy={"decoder.": "model.decoder."},
    ),
    "xglm": _fairseq_like(root="model", final_norm="layer_norm", projections=(), legacy={"": "model."}),
}

SUPPORTED: tuple[str, ...] = tuple(sorted(FAMILIES))


def family_of(model_type: str) -> Family:
    """Return the layout of `model_type`; raises `ModelError` with the list of supported ones."""
    if model_type not in FAMILIES:
        raise ModelError(
            f"models of type {model_type!r} are not supported; supported are decoder-only causal language models of "
            f"the types {', '.join(SUPPORTED)}"
        )
    return FAMILIES[model_type]


def anatomy_of(model: nn.Module) -> Anatomy:
    """Return the paths of layers, linears, embedding, head and final norm of a transformers causal language model.

    Every product inside a layer must be known to the family: an unknown or missing one raises `ModelError` by name,
    because a part that is not found would silently stay at full precision.
    """
    model_type = str(getattr(model, "config").model_type)  # noqa: B009 - nn.Module types attributes as tensors
    family = family_of(model_type)
    modules = dict(model.named_modules())
    count = sum(1 for name in modules if _index_below(name, family.layers) is not None)
    layers = tuple(f"{family.layers}.{index}" for index in range(count))
    linears = _linears(modules, family, model_type)
    for layer, name in enumerate(layers):
        found = {linear.name for linear in linears if linear.layer == layer}
        missing = [path for path in family.linears if f"{name}.{path}" not in found]
        if missing:
            raise ModelError(f"layer {name} of this {model_type} model has no {', '.join(missing)}")
    return Anatomy(
        model_type=model_type,
        layers=layers,
        blocks=tuple(_block(index, name, family) for index, name in enumerate(layers)),
        linears=linears,
        embedding=family.embedding,
        head=family.head,
        final_norm=family.final_norm if family.final_norm in modules else None,
        tied=modules[family.head].weight is modules[family.embedding].weight,
        projections=tuple(
            Linear(name=name, layer=None, part="projection", role=name.rsplit(".", 1)[-1])
            for name in family.projections
            if name in modules
        ),
    )


def _index_below(name: str, layers: str) -> int | None:
    rest = name.removeprefix(f"{layers}.")
    return int(rest) if rest != name and rest.isdigit() else None


def _block(index: int, name: str, family: Family) -> Block:
    return Block(
        index=index,
        name=name,
        attention=f"{name}.{family.attention}",
        mlp=None if family.mlp is None else f"{name}.{family.mlp}",
        attention_output=f"{name}.{family.attention_output}",
        mlp_output=f"{name}.{family.mlp_output}",
    )


def _linears(modules: Mapping[str, Any], family: Family, model_type: str) -> tuple[Linear, ...]:
    from torch import nn  # noqa: PLC0415 - the table above is wanted without torch
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - same

    linears = []
    for name, module in modules.items():
        if not isinstance(module, nn.Linear | Conv1D) or not name.startswith(f"{family.layers}."):
            continue
        index, _, path = name.removeprefix(f"{family.layers}.").partition(".")
        if path not in family.linears:
            raise ModelError(
                f"{name} ({type(module).__name__}) is not a known part of a {model_type} layer; known are "
                f"{', '.join(family.linears)}. Variants with adapters or experts are not supported."
            )
        linears.append(
            Linear(
                name=name,
                layer=int(index),
                part=family.linears[path],
                role=path.rsplit(".", 1)[-1],
                transposed=isinstance(module, Conv1D),
            )
        )
    return tuple(linears)
