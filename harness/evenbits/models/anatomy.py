"""Anatomy: where the parts of a decoder-only language model are, as module paths. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evenbits.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Anatomy", "Block", "Linear", "Part"]

FED = ("down_proj", "output_linear")
"""Roles by which experts, and shared experts beside them, write into the residual stream."""

HEADLESS = (".linear_attn", ".mamba", ".conv")
"""Endings of the paths of parts that mix tokens without heads of attention; a product called `in_proj` says so, too."""

Part = Literal["attention", "mlp", "head", "projection"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A matrix product of the model, or the products of all experts of a layer where they share one parameter.

    `name`: module path, e.g. `model.layers.0.self_attn.q_proj`; of fused experts the parameter's own path. `layer`:
    index of its decoder layer, None outside. `part`: attention (whatever mixes tokens), mlp, head, or projection
    (between embedding width and model width, OPT). `role`: its name inside the layer, e.g. `q_proj`. `transposed`: the
    weight is stored input x output (GPT-2's Conv1D) instead of output x input. `experts`: how many matrices lie in the
    parameter one after another, 0 for an ordinary product.
    """

    name: str
    layer: int | None
    part: Part
    role: str
    transposed: bool = False
    experts: int = 0

    @property
    def parameter(self) -> str:
        """Path of the weight among the model's parameters."""
        return self.name if self.experts else f"{self.name}.weight"

    def matrix(self, stored: Tensor) -> Tensor:
        """Return the weight as O x I, given as the model stores it; experts lie below one another, E * O rows."""
        if not self.experts:
            return stored.t() if self.transposed else stored
        w_EOI = stored.transpose(1, 2) if self.transposed else stored
        return w_EOI.reshape(-1, w_EOI.shape[2])

    def stored(self, w_OI: Tensor) -> Tensor:
        """Return the O x I weight as the model stores it: the reverse of `matrix`."""
        if not self.experts:
            return w_OI.t() if self.transposed else w_OI
        w_EOI = w_OI.reshape(self.experts, -1, w_OI.shape[1])
        return w_EOI.transpose(1, 2) if self.transposed else w_EOI


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A decoder layer.

    `attention`: path of the module that mixes tokens (attention, or what stands in its place); None where a layer is a
    feed-forward part alone (Nemotron-H). `mlp`: path of the feed-forward module; None where the feed-forward products
    stand directly in the layer (OPT, XGLM), or where there is none. `attention_output`: the product that writes into
    the residual stream (o_proj). `mlp_output`: the same of the feed-forward part (down_proj); None where no single
    product does (experts, or no feed-forward part).
    """

    index: int
    name: str
    attention: str | None
    mlp: str | None
    attention_output: str | None
    mlp_output: str | None

    @property
    def attention_product(self) -> str:
        """The product by which attention writes; `ModelError` where the layer has no attention."""
        if self.attention_output is None:
            raise ModelError(f"{self.name} has no part that mixes tokens, so this measurement is not defined for it.")
        return self.attention_output

    @property
    def mlp_product(self) -> str:
        """The product by which the feed-forward part writes; `ModelError` where there is no single one."""
        if self.mlp_output is None:
            raise ModelError(
                f"{self.name} has no single product by which its feed-forward part writes into the residual stream (it "
                "has experts, or no such part), so this measurement is not defined for it."
            )
        return self.mlp_output


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """Module paths of one model.

    `layers`: decoder layers, in order; `blocks`: the same with their parts. `linears`: the products inside decoder
    layers, in the model's order. `kept`: paths of the other parameters of two and more dimensions in the layers, which
    stay in high precision by rule (routers, convolutions, gates of one number per head, biases of experts).
    `embedding`: where tokens become vectors. `head`: the product that gives logits; `tied`: it shares the embedding's
    weight. `final_norm`: None where the model has none (OPT with post-layer norm). `projections`: products of the
    decoder outside the layers other than the head.
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
    kept: tuple[str, ...] = ()

    @property
    def head_linear(self) -> Linear:
        """The head as a `Linear`."""
        return Linear(name=self.head, layer=None, part="head", role=self.head.rsplit(".", 1)[-1])

    @property
    def has_experts(self) -> bool:
        """Whether a layer holds fused experts, whose products are no modules of their own."""
        return any(linear.experts for linear in self.linears)

    def linears_of(self, layer: int) -> tuple[Linear, ...]:
        """Products of decoder layer `layer`."""
        return tuple(linear for linear in self.linears if linear.layer == layer)

    def attending(self) -> tuple[Linear, ...]:
        """Return the products by which attention writes, of the layers in which heads of attention mix tokens.

        A state space, a convolution or linear attention has no such heads.
        """
        found = []
        for block in self.blocks:
            if block.attention is None or block.attention.endswith(HEADLESS):
                continue
            inside = [one for one in self.linears_of(block.index) if one.name.startswith(f"{block.attention}.")]
            if not any(one.role.startswith("in_proj") for one in inside):
                found.append(self.product(block.attention_product))
        return tuple(found)

    def feeding(self) -> tuple[tuple[int, Linear], ...]:
        """Return layer and product of each by which feed-forward parts write: one a layer, or of experts and beside.

        Layers without such a part are left out; `ModelError` where what one writes by is not known.
        """
        found: list[tuple[int, Linear]] = []
        for block in self.blocks:
            among = [linear for linear in self.linears_of(block.index) if linear.part == "mlp"]
            if not among:
                continue
            of_experts = [one for one in among if one.role in FED] if block.mlp_output is None else []
            found += [(block.index, one) for one in of_experts or [self.product(block.mlp_product)]]
        return tuple(found)

    def product(self, name: str) -> Linear:
        """Return the product called `name`; embedding and head count as plain ones, stored output x input."""
        for linear in self.linears:
            if linear.name == name:
                return linear
        return Linear(name=name, layer=None, part="head", role=name.rsplit(".", 1)[-1])
