"""How cost grows: the exponent p of seconds = fixed + c * size^p, the fixed part found with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

__all__ = ["Growth", "growth"]

EXPONENTS = np.linspace(0.1, 3, 291)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """`fixed`: seconds that no size explains, such as imports. `share`: of the largest's seconds, those that grow."""

    fixed: float
    exponent: float
    share: float


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> Growth:
    """Fit fixed + c * size^p, neither of them negative, to at least four sizes, by the squares of relative errors.

    A straight line through logarithms takes what is fixed for slow growth: 3 s + .001 s * n^2 has a slope of .25 there.
    """
    if len(sizes) < 4:
        raise ValueError("three sizes are met exactly by some exponent; take four or more")
    n, t = np.asarray(sizes, float) / max(sizes), np.asarray(seconds, float)

    def fit(exponent: float) -> tuple[float, float, float]:
        (fixed, grown), error = nnls(np.column_stack([np.ones_like(n), n**exponent]) / t[:, None], np.ones_like(t))
        return float(error), float(fixed), float(grown)

    exponent = min(EXPONENTS, key=lambda one: fit(one)[0])
    _, fixed, grown = fit(exponent)
    return Growth(fixed=fixed, exponent=float(exponent), share=grown / (fixed + grown))
