"""Joint sign flips: several paired comparisons on the same segments, tested together (Westfall & Young 1993).

Segments are shared by the languages, so their signs are flipped in all languages at once, and what each language has to
beat is the largest studentised mean of any language that is not yet found (step-down max-T). That keeps the family-wise
error without paying for each language singly: with Holm over 33 languages and 10 segments nothing could ever be found.

Shapes: M arrangements, L languages, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.statistics.outcomes import Alternative, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS, TIE, sign_flips
from evenbits.statistics.samples import FloatArray, vector

__all__ = ["JointFlips", "joint_flips"]

BLOCK = 4_000_000  # numbers held at once: 32 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFlips:
    """`p`: unadjusted, `adjusted`: family-wise, both by name. `least`: the smallest p that any data could give."""

    p: Mapping[str, float]
    adjusted: Mapping[str, float]
    least: float
    method: str


def joint_flips(
    differences: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    permutations: int = PERMUTATIONS,
) -> JointFlips:
    """Test for every name whether its mean difference is 0 (or on the wrong side of it), family-wise.

    `differences`: by language, one number per segment; entry i is the same segment everywhere (a shorter vector lacks
    the last ones). Null hypothesis: given the size of a segment's differences, their common sign is a coin's toss.
    All 2^S arrangements where these are at most `permutations`; then p is a multiple of 2^-S (2^(1-S) two-sided).
    A language without any difference has p = 1. Raises `ValueError` where nothing is given or a language is empty.
    """
    checked_alternative(alternative)
    checked = {name: vector(values, name) for name, values in differences.items()}
    if not checked or not all(len(values) for values in checked.values()):
        raise ValueError("differences must name at least one language, and each must have a segment")
    size = max(len(values) for values in checked.values())
    table = np.zeros((len(checked), size))
    for row, values in zip(table, checked.values(), strict=True):
        row[: len(values)] = values
    counts = np.array([len(values) for values in checked.values()])
    flips = sign_flips(size, rng=rng, permutations=permutations)
    squares = (table**2).sum(axis=1)
    observed = _directed(_studentised(table.sum(axis=1)[None], squares, counts), alternative)[0]
    order = np.argsort(-observed, kind="stable")
    single, stepped = np.zeros(len(table)), np.zeros(len(table))
    for signs in np.array_split(flips.rows, max(1, len(flips.rows) * len(table) // BLOCK)):
        null = _directed(_studentised(signs @ table.T, squares, counts), alternative)
        reached = observed - TIE * np.maximum(1.0, np.abs(observed))
        single += (null >= reached).sum(axis=0)
        # what the language of rank r has to beat: the largest of those of rank r and beyond
        rest = np.maximum.accumulate(null[:, order][:, ::-1], axis=1)[:, ::-1]
        stepped[order] += (rest >= reached[order]).sum(axis=0)
    total = len(flips.rows) + (0 if flips.exact else 1)
    single, stepped = ((found + (0 if flips.exact else 1)) / total for found in (single, stepped))
    stepped[order] = np.maximum.accumulate(stepped[order])
    names = list(checked)
    least = (2 if alternative == "two-sided" else 1) / 2**size if flips.exact else 1 / total
    return JointFlips(
        p={name: float(p) for name, p in zip(names, single, strict=True)},
        adjusted={name: float(p) for name, p in zip(names, stepped, strict=True)},
        least=least,
        method=f"{flips.method.replace('sign permutation', 'sign flips')} of segments in all languages at once, "
        f"step-down max-T over {len(names)}, {alternative}",
    )


def _studentised(sums_ML: FloatArray, squares_L: FloatArray, counts_L: np.ndarray) -> FloatArray:
    """Return the mean over its standard error, [M, L]; sums of squares are the same in every arrangement.

    A language whose differences are all equal has no spread left under some arrangements: t is then as large as can be.
    """
    t_squared = sums_ML**2 / np.where(squares_L > 0, counts_L * squares_L, 1.0)  # in [0, 1]: 1 is no spread
    below = np.maximum(1.0 - t_squared, TIE)
    return np.asarray(np.sign(sums_ML) * np.sqrt(t_squared / below * np.maximum(counts_L - 1, 1)))


def _directed(t_ML: FloatArray, alternative: Alternative) -> FloatArray:
    return np.abs(t_ML) if alternative == "two-sided" else t_ML if alternative == "greater" else -t_ML
