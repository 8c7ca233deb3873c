"""Measuring a checkpoint's weight matrices.

Each matrix is walked in pieces from its file: once for moments and row order, once for the tails and once (or once per
range of magnitude) for the order of all its weights. No model is loaded.

Shapes: w_OI is out x in; x_RI is a block of its rows, a_RI their magnitudes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError
from evenbits.observe.weights.checkpoint import Place
from evenbits.observe.weights.magnitudes import hoyer, spread_of, spread_of_sorted_rows
from evenbits.observe.weights.matrix import ArrayMatrix, Matrix, StackedMatrix, StoredMatrix
from evenbits.observe.weights.moments import Moments, PowerSums, matrix_moments, moments_of
from evenbits.observe.weights.statistics import SIGMAS, SigmaCount, TensorStatistics

__all__ = ["matrix_statistics", "measured"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HELD_ELEMENTS = 4 * 1024 * 1024
"""Matrices up to this size (16 MiB) are read once and kept while they are measured."""
BLOCK_ELEMENTS = 48 * 1024
"""Weights per block: its four float64 powers fill 1.5 MiB and stay in the second-level cache."""


class _Workspace(threading.local):
    """Scratch memory of each thread, kept from matrix to matrix: fresh pages cost as much as a walk over them."""

    def __init__(self) -> None:
        self._powers = np.empty(0)
        self._magnitudes = np.empty(0, dtype=np.float32)
        self.sorting = np.empty(HELD_ELEMENTS, dtype=np.float32)

    def blocks(self, rows: int, columns: int) -> tuple[Float64, Float32]:
        """Return room for four powers [4, rows, columns] and for magnitudes [rows, columns]."""
        size = rows * columns
        if self._magnitudes.size < size:
            self._powers, self._magnitudes = np.empty(4 * size), np.empty(size, dtype=np.float32)
        return self._powers[: 4 * size].reshape(4, rows, columns), self._magnitudes[:size].reshape(rows, columns)


_workspace = _Workspace()


def measured(folder: Path, place: Place) -> TensorStatistics:
    """Return the statistics of the matrix at `place` in the checkpoint `folder`."""
    return matrix_statistics(
        _matrix(folder, place), name=place.name, layer=place.layer, part=place.part, role=place.role
    )


def _matrix(folder: Path, place: Place) -> StoredMatrix | StackedMatrix:
    if place.rows:
        return StackedMatrix([StoredMatrix(folder, tensor) for tensor in place.rows])
    if place.experts:
        numbers = range(place.experts)
        return StackedMatrix(
            [StoredMatrix(folder, place.tensor, transposed=place.transposed, expert=number) for number in numbers]
        )
    return StoredMatrix(folder, place.tensor, transposed=place.transposed)


def matrix_statistics(matrix: Matrix, *, name: str, layer: int | None, part: str, role: str) -> TensorStatistics:
    """Return the statistics of one matrix; `name`, `layer`, `part` and `role` are carried into the result."""
    n = matrix.shape[0] * matrix.shape[1]
    if n <= HELD_ELEMENTS:  # small: read once
        pieces = list(matrix.pieces())
        matrix = ArrayMatrix(name, pieces[0] if len(pieces) == 1 else torch.cat(pieces))
    moments, rows, columns, of_rows = _first_walk(matrix, name)
    mean, std = float(moments.mean[0]), float(moments.std[0])
    flat = bool(moments.flat[0])
    row_beyond = np.zeros((len(SIGMAS), matrix.shape[0]), np.int64) if flat else _tails(matrix, mean, std)
    spread = spread_of(matrix.pieces, n, matrix.dtype, room=_workspace.sorting)
    l2 = np.sqrt(np.array([(std**2 + mean**2) * n]))
    counts = row_beyond.sum(axis=1)
    return TensorStatistics(
        name=name,
        layer=layer,
        part=part,
        role=role,
        shape=matrix.shape,
        mean=mean,
        std=std,
        skew=None if flat else float(moments.skew[0]),
        kurtosis=None if flat else float(moments.kurtosis[0]),
        reason="all weights of the tensor are equal" if flat else None,
        absmax=float(of_rows["absmax"].max()),
        beyond=tuple(SigmaCount(sigma=s, count=int(c), share=int(c) / n) for s, c in zip(SIGMAS, counts, strict=True)),
        concentration=spread.concentration,
        gini=spread.gini,
        hoyer=float(hoyer(np.array([spread.l1]), l2, n)[0]),
        row_std=rows.std,
        row_absmax=of_rows["absmax"],
        row_kurtosis=rows.kurtosis,
        row_concentration=of_rows["concentration"],
        row_gini=of_rows["gini"],
        row_hoyer=hoyer(of_rows["l1"], np.sqrt((rows.std**2 + rows.mean**2) * matrix.shape[1]), matrix.shape[1]),
        row_beyond=row_beyond,
        column_std=columns.std,
        column_kurtosis=columns.kurtosis,
    )


def _first_walk(matrix: Matrix, name: str) -> tuple[Moments, Moments, Moments, dict[str, Float64]]:
    """Moments of matrix, rows and columns, and what needs every row in order of magnitude."""
    outs = matrix.shape[0]
    # Any shift near the mean will do: sums that end up too far from it are taken anew below.
    sums = PowerSums(matrix.shape, _sampled_mean(matrix))
    of_rows = {field: np.empty(outs) for field in ("absmax", "l1", "gini", "concentration")}
    powers, magnitudes = _workspace.blocks(min(_block_rows(matrix), outs), matrix.shape[1])
    done = 0
    for x_RI in _blocks(matrix):
        a_RI, wide_RI = magnitudes[: len(x_RI)], powers[0, : len(x_RI)]
        np.abs(x_RI, out=a_RI)
        a_RI.sort(axis=1)
        _require_finite(a_RI[:, -1], done, name)
        sums.add(x_RI, powers)
        np.copyto(wide_RI, a_RI)
        spread = spread_of_sorted_rows(wide_RI)
        here = slice(done, done + len(x_RI))
        of_rows["absmax"][here] = a_RI[:, -1]
        of_rows["l1"][here], of_rows["gini"][here] = spread.l1, spread.gini
        of_rows["concentration"][here] = spread.concentration
        done += len(x_RI)
    rows, unstable_rows = sums.of_rows()
    columns, unstable_columns = sums.of_columns()
    _retake(matrix, rows, unstable_rows, columns, unstable_columns)
    return matrix_moments(rows), rows, columns, of_rows


def _blocks(matrix: Matrix) -> Iterator[Float32]:
    """Yield the rows in blocks of about `BLOCK_ELEMENTS`, float32 [R, I]."""
    step = _block_rows(matrix)
    for piece in matrix.pieces():
        values: Float32 = piece.float().numpy()
        for start in range(0, len(values), step):
            yield values[start : start + step]


def _block_rows(matrix: Matrix) -> int:
    return max(1, BLOCK_ELEMENTS // matrix.shape[1])


def _sampled_mean(matrix: Matrix) -> float:
    """Mean of the first block; 0 where it is not finite (the walk then names the tensor)."""
    with np.errstate(invalid="ignore"):
        mean = float(next(_blocks(matrix)).mean(dtype=np.float64))
    return mean if np.isfinite(mean) else 0.0


def _require_finite(largest: Float32, first_row: int, name: str) -> None:
    """Refuse rows whose largest magnitude is infinite or NaN (which sorts last)."""
    bad = np.flatnonzero(~np.isfinite(largest))
    if bad.size:
        raise NonFiniteError(
            f"{name} has NaN or infinite weights, the first in row {first_row + bad[0]}; the checkpoint is damaged or "
            "overflowed when it was converted. Fetch it again, or convert it from its original precision."
        )


def _retake(
    matrix: Matrix, rows: Moments, bad_rows: NDArray[np.int64], columns: Moments, bad_columns: NDArray[np.int64]
) -> None:
    """Measure again, about their own means, the lines that lie too far from the matrix's mean, some at a time."""
    first = 0
    for piece in matrix.pieces() if bad_rows.size else ():
        inside = bad_rows[(bad_rows >= first) & (bad_rows < first + len(piece))]
        for lines in _some(inside, piece.shape[1]):
            _put(rows, lines, piece[torch.from_numpy(lines - first)].float().numpy())
        first += len(piece)
    for lines in _some(bad_columns, matrix.shape[0]):
        chosen = torch.from_numpy(lines)
        _put(columns, lines, np.concatenate([piece[:, chosen].float().numpy() for piece in matrix.pieces()]).T)


