"""How unevenly magnitude is spread: Gini coefficient, concentration ratio, Hoyer sparsity.

Exact, over sorted magnitudes; a matrix too large to be sorted in memory is sorted in ranges of magnitude, one after the
other, and 16-bit weights (32,768 magnitudes at most) are counted instead of sorted.

Gini of magnitudes a_1 <= ... <= a_n: sum_i (2i - n - 1) a_i / (n sum a). Hoyer (Hoyer 2004, JMLR 5):
(sqrt(n) - l1 / l2) / (sqrt(n) - 1). All-zero lines count as all-equal ones: Gini 0, Hoyer 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Spread", "SpreadOfRows", "hoyer", "spread_of", "spread_of_sorted_rows", "top_count"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Pieces = Callable[[], Iterator[torch.Tensor]]

SORTED_ELEMENTS = 24 * 1024 * 1024
"""Magnitudes sorted at a time (96 MiB)."""

PATTERNS = 256 * 1024
"""Weights whose bits are looked at together: with what is made of them they stay in the second-level cache."""

BLOCK = 32 * 1024
RUN = 1024
STEPS = np.stack([np.ones(RUN), np.arange(1.0, RUN + 1)], axis=1)
TOP, WIDE = 0.01, 0.10
"""Concentration ratio: sum of the largest 1 % over sum of the largest 10 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """`l1`: sum of magnitudes; `gini` in [0, 1); `concentration` in (0, 1]."""

    l1: float
    gini: float
    concentration: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadOfRows:
    """The same for each row, float64 [R]."""

    l1: Float64
    gini: Float64
    concentration: Float64


def top_count(n: int, share: float) -> int:
    """Return how many of `n` weights are the largest `share`: rounded, at least one."""
    return max(1, round(share * n))


def hoyer(l1: Float64, l2: Float64, n: int) -> Float64:
    """Hoyer sparsity of lines of `n` values: 0 where all magnitudes are equal, 1 where a single one is not zero."""
    if n == 1:
        return np.zeros_like(l1)
    ratio = np.divide(l1, l2, out=np.full_like(l1, np.sqrt(n)), where=l2 > 0)
    sparsity: Float64 = np.clip((np.sqrt(n) - ratio) / (np.sqrt(n) - 1), 0.0, 1.0)
    return sparsity


def spread_of_sorted_rows(a_RI: Float64) -> SpreadOfRows:
    """Spread of each row of `a_RI`, whose magnitudes ascend along the row."""
    n = a_RI.shape[1]
    # One product gives all four sums: the matrix is read once.
    l1, ranked, top, wide = (a_RI @ _row_weights(n)).T
    equal = np.full_like(l1, top_count(n, TOP) / top_count(n, WIDE))
    return SpreadOfRows(
        l1=l1,
        gini=np.divide(ranked, l1, out=np.zeros_like(l1), where=l1 > 0),
        concentration=np.divide(top, wide, out=equal, where=wide > 0),
    )


def spread_of(pieces: Pieces, n: int, dtype: torch.dtype, *, room: Float32 | None = None) -> Spread:
    """Spread of all `n` weights that `pieces()` yields. Finite weights only; the pieces may be walked several times.

    `room`: memory to sort in, used where it has `n` entries or more.
    """
    ranked = _Ranked(n)
    if dtype in {torch.bfloat16, torch.float16}:
        _count_magnitudes(pieces, dtype, ranked)
    elif n <= SORTED_ELEMENTS:
        ranked.add(_collect(pieces, n, room=room))
    else:
        _sort_in_ranges(pieces, ranked)
    return ranked.spread()


