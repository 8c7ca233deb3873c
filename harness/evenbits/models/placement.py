"""Placement: a model whose weights one device has no room for lies on several, a run of neighbouring layers on each.

What stands outside the layers (embedding, final norm, head) is on the first device, and so are hidden states before the
first layer and after the last. Whoever runs layers lets them be called; the lean forward moves its rows itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from evenbits.models.anatomy import Anatomy

__all__ = ["Carrier", "homes_of", "spread"]


class Carrier:
    """A hook that brings what a layer is given to `home`; it changes no number."""

    def __init__(self, home: torch.device) -> None:
        self.home = home

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.carried(args), self.carried(kwargs)

    def returned(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        """Bring what the last layer gives to where the rest of the model is."""
        return self.carried(output)

    def carried(self, value: Any) -> Any:
        """Return `value` with its tensors at home; mappings that layers share stay the same objects."""
        if isinstance(value, torch.Tensor):
            return value.to(self.home)
        if isinstance(value, tuple):
            return tuple(self.carried(one) for one in value)
        if isinstance(value, dict):
            for name, one in value.items():
                value[name] = self.carried(one)
        return value


def homes_of(outside: int, layers: Sequence[int], names: Sequence[str]) -> list[str]:
    """Return the device of each layer, given the bytes of what stands outside and of every layer.

    A layer goes to the device on which the middle of its bytes falls where all of them are laid out in a row of equal
    parts, `outside` first.
    """
    share = max(1.0, (outside + sum(layers)) / len(names))
    homes, before = [], float(outside)
    for size in layers:
        homes.append(names[min(len(names) - 1, int((before + size / 2) / share))])
        before += size
    return homes


def spread(model: nn.Module, anatomy: Anatomy, names: Sequence[str]) -> None:
    """Move the layers of `model` to the devices called `names`, everything else to the first of them."""
    layers: Mapping[str, nn.Module] = {name: model.get_submodule(name) for name in anatomy.layers}
    sizes = [sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers.values()]
    outside = sum(parameter.nbytes for parameter in model.parameters()) - sum(sizes)
    homes = homes_of(outside, sizes, names)
    for (name, layer), home in zip(layers.items(), homes, strict=True):
        layer.to(home)
        layer.register_forward_pre_hook(Carrier(torch.device(home)), with_kwargs=True)
        model.set_submodule(name, nn.Identity())
    model.to(names[0])
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    model.get_submodule(anatomy.layers[-1]).register_forward_hook(Carrier(torch.device(names[0])).returned)
