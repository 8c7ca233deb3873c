"""Grids: round a matrix to integers or NF4 with FP16 scales. Pure functions on float32.

Shapes: O outputs, I inputs, N groups that share a scale, S weights of a group. A matrix is always O x I, row by row, so
the groups are a view N x S of it: N = 1 (tensor), N = O (row), N = O * I / size (group).

Rules (docs: Method, section 3), b bits:

- symmetric: q = 2^(b-1) - 1, scale = FP16(absmax / q), integers round(w / scale) to even, clamped to [-q, q];
- asymmetric: the range [min(w, 0), max(w, 0)] on [0, 2^b - 1], scale = FP16((max - min) / (2^b - 1)),
  zero = round(-min / scale), integers round(w / scale) + zero, clamped; the value is (integer - zero) * scale, so 0 is
  always exact;
- NF4: blocks divided by FP16(absmax) and rounded to the nearest of 16 published levels (ties to the lower level).

FP16 has a smallest and a largest positive number. A scale below 2^-24 (weights around 1e-7) becomes 2^-24, a scale
above 65504 becomes 65504: no scale is ever zero or infinite, an all-zero group stays zero, and weights that no FP16
scale can reach are clamped to the end of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evenbits.errors import NonFiniteError
from evenbits.variants.quantization.spec import Grid

__all__ = [
    "FP16_LARGEST",
    "FP16_SMALLEST",
    "NF4_LEVELS",
    "Ranges",
    "Rounded",
    "Scales",
    "extents",
    "groups",
    "quantize",
    "round_groups",
    "scales_for",
]

FP16_SMALLEST = 2.0**-24
FP16_LARGEST = 65504.0

NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The 16 levels of NF4: Dettmers et al. 2023, QLoRA, appendix E (arXiv 2305.14314)."""

BLOCK = 1 << 18
"""Weights handled at once: 1 MiB of float32, so that the passes over a block stay in the second-level cache."""

DEVICE_BLOCK = 1 << 26
"""On a GPU: 256 MiB, so that a matrix is one block, and the host waits for the device once."""


def block_of(tensor: Tensor) -> int:
    """Return how many weights are handled at once where `tensor` is."""
    return BLOCK if tensor.device.type == "cpu" else DEVICE_BLOCK


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """One scale per group.

    `scale`: N x 1 float32 numbers that FP16 holds exactly. `zero`: N x 1 float32 integers in [0, 2^b - 1] of an
    asymmetric grid, else None.
    """

    scale: Tensor
    zero: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """A matrix on its grid: `values` O x I float32 (dequantized) and the scales that were used."""

    values: Tensor
    scales: Scales


def groups(w_OI: Tensor, grid: Grid) -> Tensor:
    """Return the N x S view of a contiguous matrix whose rows share a scale; `SpecError` where groups do not divide."""
    count = grid.scales((w_OI.shape[0], w_OI.shape[1]))
    return w_OI.view(count, -1)


