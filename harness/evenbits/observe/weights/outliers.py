"""Where the largest weights of a matrix sit, and equally many random places to compare them with.

Positions are flat indices into the matrix as it is given, in C order, so that
`module.weight.view(-1)[positions] = 0` ablates them, whichever way the architecture stores its matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError

__all__ = ["random_positions", "top_positions"]

Positions = NDArray[np.int64]


def top_positions(weight: NDArray[Any], share: float, *, name: str = "the matrix") -> Positions:
    """Return the flat indices of the `share` largest magnitudes, ascending; ties go to the lowest index.

    `share` in (0, 1]; the count is rounded, at least one. NaN raises `NonFiniteError`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    magnitude = np.abs(weight).ravel()
    if np.isnan(magnitude.max()):
        raise NonFiniteError(f"{name} has NaN weights: its largest weights are undefined. Check the checkpoint.")
    count = max(1, round(share * magnitude.size))
    edge = np.partition(magnitude, magnitude.size - count)[magnitude.size - count]
    above = np.flatnonzero(magnitude > edge)
    at_edge = np.flatnonzero(magnitude == edge)[: count - above.size]
    return np.sort(np.concatenate([above, at_edge])).astype(np.int64)


def random_positions(size: int, taken: Positions, *, rng: np.random.Generator) -> Positions:
    """Return as many flat indices below `size` as `taken` has, none of them in `taken`, ascending.

    Where `taken` is more than half of all, there are not enough others and a `ValueError` says so.
    """
    count = taken.size
    if 2 * count > size:
        raise ValueError(f"{count} of {size} weights are taken; there are not {count} others to draw from")
    # The k-th free place is k plus the number of taken places at or before it.
    free = np.sort(rng.choice(size - count, size=count, replace=False))
    gaps = np.sort(taken) - np.arange(count)
    return (free + np.searchsorted(gaps, free, side="right")).astype(np.int64)
