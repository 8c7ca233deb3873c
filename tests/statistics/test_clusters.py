"""Clusters: families are drawn as wholes, means stay centred, and few families widen an interval."""

import numpy as np
import pytest
from evenbits.statistics import by_cluster, mean_interval
from evenbits.statistics.clusters import drawn_units, leave_out, mixture_half_width, widening
from scipy import optimize, stats


def rng(seed=0):
    return np.random.default_rng(seed)


def test_clusters_of_equal_size_are_their_means():
    values = np.array([[1.0, 3.0, 10.0, 20.0], [0.0, 2.0, 4.0, 4.0]])
    assert by_cluster(values, ["a", "a", "b", "b"]) == pytest.approx(np.array([[2.0, 15.0], [1.0, 4.0]]))


def test_the_mean_over_clusters_is_the_mean_over_units_whatever_their_sizes():
    values = rng(1).standard_normal((3, 10)) + 5
    found = by_cluster(values, list("aaaaabbccd"))
    assert found.shape == (3, 4)
    assert found.mean(axis=1) == pytest.approx(values.mean(axis=1))
    # equal values have no spread, however unequal the clusters
    assert by_cluster(np.full(10, 7.0), list("aaaaabbccd")) == pytest.approx(np.full(4, 7.0))


def test_intervals_over_documents_cover_where_those_over_segments_do_not():
    """40 segments of 10 to 14 documents, half of whose variance lies between documents; 95 % are nominal."""
    singly = together = 0
    for seed in range(300):
        draw = rng((2, seed))
        documents = np.sort(draw.integers(0, 12, 40))
        values = np.sqrt(0.5) * (draw.standard_normal(12)[documents] + draw.standard_normal(40))
        one, other = (
            mean_interval(found, rng=draw, resamples=200) for found in (values, by_cluster(values, documents.tolist()))
        )
        singly += one.low < 0 < one.high
        together += other.low < 0 < other.high
    assert singly < 0.85 * 300
    assert together >= 0.93 * 300


def test_units_of_one_place_come_from_one_cluster():
    labels = np.array(["a", "a", "a", "b", "b", "c"])
    drawn = labels[drawn_units(labels.tolist(), rng=rng(), resamples=200)]
    for places in ([0, 1, 2], [3, 4], [5]):
        assert all(len(set(row)) == 1 for row in drawn[:, places])
    assert len({tuple(row) for row in drawn}) > 5


def test_resampled_means_are_centred_on_the_mean_whatever_the_sizes_of_clusters():
    values = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 60.0])  # mean 16
    drawn = drawn_units(["a", "a", "a", "b", "b", "c"], rng=rng(), resamples=40_000)
    # the SD of a resampled mean is at most that of a single cluster's mean, below 30: 4 standard errors are .6
    assert values[drawn].mean() == pytest.approx(16.0, abs=0.6)


def test_units_alone_in_their_clusters_are_drawn_as_in_a_plain_bootstrap():
    drawn = drawn_units(list(range(4)), rng=rng(), resamples=20_000)
    assert np.bincount(drawn.ravel(), minlength=4) / drawn.size == pytest.approx(np.full(4, 0.25), abs=0.01)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(0.0, abs=0.03)


def test_without_clusters_the_half_width_is_students():
    values = rng(2).standard_normal(12)
    groups = np.repeat([0, 1], 6)
    contrast = np.where(groups == 0, 1 / 6, -1 / 6)
    found = mixture_half_width(values, contrast, groups, np.arange(12))
    theirs = stats.ttest_ind(values[:6], values[6:]).confidence_interval()
    assert found == pytest.approx((theirs.high - theirs.low) / 2, rel=1e-6)


def half_by_matrices(values, contrast, groups, clusters):
    """The interval as its definition has it: covariance matrices, inverted one by one."""
    design, same = np.eye(groups.max() + 1)[groups], (clusters[:, None] == clusters).astype(float)
    freedom = len(values) - design.shape[1]
    scales, logs = [], []
    for correlation in np.linspace(0.0, 0.95, 20):
        covariance = (1 - correlation) * np.eye(len(values)) + correlation * same
        inverse = np.linalg.inv(covariance)
        normal = design.T @ inverse @ design
        left = values - design @ np.linalg.solve(normal, design.T @ inverse @ values)
        squares = left @ inverse @ left
        logs.append(-(np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(normal)[1] + freedom * np.log(squares)) / 2)
        variance = contrast @ contrast
        for cluster in set(clusters.tolist()):
            weights = contrast[clusters == cluster]
            variance += correlation * max(weights.sum() ** 2 - (weights**2).sum(), 0)
        scales.append(np.sqrt(squares / freedom * variance))
    weights = np.exp(np.array(logs) - max(logs))

    def missing(half):
        return weights @ (2 * stats.t.cdf(half / np.array(scales), freedom) - 1) / weights.sum() - 0.95

    return optimize.brentq(missing, 0, 100)


def test_the_mixture_is_that_of_the_covariance_matrices_also_where_families_span_the_groups():
    values, groups = rng(3).standard_normal(12) + 2, np.repeat([0, 1], 6)
    contrast = np.where(groups == 0, 1 / 6, -1 / 6)
    for clusters in ([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5], [0, 0, 1, 1, 2, 3, 0, 1, 1, 2, 3, 4]):
        found = mixture_half_width(values, contrast, groups, np.array(clusters))
        assert found == pytest.approx(half_by_matrices(values, contrast, groups, np.array(clusters)), rel=1e-6)


def test_one_large_family_widens_more_than_many_small_ones():
    values = rng(4).standard_normal(22)
    contrast = np.repeat([1 / 11, -1 / 11], 11)
    groups = ["low"] * 11 + ["high"] * 11

    def factor(families):
        return widening(values, contrast, groups, families, spread=0.4)

    alone = factor([str(place) for place in range(22)])
    coinciding = factor(["a"] * 9 + ["b", "c"] + ["d"] * 9 + ["e", "f"])
    in_both_groups = factor([f"f{place % 4}" for place in range(22)])  # their effect cancels in the difference
    assert coinciding > 1.5 * alone
    assert in_both_groups < 1.2 * alone


def test_a_spread_that_is_wide_enough_stays_where_segments_are_shared_and_is_drawn_in_where_that_cancels():
    values = np.array([-1.0, 1.0, 0.5, -0.5])
    given = (values, np.full(4, 0.25), ["a"] * 4, list("wxyz"))
    assert widening(*given, spread=100.0) == 1.0
    half = 1.959963984540054 * 100.0 * widening(*given, spread=100.0, shared=False)
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2, rel=1e-6)


def test_leaving_out_names_every_cluster_once():
    assert leave_out(["a", "b", "a"]) == {"a": [1], "b": [0, 2]}
