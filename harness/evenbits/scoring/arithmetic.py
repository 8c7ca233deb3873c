"""How products of bfloat16 weights are computed on the machine at hand.

With instructions for it (AMX, or AVX-512's dot product of bfloat16) a CPU multiplies bfloat16 two to nine times faster
than float32, and so does a GPU. Without them the products are put together from float32's at about half the speed, so
there those of a bfloat16 model run in float32 on the same weights: faster, and with less rounding.

Sums are kept in float64 where they are taken, and on the CPU where a device has no float64 (Apple's GPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from evenbits.models.device import multiplies_bfloat16

__all__ = [
    "WidenedAttention",
    "WidenedProducts",
    "home_of_sums",
    "in_float64",
    "product_dtype",
    "products_for",
    "widened",
]


class WidenedAttention(TorchFunctionMode):
    """While entered, attention of bfloat16 runs in float32 and is rounded back.

    On a CPU the backward pass of torch's fused kernel takes three to four times as long in bfloat16 for sequences up to
    a hundred tokens, and as long for a thousand.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        named = dict(kwargs or {})
        if func is not functional.scaled_dot_product_attention or not any(map(_is_bfloat16, (*args, *named.values()))):
            return func(*args, **named)
        wide = {name: _wide(value) for name, value in named.items()}
        return func(*map(_wide, args), **wide).to(torch.bfloat16)


class WidenedProducts(TorchFunctionMode):
    """While entered, `linear` and `addmm` with bfloat16 weights multiply in float32.

    The result has the dtype of the input: bfloat16 activations are rounded back, float32 activations stay float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        place = _INPUT.get(func)
        if place is None or kwargs or any(_is_foreign(arg) for arg in args) or not any(map(_is_bfloat16, args)):
            return func(*args, **(kwargs or {}))
        result = func(*map(_wide, args))
        return result.to(args[place].dtype)


WIDENED_BYTES = 2 * 2**30
"""Most memory that float32 copies of weights may take; weights beyond it are widened anew at every product."""

_widened: MutableMapping[torch.Tensor, tuple[int, torch.Tensor]] = WeakIdKeyDictionary()


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` in float32; the copy of a parameter is kept as long as the parameter lives unchanged.

    A short text costs less than widening a model's weights, and a run scores thousands of short texts.
    """
    if not isinstance(tensor, torch.nn.Parameter):
        return tensor.float()
    kept = _widened.get(tensor)
    version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch has no public counter
    if kept is not None and kept[0] == version:
        return kept[1]
    copy = tensor.detach().float()
    held = sum(other.nbytes for _, other in _widened.values())
    if held + copy.nbytes <= WIDENED_BYTES:
        _widened[tensor] = (version, copy)
    return copy


_INPUT = {functional.linear: 0, torch.addmm: 1}
"""Products by the place of their activations among the arguments; Conv1D of GPT-2 calls `addmm(bias, x, weight)`."""


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16


def _wide(value: Any) -> Any:
    return widened(value) if _is_bfloat16(value) else value


def _is_foreign(value: Any) -> bool:
    """Return whether `value` is a library's own kind of tensor, whose products are its own business."""
    return isinstance(value, torch.Tensor) and type(value) not in {torch.Tensor, torch.nn.Parameter}


@cache
def home_of_sums(device: torch.device) -> torch.device:
    """Return where float64 sums of what `device` computes are kept: there, or on the CPU where it has no float64."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except TypeError:
        return torch.device("cpu")
    return device


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` in float64, where sums of its device are kept."""
    return tensor.to(home_of_sums(tensor.device)).double()


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a model of `dtype` on `device` multiplies fastest."""
    if dtype is torch.bfloat16 and device.type == "cpu" and not multiplies_bfloat16():
        return torch.float32
    return dtype


def products_for(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context under which the products of such a model run in `product_dtype`."""
    return nullcontext() if product_dtype(dtype, device) is dtype else WidenedProducts()