def extents(groups_NS: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest value (N x 1 each) that the grid must span; a symmetric range is mirrored."""
    if not grid.symmetric:
        low_N1, high_N1 = groups_NS.amin(1, keepdim=True), groups_NS.amax(1, keepdim=True)
        return low_N1.clamp_(max=0), high_N1.clamp_(min=0)
    high_N1 = groups_NS.abs().amax(1, keepdim=True)
    return -high_N1, high_N1


def scales_for(low_N1: Tensor, high_N1: Tensor, grid: Grid) -> Scales:
    """Return the scales that make the grid span [low, high], finite or not (see `Ranges`)."""
    steps, width_N1 = _steps(grid), _width(low_N1, high_N1, grid)
    # A GPU multiplies by the reciprocal of a number of the host, which changes some scales; by its own it divides.
    scale_N1 = (width_N1 / width_N1.new_full((), steps)).clamp_(FP16_SMALLEST, FP16_LARGEST).half().float()
    if grid.symmetric:
        return Scales(scale=scale_N1)
    return Scales(scale=scale_N1, zero=(-low_N1 / scale_N1).round_().clamp_(0, steps))


def _width(low_N1: Tensor, high_N1: Tensor, grid: Grid) -> Tensor:
    return high_N1 if grid.symmetric else high_N1 - low_N1


class Ranges:
    """Fits scales to blocks of one matrix, and remembers whether all that it saw was finite.

    That is asked for once, at the end: on a GPU every question makes the host wait for it.
    """

    def __init__(self, grid: Grid, name: str) -> None:
        self._grid, self._name = grid, name
        self._finite: list[Tensor] = []

    def of(self, groups_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Return `extents` of a block."""
        low_N1, high_N1 = extents(groups_NS, self._grid)
        self._finite.append(_width(low_N1, high_N1, self._grid).isfinite().all())
        return low_N1, high_N1

    def require_finite(self) -> None:
        """Raise `NonFiniteError`, naming the matrix, where a block held NaN or infinity."""
        if self._finite and not bool(torch.stack(self._finite).all()):
            raise NonFiniteError(
                f"{self._name} contains NaN, infinity or weights too large to subtract: it cannot be quantized. "
                "Check the checkpoint, or leave the module out with +protect."
            )


def _steps(grid: Grid) -> int:
    """Return how many scales lie between zero (symmetric) or the minimum (asymmetric) and the end of the grid."""
    if grid.kind == "nf4":
        return 1
    return (1 << (grid.bits - 1)) - 1 if grid.symmetric else (1 << grid.bits) - 1


def round_groups(groups_NS: Tensor, scales: Scales, grid: Grid, *, out_NS: Tensor) -> Tensor:
    """Write the nearest grid values of `groups_NS` (float32) into `out_NS` (float32, not overlapping) and return it."""
    torch.div(groups_NS, scales.scale, out=out_NS)
    if grid.kind == "nf4":
        _nearest_level(out_NS)
    elif scales.zero is None:
        out_NS.round_().clamp_(-_steps(grid), _steps(grid))
    else:
        # clamp(r + zero, 0, top) - zero, without leaving the integers
        out_NS.round_().add_(scales.zero).clamp_(0, _steps(grid)).sub_(scales.zero)
    return out_NS.mul_(scales.scale)


def quantize(
    w_OI: Tensor,
    grid: Grid,
    *,
    scales: Scales | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "the matrix",
) -> Rounded:
    """Round `w_OI` (O x I, of any floating dtype) to `grid` and return the dequantized values with their scales.

    Computed in float32, a block at a time, so that neither the weights nor the values exist in float32 as a whole where
    both have fewer bits. `scales`: use these instead of fitting them to `w_OI` (after clipping). `dtype`: of the
    values. `name` is the tensor that `NonFiniteError` names. `w_OI` is not changed.
    """
    w_OI = w_OI.contiguous()
    out_OI = torch.empty_like(w_OI, dtype=dtype)
    w_NS, out_NS = groups(w_OI, grid), groups(out_OI, grid)
    block_size = block_of(w_OI)
    ranges = Ranges(grid, name)
    if scales is None and len(w_NS) * block_size < w_NS.numel():  # few, long groups: fit first, then round by blocks
        scales = scales_for(*ranges.of(w_NS.float()), grid)
    if scales is not None and len(w_NS) == 1:
        for w_1B, out_1B in zip(
            torch.split(w_NS, block_size, dim=1), torch.split(out_NS, block_size, dim=1), strict=True
        ):
            _put_rounded(w_1B.float(), scales, grid, out_1B)
        ranges.require_finite()
        return Rounded(values=out_OI, scales=scales)
    step = max(1, block_size // w_NS.shape[1])
    fitted = []
    for start in range(0, len(w_NS), step):
        block = slice(start, start + step)
        w_BS, out_BS = w_NS[block].float(), out_NS[block]
        if scales is None:
            here = scales_for(*ranges.of(w_BS), grid)
            fitted.append(here)
        else:
            zero_N1 = None if scales.zero is None else scales.zero[block]
            here = Scales(scale=scales.scale[block], zero=zero_N1)
        _put_rounded(w_BS, here, grid, out_BS)
    ranges.require_finite()
    return Rounded(values=out_OI, scales=_joined(fitted) if scales is None else scales)


def _put_rounded(w_BS: Tensor, scales: Scales, grid: Grid, out_BS: Tensor) -> None:
    """Write the rounded block into `out_BS`, by way of float32 where that is of another dtype."""
    if out_BS.dtype == torch.float32:
        round_groups(w_BS, scales, grid, out_NS=out_BS)
    else:
        out_BS.copy_(round_groups(w_BS, scales, grid, out_NS=torch.empty_like(w_BS)))


def _joined(parts: list[Scales]) -> Scales:
    zeros = [part.zero for part in parts if part.zero is not None]
    return Scales(scale=torch.cat([part.scale for part in parts]), zero=torch.cat(zeros) if zeros else None)


_LEVELS = torch.tensor(NF4_LEVELS, dtype=torch.float32)
_BETWEEN = (_LEVELS[1:] + _LEVELS[:-1]) / 2
_CELLS = 64
"""[-1, 1] in 64 equal cells: none holds two of the 15 midpoints between levels, the closest of which are .074 apart,
and no midpoint is within 1e-4 of a cell's edge, so the rounding of the cell number cannot matter.
"""


def _cell_tables() -> tuple[Tensor, Tensor]:
    """Return, for each cell, the level at its lower edge and the midpoint inside it (infinity where there is none)."""
    edges = torch.arange(_CELLS + 1, dtype=torch.float32) / (_CELLS / 2) - 1
    first = torch.bucketize(edges[:-1], _BETWEEN, out_int32=True)
    last = torch.bucketize(edges[1:], _BETWEEN, out_int32=True)
    inside = torch.where(last > first, _BETWEEN[first.clamp(max=len(_BETWEEN) - 1)], torch.inf)
    return first, inside


_CELL_LEVEL, _CELL_MIDPOINT = _cell_tables()


def _nearest_level(x_NS: Tensor) -> None:
    """Replace numbers (clamped to [-1, 1]) by the nearest NF4 level, in place.

    A table look-up and one comparison per number: four times as fast as a binary search over the midpoints.
    """
    cell = x_NS.clamp(-1, 1).add_(1).mul_(_CELLS / 2).to(torch.int32).clamp_(0, _CELLS - 1).view(-1)  # of NaN, too
    level = _CELL_LEVEL.to(x_NS.device).index_select(0, cell)
    midpoint = _CELL_MIDPOINT.to(x_NS.device).index_select(0, cell)
    level.add_(x_NS.reshape(-1) > midpoint)
    x_NS.copy_(_LEVELS.to(x_NS.device).index_select(0, level).view_as(x_NS))
