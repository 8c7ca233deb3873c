"""Quantized matrices: grid, clipping and retention put together, one weight matrix at a time.

Shapes: O outputs, I inputs, K kept weights. A *source* gives the checkpoint's own values of a module, O x I, in
whatever floating dtype holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evenbits.errors import NonFiniteError, SpecError
from evenbits.variants.quantization.clipping import clipped_scales
from evenbits.variants.quantization.grids import FP16_LARGEST, Scales, quantize
from evenbits.variants.quantization.importance import Importance
from evenbits.variants.quantization.planning import Plan, PlannedTensor
from evenbits.variants.quantization.retention import GlobalChoice, largest, retention_scores
from evenbits.variants.quantization.spec import Grid, QuantSpec

__all__ = ["QuantizedMatrix", "Source", "quantize_matrix", "quantize_planned"]

Source = Callable[[str], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedMatrix:
    """A weight matrix as it will be used, and what it is made of.

    `values`: O x I, dequantized, with the kept weights in place. `scales`: of the grid. `kept`: K flat indices
    (int64, ascending) into O x I. `kept_values`: their K FP16 values.
    """

    name: str
    values: Tensor
    scales: Scales
    kept: Tensor
    kept_values: Tensor

    def cpu(self) -> QuantizedMatrix:
        """Return the matrix in ordinary memory."""
        zero = None if self.scales.zero is None else self.scales.zero.cpu()
        return QuantizedMatrix(
            name=self.name,
            values=self.values.cpu(),
            scales=Scales(scale=self.scales.scale.cpu(), zero=zero),
            kept=self.kept.cpu(),
            kept_values=self.kept_values.cpu(),
        )


def quantize_matrix(
    w_OI: Tensor,
    grid: Grid,
    *,
    kept_K: Tensor | None = None,
    clip: bool = False,
    clip_weight_I: Tensor | None = None,
    refit: bool = True,
    dtype: torch.dtype = torch.float32,
    name: str = "the matrix",
) -> QuantizedMatrix:
    """Quantize `w_OI` (O x I; float32 where weights are kept or clipped) and put `kept_K` (flat indices) back in FP16.

    `dtype`: of the values, which are those of float32, rounded once more where it has fewer bits.

    With `refit` (the rule) the kept weights are taken out before the grid is fitted, so that the scale spans the rest;
    `refit=False` leaves the grid as it would be without retention, for comparison only. `clip` searches the range with
    the smallest squared error, the errors of each input weighted by `clip_weight_I`. `NonFiniteError` names `name`.
    A kept weight beyond FP16's range is saturated at 65504.
    """
    w_OI = w_OI.contiguous()
    kept_K = torch.empty(0, dtype=torch.int64, device=w_OI.device) if kept_K is None else kept_K
    kept_values_K = w_OI.view(-1)[kept_K].clamp(-FP16_LARGEST, FP16_LARGEST).half()
    if len(kept_K) and not bool(kept_values_K.isfinite().all()):
        raise NonFiniteError(f"{name} contains NaN among the weights to keep: check the checkpoint")
    rest_OI = w_OI
    if refit and len(kept_K):
        rest_OI = w_OI.clone()
        rest_OI.view(-1)[kept_K] = 0  # zero is inside every range, so it never widens one
    scales = clipped_scales(rest_OI, grid, weight_I=clip_weight_I, name=name) if clip else None
    rounded = quantize(rest_OI, grid, scales=scales, dtype=dtype, name=name)
    rounded.values.view(-1)[kept_K] = kept_values_K.float().to(dtype)
    return QuantizedMatrix(
        name=name,
        values=rounded.values,
        scales=rounded.scales,
        kept=kept_K,
        kept_values=kept_values_K,
    )


def quantize_planned(
    plan: Plan,
    source: Source,
    *,
    importance: Importance | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Iterator[QuantizedMatrix]:
    """Yield every quantized tensor of `plan`, in the plan's order, one in memory at a time.

    `importance`: the measurements that `plan.spec.needs` names; `SpecError` where one is missing, before the first
    tensor. `seed`: of random retention. `dtype`: of the values. With scope `global` the tensors are read twice.
    """
    if plan.spec.needs and importance is None:
        needed = " and ".join(sorted(plan.spec.needs))
        raise SpecError(f"spec {str(plan.spec)!r} needs measurements ({needed}), and none were given")
    _measure_first(plan, importance)
    choice = _choose_globally(plan, source, importance, seed)
    for tensor in plan.quantized:
        plain = choice is None and not tensor.kept and plan.spec.clip is None
        w_OI = _read(tensor, source, as_stored=plain)
        if choice is not None:
            kept_K: Tensor | None = choice.kept(tensor.name).to(w_OI.device)
        elif tensor.kept:
            kept_K = largest(_scores(plan.spec, tensor, w_OI, importance, seed), tensor.kept)
        else:
            kept_K = None
        yield quantize_matrix(
            w_OI,
            _grid(tensor),
            kept_K=kept_K,
            clip=plan.spec.clip is not None,
            clip_weight_I=_clip_weight(plan.spec, tensor, importance, w_OI),
            dtype=dtype,
            name=tensor.name,
        )


def _measure_first(plan: Plan, importance: Importance | None) -> None:
    """Ask for every measurement once before the first tensor is given.

    Whoever patches a model puts each tensor in as it comes, and what is measured on demand must see none of them. The
    first tensor alone would not do: where it keeps no weight, nothing is asked of it.
    """
    spec = plan.spec
    if importance is None or not spec.needs or not plan.quantized:
        return
    name = plan.quantized[0].name
    if spec.keep is not None:
        languages = spec.keep.languages or None
        if spec.keep.criterion == "activation":
            importance.input_rms(name, languages)
        elif spec.keep.criterion == "sensitivity":
            importance.gradient_square(name, languages)
        elif spec.keep.criterion == "superweight":
            importance.peaks(name)
    if spec.clip is not None and spec.clip.languages:
        importance.input_rms(name, spec.clip.languages)


def _choose_globally(plan: Plan, source: Source, importance: Importance | None, seed: int) -> GlobalChoice | None:
    if plan.kept_globally is None:
        return None
    choice = GlobalChoice(plan.kept_globally)
    for tensor in plan.quantized:
        choice.offer(tensor.name, _scores(plan.spec, tensor, _read(tensor, source), importance, seed))
    return choice


def _scores(spec: QuantSpec, tensor: PlannedTensor, w_OI: Tensor, importance: Importance | None, seed: int) -> Tensor:
    assert spec.keep is not None  # noqa: S101 - a plan that counts kept weights has a criterion

    def rounded() -> Tensor:
        weight_I = _clip_weight(spec, tensor, importance, w_OI)
        clip = spec.clip is not None
        return quantize_matrix(w_OI, _grid(tensor), clip=clip, clip_weight_I=weight_I, name=tensor.name).values

    scores = retention_scores(w_OI, spec.keep, name=tensor.name, rounded=rounded, importance=importance, seed=seed)
    if bool(scores.isnan().any()):
        raise NonFiniteError(
            f"{tensor.name}: the retention scores of {spec.keep} contain NaN: check the checkpoint and the measurements"
        )
    return scores


def _clip_weight(spec: QuantSpec, tensor: PlannedTensor, importance: Importance | None, w_OI: Tensor) -> Tensor | None:
    if spec.clip is None or not spec.clip.languages or importance is None:
        return None
    weight_I = importance.input_rms(tensor.name, spec.clip.languages).square()
    rows, columns = tensor.shape
    if weight_I.dim() == 2 and rows % len(weight_I) == 0:  # of each expert, whose rows lie one below the other
        weight_I = weight_I.repeat_interleave(rows // len(weight_I), dim=0)
    if weight_I.shape[-1] != columns or (weight_I.dim() == 2 and len(weight_I) != rows):
        raise SpecError(f"{tensor.name}: input second moments of shape {tuple(weight_I.shape)} for {columns} inputs")
    return weight_I.to(w_OI.device)


def _grid(tensor: PlannedTensor) -> Grid:
    assert tensor.grid is not None  # noqa: S101 - only quantized tensors are visited
    return tensor.grid


def _read(tensor: PlannedTensor, source: Source, *, as_stored: bool = False) -> Tensor:
    w_OI = source(tensor.name)
    if tuple(w_OI.shape) != tensor.shape:
        raise SpecError(f"{tensor.name}: the plan says {tensor.shape} (O x I), the weights have {tuple(w_OI.shape)}")
    return w_OI if as_stored else w_OI.float()
