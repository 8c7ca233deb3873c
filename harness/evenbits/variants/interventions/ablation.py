"""Ablation: a model without some of its layers or heads for a while; every byte is put back afterwards.

Single weights are ablated by `evenbits.variants.quantization.patching.zeroed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenbits.errors import UsageError
from evenbits.models.layout import text_config
from evenbits.variants.quantization.patching import patched

if TYPE_CHECKING:
    from evenbits.models import LoadedModel

__all__ = ["without_heads", "without_layers"]


@contextmanager
def without_layers(loaded: LoadedModel, layers: Iterable[int]) -> Iterator[None]:
    """Let decoder layers write nothing into the residual stream while the context lasts: they become the identity.

    Both products that write into the stream are zero, their biases too. `UsageError` for a layer that does not exist.
    """
    zero: dict[str, Tensor] = {}
    for layer in layers:
        block = loaded.anatomy.blocks[_layer(loaded, layer)]
        for name in (block.attention_output, block.mlp_product):
            for kind, parameter in loaded.model.get_submodule(name).named_parameters(recurse=False):
                zero[f"{name}.{kind}"] = torch.zeros_like(parameter)
    with patched(loaded, zero):
        yield


@contextmanager
def without_heads(loaded: LoadedModel, heads: Mapping[int, Iterable[int]]) -> Iterator[None]:
    """Let attention heads, given by layer, contribute nothing while the context lasts.

    The columns of the output product that read a head are zero; its bias, which belongs to no head, stays.
    `UsageError` for a layer or head that does not exist.
    """
    count = int(text_config(loaded.model).num_attention_heads)
    zero: dict[str, Tensor] = {}
    for layer, chosen in heads.items():
        name = loaded.anatomy.blocks[_layer(loaded, layer)].attention_output
        linear = loaded.anatomy.product(name)
        w_OI = linear.matrix(loaded.model.get_parameter(linear.parameter).detach()).contiguous().clone()
        by_head = w_OI.view(w_OI.shape[0], count, -1)
        for head in chosen:
            if not 0 <= head < count:
                raise UsageError(f"layer {layer} has heads 0 to {count - 1}, got {head}")
            by_head[:, head] = 0
        zero[name] = w_OI
    with patched(loaded, zero):
        yield


def _layer(loaded: LoadedModel, layer: int) -> int:
    if not 0 <= layer < len(loaded.anatomy.blocks):
        raise UsageError(f"the model has layers 0 to {len(loaded.anatomy.blocks) - 1}, got {layer}")
    return layer
