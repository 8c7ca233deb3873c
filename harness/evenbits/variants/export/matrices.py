"""Packed matrices: a quantized matrix as the integers it is made of, its scales, and its FP16 remainder.

Shapes: O outputs, I inputs, N groups that share a scale, S weights of a group, K kept weights.

| code c of b bits, scale s, zero point z | value                                                            |
|-----------------------------------------|------------------------------------------------------------------|
| symmetric integers                      | (c - 2^(b-1)) s; c = 0, which such a grid never uses, is minus 0 |
| asymmetric integers                     | (c - z) s                                                        |
| NF4                                     | level c times s                                                  |

Rounding a small negative weight gives minus 0. It is kept apart so that weights come back byte for byte. Kept weights
replace what the codes say at their places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evenbits.errors import IntegrityError, SpecError
from evenbits.foreign import named
from evenbits.variants.export.packing import pack, packed_bytes, unpack
from evenbits.variants.quantization.grids import NF4_LEVELS, groups
from evenbits.variants.quantization.matrices import QuantizedMatrix
from evenbits.variants.quantization.spec import Grid

__all__ = ["PARTS", "PackedMatrix", "packed", "unpacked"]

STORED = {
    "codes": (torch.uint8,),
    "scales": (torch.float16,),
    "zeros": (torch.uint8,),
    "kept": (torch.int32, torch.int64),
    "kept_values": (torch.float16,),
}
PARTS = tuple(STORED)
EMPTY = {"kept": torch.empty(0, dtype=torch.int32), "kept_values": torch.empty(0, dtype=torch.float16)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedMatrix:
    """A matrix of `shape` O x I on `grid`.

    `codes`: packed bytes (`export.packing`), row by row. `scales` [N]: float16. `zeros` [N]: uint8, None where the
    grid is symmetric. `kept` [K]: flat indices into O x I, ascending, int32 (int64 beyond 2^31 weights). `kept_values`
    [K]: float16.
    """

    name: str
    shape: tuple[int, int]
    grid: Grid
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    kept: Tensor
    kept_values: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by the names of `PARTS`; parts that are empty or absent are left out."""
        found = {"codes": self.codes, "scales": self.scales, "zeros": self.zeros}
        if len(self.kept):
            found |= {"kept": self.kept, "kept_values": self.kept_values}
        return {part: tensor for part, tensor in found.items() if tensor is not None}

    @classmethod
    def of(cls, name: str, shape: tuple[int, int], grid: Grid, tensors: Mapping[str, Tensor]) -> PackedMatrix:
        """Return the matrix whose stored parts are `tensors`; `IntegrityError` names what they cannot be."""
        found = {**EMPTY, **tensors}
        wanted = {"codes", "scales", *tensors} | (set() if grid.symmetric else {"zeros"})
        for part in sorted(wanted):
            tensor, dtypes = found.get(part), STORED[part]
            if tensor is None or tensor.dtype not in dtypes or tensor.ndim != 1:
                raise _impossible(name, f"has no {part}, one axis of {' or '.join(map(str, dtypes))}")
        if grid.symmetric and "zeros" in tensors:
            raise _impossible(name, f"has zero points, which {grid} does not have")
        size, groups_N = shape[0] * shape[1], _group_count(name, shape, grid)
        _check_length(name, "codes", found["codes"], packed_bytes(size, grid.bits))
        _check_length(name, "scales", found["scales"], groups_N)
        if not grid.symmetric:
            _check_length(name, "zeros", found["zeros"], groups_N)
        _check_length(name, "kept_values", found["kept_values"], len(found["kept"]))
        for part in ("scales", "kept_values"):
            if not bool(found[part].isfinite().all()) or (part == "scales" and bool((found[part] < 0).any())):
                raise _impossible(name, f"has {part} that are no such numbers (NaN, infinity, a scale below 0)")
        kept = found["kept"].long()
        if len(kept) and (int(kept[0]) < 0 or int(kept[-1]) >= size or not bool((kept[1:] > kept[:-1]).all())):
            raise _impossible(name, f"keeps weights at places that are not ascending from 0 to {size - 1}, each once")
        return cls(
            name=name,
            shape=shape,
            grid=grid,
            codes=found["codes"],
            scales=found["scales"],
            zeros=found.get("zeros"),
            kept=found["kept"],
            kept_values=found["kept_values"],
        )