def _some(lines: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    """Yield lines of `length` weights, as many at a time as keep their float64 powers to some 10 MiB."""
    step = max(1, HELD_ELEMENTS // 16 // length)
    for start in range(0, len(lines), step):
        yield lines[start : start + step]


def _put(moments: Moments, lines: NDArray[np.int64], values: Float32) -> None:
    again = moments_of(values)
    for field in ("mean", "std", "skew", "kurtosis", "flat"):
        getattr(moments, field)[lines] = getattr(again, field)


def _tails(matrix: Matrix, mean: float, std: float) -> NDArray[np.int64]:
    """Count the weights of every row beyond each of `SIGMAS` standard deviations; [3, O]."""
    outs, ins = matrix.shape
    counts = np.zeros((len(SIGMAS), outs), dtype=np.int64)
    limits = [(_below(mean + s * std), -_below(s * std - mean)) for s in SIGMAS]
    first = 0
    for x_RI in _blocks(matrix):
        values = x_RI.ravel()
        outside = values > limits[0][0]
        outside |= values < limits[0][1]
        places = np.flatnonzero(outside)
        far, row = values[places], places // ins
        for i, (high, low) in enumerate(limits):
            here = slice(first, first + len(x_RI))
            counts[i, here] = np.bincount(row[(far > high) | (far < low)], minlength=len(x_RI))
        first += len(x_RI)
    return counts


def _below(limit: float) -> np.float32:
    """Largest float32 not above `limit`: comparing with it in float32 decides as comparing with `limit` exactly."""
    rounded = np.float32(limit)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > limit else rounded
