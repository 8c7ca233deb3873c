"""Reading one weight matrix of a checkpoint in pieces, always as out x in, never whole.

Shapes: w_OI is out x in; a piece is a run of rows, w_RI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import ModelError
from evenbits.models import checkpoint

__all__ = ["ArrayMatrix", "Matrix", "StackedMatrix", "StoredMatrix"]

PIECE_ELEMENTS = 4 * 1024 * 1024
"""Weights read at a time (16 MiB in float32): large enough that opening the file costs nothing, small in memory."""

READABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Matrix(Protocol):
    """A weight matrix that can be read in runs of rows, as often as needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), whatever the order on disk."""
        ...

    @property
    def dtype(self) -> torch.dtype: ...

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the rows from first to last as contiguous tensors [R, in] of `dtype`."""
        ...


class ArrayMatrix:
    """A matrix already in memory: `weight` [O, I], or [I, O] where `transposed` (GPT-2's Conv1D)."""

    def __init__(self, name: str, weight: torch.Tensor | NDArray[np.float32], *, transposed: bool = False) -> None:
        tensor = torch.from_numpy(weight) if isinstance(weight, np.ndarray) else weight.detach()
        _require_readable(name, tuple(tensor.shape), tensor.dtype)
        self._tensor = tensor.T if transposed else tensor
        self.shape = (int(self._tensor.shape[0]), int(self._tensor.shape[1]))
        self.dtype = tensor.dtype

    def pieces(self) -> Iterator[torch.Tensor]:
        for start, stop in _runs(self.shape):
            yield self._tensor[start:stop].contiguous()


class StoredMatrix:
    """The matrix stored as `tensor` in the checkpoint `folder`, [O, I], or [I, O] where `transposed`.

    `expert`: the tensor holds one such matrix for each expert, and this is the number of the one that is meant.

    Touched pages of a memory map count as the process's memory for as long as the map lives; every piece has a map of
    its own, so that peak memory is one piece whatever the size of the checkpoint.
    """

    def __init__(self, folder: Path, tensor: str, *, transposed: bool = False, expert: int | None = None) -> None:
        self._folder, self._tensor, self._transposed, self._expert = folder, tensor, transposed, expert
        stored = self._read()
        _require_readable(tensor, tuple(stored.shape), stored.dtype)
        rows, columns = int(stored.shape[0]), int(stored.shape[1])
        self.shape = (columns, rows) if transposed else (rows, columns)
        self.size = rows * columns
        self.dtype = stored.dtype

    def pieces(self) -> Iterator[torch.Tensor]:
        for start, stop in _runs(self.shape):
            if self._transposed:
                yield self._read()[:, start:stop].T.contiguous()
            elif self._expert is not None:
                yield self._read()[start:stop]
            else:
                yield checkpoint.read(self._folder, self._tensor, rows=slice(start, stop))

    def _read(self) -> torch.Tensor:
        if self._expert is None:
            return checkpoint.read(self._folder, self._tensor)
        return checkpoint.read(self._folder, self._tensor, rows=slice(self._expert, self._expert + 1))[0]


class StackedMatrix:
    """The matrices of all experts of a layer, one below the other."""

    def __init__(self, matrices: Sequence[StoredMatrix]) -> None:
        columns = {matrix.shape[1] for matrix in matrices}
        if len(columns) != 1:
            raise ModelError(
                f"experts of one product read {', '.join(map(str, sorted(columns)))} inputs, not all the same"
            )
        self._matrices = matrices
        self.shape = (sum(matrix.shape[0] for matrix in matrices), columns.pop())
        self.size = self.shape[0] * self.shape[1]
        self.dtype = matrices[0].dtype

    def pieces(self) -> Iterator[torch.Tensor]:
        for matrix in self._matrices:
            yield from matrix.pieces()


def _runs(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    step = max(1, PIECE_ELEMENTS // shape[1])
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _require_readable(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if len(shape) != 2 or 0 in shape:
        raise ModelError(f"{name} has shape {shape}; weight statistics are defined for non-empty matrices (out x in).")
    if dtype not in READABLE:
        raise ModelError(
            f"{name} is stored as {dtype}; weights must be floating point (float32, float16, bfloat16). "
            "Use the checkpoint from before quantization."
        )
