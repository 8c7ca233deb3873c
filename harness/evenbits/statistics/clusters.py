"""Clusters: languages of one family move together, segments of one document too, so clusters are drawn before units.

A document is made one number first (`by_cluster`); families keep their languages, and there are two parts.
`drawn_units` is the resampler: every cluster's places are filled from one drawn cluster (with a chance in proportion to
its size, so that resampled means are centred on the mean of the data), and within it units are drawn.
Where each unit is its own cluster this is the plain bootstrap. `widening` mends what no resampler can know from few
clusters: how much of the spread lies between them. It takes the random-effects model (unit = group + cluster + own),
averages over the unknown intraclass correlation by its restricted likelihood, and says by how much the resampled
spread falls short of the Student interval of that mixture.

Shapes: B resamples, N units, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from evenbits.statistics.samples import FloatArray, IntArray, group_codes

__all__ = ["by_cluster", "drawn_units", "leave_out", "mixture_half_width", "widening"]

CORRELATIONS = np.linspace(0.0, 0.95, 20)
"""Intraclass correlations that are averaged over, all as likely beforehand."""

NORMAL_HALF_WIDTH = 1.959963984540054


def drawn_units(clusters: Sequence[Hashable], *, rng: np.random.Generator, resamples: int) -> IntArray:
    """Return which unit stands at each place of each resample, [B, N]: clusters drawn first, then their units."""
    codes = group_codes(clusters, len(clusters), "clusters")
    n = len(codes)
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
    sizes = np.array([len(places) for places in members])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.concatenate(members)
    filled = codes[rng.integers(0, n, (resamples, len(members)))]  # a random unit's cluster: chance by size
    chosen = np.empty((resamples, n), dtype=np.int64)
    for place, own in enumerate(members):
        size = sizes[filled[:, place]][:, None]
        within = (rng.random((resamples, len(own))) * size).astype(np.int64)
        chosen[:, own] = flat[starts[filled[:, place]][:, None] + within]
    return chosen


def by_cluster(values: FloatArray, clusters: Sequence[Hashable]) -> FloatArray:
    """Return one number for each cluster of the last axis, [..., N] -> [..., G], with the same mean over that axis.

    What a cluster adds to the mean, (total - mean x size) / mean size, linearised (Cochran 1977, section 6.3): clusters
    of equal size are their means, and a large one counts by its size without its size passing for spread.
    """
    codes = group_codes(clusters, values.shape[-1], "clusters")
    member = np.eye(int(codes.max(initial=-1)) + 1)[codes]
    sizes, mean = member.sum(axis=0), values.mean(axis=-1, keepdims=True)
    return np.asarray(mean + (values @ member - mean * sizes) / sizes.mean())


def mixture_half_width(
    values: FloatArray, contrast: FloatArray, groups: IntArray, clusters: IntArray, *, confidence: float = 0.95
) -> float | None:
    """Return the half width of the interval of `contrast @ values` [N], None where nothing is left to estimate from.

    Model: group mean + cluster effect + own deviation. Given the intraclass correlation the interval is Student's, with
    N - G degrees of freedom; correlations are weighted by their restricted likelihood (Patterson & Thompson 1971).
    """
    from scipy.special import stdtr

    n, count = len(values), int(groups.max()) + 1
    freedom = n - count
    if freedom < 1:
        return None
    design = np.eye(count)[groups]
    same = (clusters[:, None] == clusters).astype(np.float64)
    alone = len(np.unique(clusters)) == n
    scales, logs = [], []
    for correlation in CORRELATIONS[:1] if alone else CORRELATIONS:
        covariance = (1 - correlation) * np.eye(n) + correlation * same
        inverse = np.linalg.inv(covariance)
        normal = design.T @ inverse @ design
        left = values - design @ np.linalg.solve(normal, design.T @ inverse @ values)
        squares = float(left @ inverse @ left)
        if squares <= 0:
            return 0.0
        logs.append(
            -(np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(normal)[1] + freedom * math.log(squares)) / 2
        )
        scales.append(math.sqrt(squares / freedom * float(contrast @ covariance @ contrast)))
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    widths = np.array(scales)
    low, high = 0.0, 1e4 * float(widths.max())
    for _ in range(60):
        middle = (low + high) / 2
        inside = float(weights @ (2 * stdtr(freedom, middle / widths) - 1))
        low, high = (middle, high) if inside < confidence else (low, middle)
    return (low + high) / 2


def widening(
    values: FloatArray,
    contrast: FloatArray,
    groups: Sequence[Hashable],
    clusters: Sequence[Hashable],
    *,
    spread: float,
) -> float:
    """Return the factor, at least 1, by which resamples with standard deviation `spread` fall short.

    `contrast @ values` [N] is the statistic, or what it is to first order: a log ratio of two means is the difference
    of the means of value / group mean.
    """
    n = len(values)
    half = mixture_half_width(values, contrast, group_codes(groups, n, "groups"), group_codes(clusters, n, "clusters"))
    if half is None or spread <= 0:
        return 1.0
    return max(1.0, half / (NORMAL_HALF_WIDTH * spread))


def leave_out(clusters: Sequence[str]) -> dict[str, list[int]]:
    """Return, for each cluster in order of first appearance, the places of the units of all others."""
    return {name: [place for place, other in enumerate(clusters) if other != name] for name in dict.fromkeys(clusters)}
