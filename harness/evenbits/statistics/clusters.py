"""Clusters: languages of one family move together, segments of one document too, so clusters are drawn before units.

A document is made one number first (`by_cluster`); families keep their languages, and there are two parts.
`drawn_units` is the resampler: every cluster's places are filled from one drawn cluster (with a chance in proportion to
its size, so that resampled means are centred on the mean of the data), and within it units are drawn.
Where each unit is its own cluster this is the plain bootstrap. `widening` mends what no resampler can know from few
clusters: how much of the spread lies between them. It takes the random-effects model (unit = group + cluster + own),
averages over the unknown intraclass correlation by its restricted likelihood, and says by how much the resampled
spread falls short of the Student interval of that mixture.

Shapes: B resamples, N units, G groups, C clusters, R correlations.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from evenbits.statistics.samples import FloatArray, IntArray, group_codes

__all__ = ["by_cluster", "drawn_counts", "drawn_units", "leave_out", "mixture_half_width", "widening"]

CORRELATIONS = np.linspace(0.0, 0.95, 20)
"""Intraclass correlations that are averaged over, all as likely beforehand."""


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


def drawn_counts(clusters: Sequence[Hashable], *, rng: np.random.Generator, resamples: int) -> FloatArray:
    """Return how often each unit is drawn in each resample, [B, N], rows sum to N: clusters first, then their units."""
    n = len(clusters)
    places = drawn_units(clusters, rng=rng, resamples=resamples) + n * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def mixture_half_width(
    values: FloatArray, contrast: FloatArray, groups: IntArray, clusters: IntArray, *, confidence: float = 0.95
) -> float | None:
    """Return the half width of the interval of `contrast @ values` [N], None where nothing is left to estimate from.

    Model: group mean + cluster effect + own deviation. Given the intraclass correlation the interval is Student's, with
    N - G degrees of freedom; correlations are weighted by their restricted likelihood (Patterson & Thompson 1971).
    Clusters with units in groups of both signs cancel in part; what that may save is not taken (with the correlation
    unknown, intervals that took it covered .89 where there was none).
    The covariance is block diagonal with equal correlation in a block, so its inverse and determinant are known from
    the blocks' sizes, for all R correlations at once.
    """
    from scipy.optimize import brentq
    from scipy.special import stdtr, stdtrit

    n, freedom = len(values), len(values) - int(groups.max()) - 1
    if freedom < 1:
        return None
    cluster_NC, group_NG = np.eye(int(clusters.max()) + 1)[clusters], np.eye(int(groups.max()) + 1)[groups]
    sizes_C, sums_C, of_group_CG = cluster_NC.sum(axis=0), values @ cluster_NC, cluster_NC.T @ group_NG
    alone = len(sizes_C) == n
    rho_R1 = (CORRELATIONS[:1] if alone else CORRELATIONS)[:, None]
    block_RC = 1 - rho_R1 + rho_R1 * sizes_C  # the covariance's eigenvalue along a cluster's mean; 1 - rho across it
    drawn_RC = rho_R1 / block_RC
    normal_RGG = np.diag(group_NG.sum(axis=0)) - np.einsum("rc,cg,ch->rgh", drawn_RC, of_group_CG, of_group_CG)
    moments_RG = values @ group_NG - (drawn_RC * sums_C) @ of_group_CG
    fitted_RG = np.linalg.solve(normal_RGG, moments_RG[:, :, None])[:, :, 0]
    left_R = (values**2).sum() - (drawn_RC * sums_C**2).sum(axis=1) - (moments_RG * fitted_RG).sum(axis=1)
    if (left_R <= 1e-12 * (values**2).sum()).any():
        return 0.0
    across_R, squares_R = 1 - rho_R1[:, 0], left_R / (1 - rho_R1[:, 0])
    determinants_R = np.log(block_RC).sum(axis=1) + (n - len(sizes_C)) * np.log(across_R)
    determinants_R += np.linalg.slogdet(normal_RGG / across_R[:, None, None])[1]
    likelihood_R = -(determinants_R + freedom * np.log(squares_R)) / 2
    weights_R = np.exp(likelihood_R - likelihood_R.max())
    weights_R /= weights_R.sum()
    # a cluster whose weights cancel would make the interval narrower; that it does is only as sure as the correlation
    together_C = np.maximum((contrast @ cluster_NC) ** 2 - contrast**2 @ cluster_NC, 0.0)
    spread_R = contrast @ contrast + rho_R1[:, 0] * together_C.sum()
    widths_R = np.sqrt(squares_R / freedom * spread_R)
    largest = float(widths_R.max())
    most, part_R = float(stdtrit(freedom, (1 + confidence) / 2)), widths_R / largest
    ends = most * float(part_R.min()) * (1 - 1e-9), most * (1 + 1e-9)
    return largest * float(brentq(lambda half: weights_R @ (2 * stdtr(freedom, half / part_R) - 1) - confidence, *ends))


def widening(
    values: FloatArray,
    contrast: FloatArray,
    groups: Sequence[Hashable],
    clusters: Sequence[Hashable],
    *,
    spread: float,
    shared: bool = True,
    confidence: float = 0.95,
) -> float:
    """Return the factor that brings resamples with standard deviation `spread` to the mixture's width at `confidence`.

    `contrast @ values` [N] is the statistic, or what it is to first order: a log ratio of two means is the difference
    of the means of value / group mean. `shared`: segments that are hard for all units at once move the statistic too,
    which deviations of units cannot show; the factor is then at least 1, so that what resamples know of it stays.
    Where it cancels, as in a ratio, they say nothing that the mixture lacks, and too wide ones are drawn in.
    """
    from scipy.special import ndtri

    n = len(values)
    codes = group_codes(groups, n, "groups"), group_codes(clusters, n, "clusters")
    half = mixture_half_width(values, contrast, *codes, confidence=confidence)
    if half is None or spread <= 0:
        return 1.0
    factor = half / (float(ndtri((1 + confidence) / 2)) * spread)
    return max(1.0, factor) if shared else factor


def leave_out(clusters: Sequence[str]) -> dict[str, list[int]]:
    """Return, for each cluster in order of first appearance, the places of the units of all others."""
    labels = np.array(clusters)
    return {name: np.flatnonzero(labels != name).tolist() for name in dict.fromkeys(clusters)}
