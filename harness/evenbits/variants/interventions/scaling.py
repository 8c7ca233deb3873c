"""Function-preserving rescaling: outliers by dose, or less of them.

A channel between two products can be multiplied by s where it is produced and divided by s where it is consumed: the
input of an MLP's down projection (produced by `up_proj`), and a channel of an attention value (`v_proj`, consumed by
`o_proj` once for each query head that reads it). What the model computes stays equal; exactly so, but for the rounding
of sums, where s is a power of two. Source of the idea: cross-layer equalization, Nagel et al. 2019 (arXiv 1906.04721).

Legend: F channels of an MLP, G x E value channels; W of a product is out x in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenbits.errors import UsageError
from evenbits.variants.interventions.shape import LlamaShape

__all__ = ["Channels", "Into", "rescaled"]

Into = Literal["producer", "consumer"]
IntArray = NDArray[np.int64]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Channels:
    """Channels to rescale, by layer: `mlp` places in 0..F-1, `value` places in 0..G*E-1."""

    mlp: Mapping[int, IntArray] = field(default_factory=dict)
    value: Mapping[int, IntArray] = field(default_factory=dict)


def rescaled(weights: Weights, shape: LlamaShape, channels: Channels, *, dose: float, into: Into) -> dict[str, Tensor]:
    """Return `weights` with the channels multiplied by `dose` on one side and divided on the other.

    `into="producer"`: rows of up_proj and v_proj grow, and columns of down_proj and o_proj shrink. Rows have scales of
    their own, so it is the shrunken columns that a grid fitted to whole rows loses: damage falls on whoever uses these
    channels. `into="consumer"`: columns of down_proj and o_proj grow and widen the grid of every row that they cross:
    damage falls on everybody. A dose below 1 takes outliers away; 1 changes nothing.

    `weights`: all parameters by name, as `weights_of` gives them; those that are not touched are the same tensors.
    Raises `UsageError` for a dose that is not positive and finite, and for a channel or layer that does not exist.
    """
    if not (math.isfinite(dose) and dose > 0):
        raise UsageError(f"a dose is a positive finite number, got {dose}")
    found = dict(weights)
    factor = dose if into == "producer" else 1 / dose
    for pairs, kind in ((channels.mlp, "mlp"), (channels.value, "value")):
        for layer, places in pairs.items():
            scale = torch.ones(_size(found, shape, layer, kind), dtype=torch.float64)
            if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(scale):
                raise UsageError(f"layer {layer} has {kind} channels 0 to {len(scale) - 1}, got {int(places.max())}")
            scale[torch.as_tensor(places)] = factor
            _scale(found, shape, layer, kind, scale)
    return found


def _pair(shape: LlamaShape, layer: int, kind: str) -> tuple[str, str]:
    """Return the module paths of producer and consumer."""
    if not 0 <= layer < shape.layers:
        raise UsageError(f"the model has layers 0 to {shape.layers - 1}, got {layer}")
    block = shape.anatomy.blocks[layer]
    return (
        (f"{block.mlp}.up_proj", block.mlp_product)
        if kind == "mlp"
        else (f"{block.attention}.v_proj", block.attention_product)
    )


def _size(weights: Weights, shape: LlamaShape, layer: int, kind: str) -> int:
    return int(weights[f"{_pair(shape, layer, kind)[0]}.weight"].shape[0])


def _scale(weights: dict[str, Tensor], shape: LlamaShape, layer: int, kind: str, scale: Tensor) -> None:
    """Multiply producer rows (and bias) by `scale`, divide what the consumer reads by it; products in float64."""
    producer, consumer = _pair(shape, layer, kind)
    spread = scale
    if kind == "value":  # query heads of one value head stand beside each other
        by_head = scale.reshape(shape.value_heads, 1, shape.head_width)
        spread = by_head.expand(-1, shape.queries_per_value, -1).reshape(-1)
    for name, factor in (
        (f"{producer}.weight", scale[:, None]),
        (f"{producer}.bias", scale),
        (f"{consumer}.weight", 1 / spread[None, :]),
    ):
        if name in weights:
            old = weights[name]
            weights[name] = (old.double() * factor).to(old.dtype)
