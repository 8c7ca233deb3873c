"""Clipping: shrink a group's range where that lowers its squared error.

For every group the ratios 1, .95, ..., .3 of its full range are tried; the one with the lowest (weighted) squared error
over the group wins, and the full range wins ties, so that clipping never makes the error larger. The search is that of
AWQ (arXiv 2306.00978, section 3), by weight error instead of by layer output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenbits.variants.quantization.grids import Ranges, Scales, block_of, groups, round_groups, scales_for
from evenbits.variants.quantization.spec import Grid

__all__ = ["CLIP_RATIOS", "clipped_scales"]

CLIP_RATIOS = tuple(step / 20 for step in range(20, 5, -1))
"""1, .95, ..., .3 of the full range; the error is flat around its minimum, so finer steps gain nothing."""


def clipped_scales(w_OI: Tensor, grid: Grid, *, weight_I: Tensor | None = None, name: str = "the matrix") -> Scales:
    """Return the scales of `grid` with the smallest squared error on `w_OI` (O x I, float32, contiguous).

    `weight_I`: how much the squared error of each input counts, such as its mean square activation; None: equally.
    `NonFiniteError` names the tensor `name` where it holds NaN or infinity.
    """
    w_NS = groups(w_OI, grid)
    weight_NS = None if weight_I is None else groups(weight_I.expand_as(w_OI).contiguous(), grid)
    step = max(1, block_of(w_OI) // w_NS.shape[1])
    ranges = Ranges(grid, name)
    parts = [
        _best(w_NS[start : start + step], None if weight_NS is None else weight_NS[start : start + step], grid, ranges)
        for start in range(0, len(w_NS), step)
    ]
    ranges.require_finite()
    zeros = [part.zero for part in parts if part.zero is not None]
    return Scales(scale=torch.cat([part.scale for part in parts]), zero=torch.cat(zeros) if zeros else None)


def _best(w_NS: Tensor, weight_NS: Tensor | None, grid: Grid, ranges: Ranges) -> Scales:
    low_N1, high_N1 = ranges.of(w_NS)
    out_NS = torch.empty_like(w_NS)
    best = scales_for(low_N1, high_N1, grid)
    best_error_N1 = _error(w_NS, weight_NS, best, grid, out_NS)
    for ratio in CLIP_RATIOS[1:]:
        tried = scales_for(low_N1 * ratio, high_N1 * ratio, grid)
        error_N1 = _error(w_NS, weight_NS, tried, grid, out_NS)
        better_N1 = error_N1 < best_error_N1
        best_error_N1 = torch.where(better_N1, error_N1, best_error_N1)
        zero_N1 = None
        if tried.zero is not None and best.zero is not None:
            zero_N1 = torch.where(better_N1, tried.zero, best.zero)
        best = Scales(scale=torch.where(better_N1, tried.scale, best.scale), zero=zero_N1)
    return best


def _error(w_NS: Tensor, weight_NS: Tensor | None, scales: Scales, grid: Grid, out_NS: Tensor) -> Tensor:
    """Return the squared error of each group, N x 1; `out_NS` is overwritten."""
    square_NS = round_groups(w_NS, scales, grid, out_NS=out_NS).sub_(w_NS).square_()
    if weight_NS is not None:
        square_NS.mul_(weight_NS)
    return square_NS.sum(1, keepdim=True)
