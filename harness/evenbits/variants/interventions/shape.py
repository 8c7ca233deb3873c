"""What the algebra of an intervention needs to know of a model, and which models it holds for.

Legend: D width of the residual stream, F channels of an MLP, H query heads, G key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evenbits.errors import ModelError
from evenbits.models.anatomy import Anatomy

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["ROTATABLE", "SCALABLE", "LlamaShape", "llama_shape"]

SCALABLE = frozenset({"llama", "qwen2", "qwen3", "gemma3_text", "smollm3", "olmo2"})
"""MLP = down(act(gate x) * up x), values reach the output product linearly: both pairs can be rescaled."""

ROTATABLE = frozenset({"llama", "qwen2", "qwen3", "smollm3"})
"""Only RMS norms before each part touch the stream, with a gain that folds into the products that read it. gemma3
scales its embedding and adds 1 to its gains, olmo2 norms after each part: a rotation does not pass through these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaShape:
    """Sizes of a llama-like model."""

    anatomy: Anatomy
    heads: int
    value_heads: int
    head_width: int

    @property
    def queries_per_value(self) -> int:
        """Query heads that read one value head."""
        return self.heads // self.value_heads

    @property
    def layers(self) -> int:
        return len(self.anatomy.blocks)


def llama_shape(anatomy: Anatomy, config: PretrainedConfig, *, needs: frozenset[str], what: str) -> LlamaShape:
    """Return the sizes; `ModelError` where `what` does not preserve the function of this architecture."""
    if anatomy.model_type not in needs:
        raise ModelError(
            f"{what} would change what a {anatomy.model_type} model computes; it is for {', '.join(sorted(needs))}."
        )
    heads = int(config.num_attention_heads)
    return LlamaShape(
        anatomy=anatomy,
        heads=heads,
        value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_width=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
    )