def _group_count(name: str, shape: tuple[int, int], grid: Grid) -> int:
    try:
        return grid.scales(shape)
    except SpecError as error:
        raise _impossible(name, f"is {shape[0]} x {shape[1]}, which {grid} cannot have ({error})") from error


def _check_length(name: str, part: str, tensor: Tensor, expected: int) -> None:
    if len(tensor) != expected:
        raise _impossible(name, f"has {len(tensor)} entries of {part} instead of {expected}")


def _impossible(name: str, what: str) -> IntegrityError:
    return IntegrityError(f"{named(name)} {what}: the quantized model is damaged; quantize it again")


def packed(matrix: QuantizedMatrix, grid: Grid) -> PackedMatrix:
    """Return `matrix` packed. `IntegrityError` where it would not come back byte for byte."""
    matrix = matrix.cpu()
    values_OI = matrix.values.clone()
    values_OI.view(-1)[matrix.kept] = 0  # the codes say nothing about kept weights
    steps_NS = groups(values_OI, grid) / matrix.scales.scale
    codes_NS = _codes(steps_NS, matrix.scales.zero, grid)
    size = values_OI.numel()
    found = PackedMatrix(
        name=matrix.name,
        shape=(values_OI.shape[0], values_OI.shape[1]),
        grid=grid,
        codes=torch.from_numpy(pack(codes_NS.view(-1).numpy(), grid.bits)),
        scales=matrix.scales.scale.view(-1).half(),
        zeros=None if matrix.scales.zero is None else matrix.scales.zero.view(-1).to(torch.uint8),
        kept=matrix.kept.to(torch.int32 if size <= 1 << 31 else torch.int64),
        kept_values=matrix.kept_values,
    )
    if not torch.equal(unpacked(found).view(torch.int32), matrix.values.contiguous().view(torch.int32)):
        raise IntegrityError(
            f"{matrix.name} cannot be packed without loss on the grid {grid}: some of its values are not on it. "
            "Nothing was written; please report this."
        )
    return found


def unpacked(matrix: PackedMatrix) -> Tensor:
    """Return the dequantized weights, O x I float32: the same bytes that were packed."""
    rows, columns = matrix.shape
    codes = torch.from_numpy(unpack(np.asarray(matrix.codes), rows * columns, matrix.grid.bits))
    values_OI = _steps(codes, matrix).view(len(matrix.scales), -1).mul_(matrix.scales.float()[:, None])
    values_OI = values_OI.view(rows, columns)
    values_OI.view(-1)[matrix.kept.long()] = matrix.kept_values.float()
    return values_OI


def _codes(steps_NS: Tensor, zero_N1: Tensor | None, grid: Grid) -> Tensor:
    """Return the codes (uint8) of values given in scales."""
    if grid.kind == "nf4":
        levels = torch.tensor(NF4_LEVELS)
        return torch.bucketize(steps_NS, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    if zero_N1 is not None:
        return (steps_NS.round() + zero_N1).to(torch.uint8)
    offset = 1 << (grid.bits - 1)
    minus_zero_NS = (steps_NS == 0) & steps_NS.signbit()
    return torch.where(minus_zero_NS, 0.0, steps_NS.round() + offset).to(torch.uint8)


def _steps(codes: Tensor, matrix: PackedMatrix) -> Tensor:
    """Return what the codes say, in scales, as float32."""
    if matrix.grid.kind == "nf4":
        return torch.tensor(NF4_LEVELS)[codes.long()]
    steps = codes.float()
    if matrix.zeros is not None:
        return steps.view(len(matrix.zeros), -1) - matrix.zeros.float()[:, None]
    steps -= 1 << (matrix.grid.bits - 1)
    steps[codes == 0] = -0.0
    return steps
