"""Group-sequential decisions: segments are added until an interval decides, at the error rates of a fixed design.

Looking again costs. What may be spent in all is divided over the looks by a spending function (Lan & DeMets 1983), and
the limit of each look follows from the joint distribution of the growing mean (Armitage, McPherson & Rowe 1969), which
is that of a random walk.

A look has spent a power of its share of the text (Kim & DeMets 1987). The interval of few skewed segments errs more
often than it says, and most so far out: at 20 lognormal segments it says .001 a side and errs in .013. So the eighth
power where intervals are of Student's kind and can be as sure as they like; the square where permutations or resamples
decide, which cannot tell a level below a thousandth from nothing.

Shapes: G points of a grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evenbits.statistics.samples import FloatArray, checked_confidence

__all__ = ["By", "Looks", "looks", "schedule"]

By = Literal["means", "resamples", "squares"]
"""What decides: intervals of means, resamples, or permutations of a sum of squares."""

POWERS: Mapping[By, int] = {"means": 8, "resamples": 2, "squares": 2}
"""What is spent by a look is this power of its share of the text."""

GRID = 2001
REACH = 8.0  # standard deviations of the walk that the grid spans


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """When to look and how sure to be: `sizes` (segments) ascending, `confidence` of the two-sided interval at each."""

    sizes: tuple[int, ...]
    confidence: tuple[float, ...]


def schedule(most: int, *, first: int, growth: float = 1.5) -> tuple[int, ...]:
    """Return sizes from `first` to `most`, each about `growth` times the one before."""
    if not 1 <= first <= most:
        raise ValueError(f"first must lie between 1 and most, got {first} of {most}")
    sizes = [first]
    while sizes[-1] < most:
        following = max(sizes[-1] + 1, round(sizes[-1] * growth))
        sizes.append(most if following * growth > most * 1.1 else following)
    return tuple(min(size, most) for size in sizes)


def looks(sizes: Sequence[int], *, by: By, confidence: float = 0.95) -> Looks:
    """Return the looks at `sizes` segments; the chance that any interval misses the true mean is 1 - `confidence`.

    Each side spends half of it. The level of a look is that of a normal mean; with an interval for few segments in its
    place the rate is kept as well as that interval keeps its own. A sum of squares of such means has values at two
    looks that are correlated as the square: those of a walk in the square of its time.
    """
    from scipy.special import ndtr

    checked_confidence(confidence)
    planned = tuple(sizes)
    if not planned or planned[0] < 1 or any(a >= b for a, b in itertools.pairwise(planned)):
        raise ValueError(f"sizes must be ascending numbers of segments, got {planned}")
    side = (1 - confidence) / 2
    times = np.array(planned) / planned[-1]
    spent = side * times ** POWERS[by]
    bounds = _bounds(times**2 if by == "squares" else times, np.diff([0.0, *spent]))
    return Looks(sizes=planned, confidence=tuple(float(2 * ndtr(bound) - 1) for bound in bounds))


def _bounds(times: FloatArray, spends: FloatArray) -> list[float]:
    """Return z-limits at `times` such that a standard walk first exceeds the k-th with chance `spends[k]`.

    One side is followed at a time; a walk that left on the other is counted as if it went on, which spends too much
    rather than too little.
    """
    from scipy.special import ndtr, ndtri

    found: list[float] = []
    grid = np.linspace(-REACH, REACH, GRID)
    step = float(grid[1] - grid[0])
    density = np.zeros(GRID)  # of walks that have not left, by their place
    for place, (time, spend) in enumerate(zip(times, spends, strict=True)):
        if place == 0:
            bound = float(-ndtri(spend) * math.sqrt(time))
            density = np.exp(-(grid**2) / (2 * time)) / math.sqrt(2 * math.pi * time)
        else:
            deviation = math.sqrt(time - times[place - 1])
            low, high = 0.0, REACH
            for _ in range(50):
                bound = (low + high) / 2
                leaves = float((density * ndtr((grid - bound) / deviation)).sum()) * step
                low, high = (bound, high) if leaves > spend else (low, bound)
            kernel = np.exp(-((grid[:, None] - grid) ** 2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))
            density = kernel @ density * step
        density = np.where(grid < bound, density, 0.0)
        found.append(bound / math.sqrt(time))
    return found