class _Ranked:
    """Rank-weighted sums over magnitudes that arrive in ascending order."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._scratch = np.empty((BLOCK // RUN, RUN))
        self.rank = 0
        self.l1 = 0.0
        self.weighted = 0.0
        self.first = {share: n - top_count(n, share) for share in (TOP, WIDE)}
        self.tops = dict.fromkeys(self.first, 0.0)

    def add(self, a: Float32) -> None:
        """Add magnitudes in any order that are all at least as large as those added before; sorts them in place."""
        a.sort()
        for share, first in self.first.items():
            tail = a[max(0, first - self.rank) :]
            self.tops[share] += float(tail.sum(dtype=np.float64))
        whole = a.size - a.size % RUN
        for start in range(0, whole, BLOCK):
            self._rank(a[start : min(start + BLOCK, whole)].reshape(-1, RUN))
        if whole < a.size:
            self._rank(a[whole:].reshape(1, -1))

    def _rank(self, a_KM: Float32) -> None:
        """Add K runs of M magnitudes, ascending from the first to the last."""
        runs, length = a_KM.shape
        block = self._scratch[:runs, :length]
        np.copyto(block, a_KM)
        # Ranks in run k are rank + k M + (1 .. M): a part that grows inside the run, and one constant for all of it.
        totals, inside = (block @ STEPS[:length]).T
        before = self.rank + length * np.arange(runs)
        self.weighted += float((2 * inside + (2 * before - self.n - 1) * totals).sum()) / self.n
        self.l1 += float(totals.sum())
        self.rank += a_KM.size

    def add_run(self, value: float, count: int) -> None:
        """Add `count` equal magnitudes."""
        # Mean of 2i - n - 1 over the ranks rank+1 .. rank+count.
        middle = (2 * self.rank + count - self.n) / self.n
        for share, first in self.first.items():
            self.tops[share] += value * max(0, min(count, self.rank + count - first))
        self.l1 += value * count
        self.weighted += value * count * middle
        self.rank += count

    def spread(self) -> Spread:
        if self.rank != self.n:
            raise AssertionError(f"{self.rank} of {self.n} magnitudes were ranked")
        equal = top_count(self.n, TOP) / top_count(self.n, WIDE)
        return Spread(
            l1=self.l1,
            gini=self.weighted / self.l1 if self.l1 > 0 else 0.0,
            concentration=self.tops[TOP] / self.tops[WIDE] if self.tops[WIDE] > 0 else equal,
        )


@lru_cache(maxsize=8)
def _row_weights(n: int) -> Float64:
    """Columns: one; (2i - n - 1) / n for rank i; one for the largest 1 %; one for the largest 10 %. [n, 4]."""
    weights = np.zeros((n, 4))
    weights[:, 0] = 1
    weights[:, 1] = (2.0 * np.arange(1, n + 1) - n - 1) / n
    weights[n - top_count(n, TOP) :, 2] = 1
    weights[n - top_count(n, WIDE) :, 3] = 1
    weights.setflags(write=False)
    return weights


def _count_magnitudes(pieces: Pieces, dtype: torch.dtype, ranked: _Ranked) -> None:
    # Without its sign bit, the pattern of an IEEE number ascends with its magnitude.
    counts = np.zeros(1 << 15, dtype=np.int64)
    for piece in pieces():
        bits = piece.view(torch.int16).numpy().view(np.uint16).ravel()
        for start in range(0, bits.size, BLOCK):
            counts += np.bincount(bits[start : start + BLOCK] & 0x7FFF, minlength=1 << 15)
    values = torch.arange(1 << 15, dtype=torch.int16).view(dtype).float().numpy()
    for pattern in np.flatnonzero(counts):
        ranked.add_run(float(values[pattern]), int(counts[pattern]))


def _patterns(pieces: Pieces) -> Iterator[NDArray[np.uint32]]:
    """Yield the weights in blocks as patterns of bits without the sign, which ascend with the magnitude."""
    for piece in pieces():
        bits = piece.float().numpy().view(np.uint32).ravel()
        for start in range(0, bits.size, PATTERNS):
            yield bits[start : start + PATTERNS] & np.uint32(0x7FFFFFFF)


def _collect(pieces: Pieces, n: int, *, room: Float32 | None) -> Float32:
    """Return all `n` magnitudes."""
    collected = np.empty(n, dtype=np.float32) if room is None or room.size < n else room[:n]
    done = 0
    for piece in pieces():
        values = piece.float().numpy().ravel()
        np.abs(values, out=collected[done : done + values.size])
        done += values.size
    return collected


def _between(pieces: Pieces, n: int, low: int, high: int) -> Float32:
    """Return the `n` magnitudes whose float32 pattern lies in [low, high)."""
    collected = np.empty(n, dtype=np.uint32)
    done = 0
    for bits in _patterns(pieces):
        chosen = bits[(bits >= np.uint32(low)) & (bits < np.uint32(high))]
        collected[done : done + chosen.size] = chosen
        done += chosen.size
    return collected.view(np.float32)


def _sort_in_ranges(pieces: Pieces, ranked: _Ranked) -> None:
    counts = np.zeros(1 << 15, dtype=np.int64)
    for bits in _patterns(pieces):
        counts += np.bincount(bits >> np.uint32(16), minlength=1 << 15)
    start = held = 0
    for key in range(1 << 15):
        if held and held + counts[key] > SORTED_ELEMENTS:
            ranked.add(_between(pieces, held, start << 16, key << 16))
            start, held = key, 0
        if counts[key] > SORTED_ELEMENTS:
            _count_fine(pieces, key, ranked)
            start, held = key + 1, 0
        else:
            held += int(counts[key])
    if held:
        ranked.add(_between(pieces, held, start << 16, 1 << 31))


def _count_fine(pieces: Pieces, key: int, ranked: _Ranked) -> None:
    """Rank one crowded range (zeros, or bfloat16 values kept as float32) by counting its 65,536 patterns."""
    fine = np.zeros(1 << 16, dtype=np.int64)
    for bits in _patterns(pieces):
        fine += np.bincount(bits[bits >> np.uint32(16) == key] & np.uint32(0xFFFF), minlength=1 << 16)
    values = (np.arange(1 << 16, dtype=np.uint32) | np.uint32(key << 16)).view(np.float32)
    for low in np.flatnonzero(fine):
        ranked.add_run(float(values[low]), int(fine[low]))
