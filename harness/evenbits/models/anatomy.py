"""Anatomy: where the parts of a decoder-only language model are, as module paths. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Anatomy", "Block", "Linear", "Part"]

Part = Literal["attention", "mlp", "head", "projection"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A matrix product of the model.

    `name`: module path, e.g. `model.layers.0.self_attn.q_proj`. `layer`: index of its decoder layer, None outside.
    `part`: attention, mlp, head, or projection (between embedding width and model width, OPT). `role`: its name inside
    the layer, e.g. `q_proj`. `transposed`: the weight is stored input x output (GPT-2's Conv1D) instead of
    output x input.
    """

    name: str
    layer: int | None
    part: Part
    role: str
    transposed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A decoder layer.

    `attention`: path of the attention module. `mlp`: path of the feed-forward module; None where the feed-forward
    products stand directly in the layer (OPT, XGLM). `attention_output` and `mlp_output`: the products that write into
    the residual stream (o_proj, down_proj).
    """

    index: int
    name: str
    attention: str
    mlp: str | None
    attention_output: str
    mlp_output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """Module paths of one model.

    `layers`: decoder layers, in order; `blocks`: the same with their parts. `linears`: the products inside decoder
    layers, in the model's order. `head`: the product that gives logits; `tied`: it shares the embedding's weight.
    `final_norm`: None where the model has none (OPT with post-layer norm). `projections`: products outside the layers
    other than the head.
    """

    model_type: str
    layers: tuple[str, ...]
    blocks: tuple[Block, ...]
    linears: tuple[Linear, ...]
    embedding: str
    head: str
    final_norm: str | None
    tied: bool
    projections: tuple[Linear, ...] = ()

    @property
    def head_linear(self) -> Linear:
        """The head as a `Linear`."""
        return Linear(name=self.head, layer=None, part="head", role=self.head.rsplit(".", 1)[-1])

    def linears_of(self, layer: int) -> tuple[Linear, ...]:
        """Products of decoder layer `layer`."""
        return tuple(linear for linear in self.linears if linear.layer == layer)
