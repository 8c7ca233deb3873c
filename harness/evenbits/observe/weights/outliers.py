"""Where the largest weights of a matrix sit, and equally many random places to compare them with.

Positions are flat indices into the matrix as it is given, in C order, so that
`module.weight.view(-1)[positions] = 0` ablates them, whichever way the architecture stores its matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError

__all__ = ["ABLATED_SHARE", "OutlierPositions", "outlier_positions", "random_positions", "top_positions"]

ABLATED_SHARE = 1e-4
"""0.01 %: the share METHOD (H-037) zeroes against a random 0.01 %."""

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutlierPositions:
    """`top`: places of the largest magnitudes; `random`: equally many other places. Ascending flat indices."""

    name: str
    size: int
    top: Positions
    random: Positions

    def __post_init__(self) -> None:
        if self.top.shape != self.random.shape:
            raise ValueError(f"{self.name}: {self.top.size} largest against {self.random.size} random weights")
        for positions in (self.top, self.random):
            positions.setflags(write=False)


def outlier_positions(
    name: str, weight: NDArray[Any], *, rng: np.random.Generator, share: float = ABLATED_SHARE
) -> OutlierPositions:
    """Return the `share` largest magnitudes of `weight` (any shape) and equally many random places among the rest.

    The count is `share` of the weights, rounded, at least one. The random places exclude the largest ones: a control
    that shares its treatment would understate the contrast.
    """
    top = top_positions(weight, share, name=name)
    return OutlierPositions(name=name, size=weight.size, top=top, random=random_positions(weight.size, top, rng=rng))


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
