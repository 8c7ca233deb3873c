"""Correlations within models, pooled: the value, what is resampled, and when a correlation counts as small."""

import numpy as np
import pytest
from evenbits.estimates import Verdict
from evenbits.statistics import binomial_band
from evenbits.studies.established.pooled import Sample, pooled_correlation, smallness
from scipy import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def sample(n=40, r=0.0, *, run="a", seed=1, clusters=None):
    """Points of a model whose correlation is `r` in the population."""
    draws = rng(seed)
    x = draws.standard_normal(n)
    y = r * x + np.sqrt(1 - r * r) * draws.standard_normal(n)
    return Sample(run=run, x=x, y=y, clusters=np.arange(n) if clusters is None else clusters)


def test_one_model_gives_pearsons_r():
    one = sample(r=0.6)
    found = pooled_correlation([one], shared=True, margin=0.3, rng=rng())
    assert found.estimate.value == pytest.approx(stats.pearsonr(one.x, one.y).statistic, abs=1e-12)
    assert found.estimate.n == 40


def test_the_mean_is_over_runs_whose_checkpoints_are_averaged_first():
    samples = [sample(run="a", seed=1), sample(run="a", seed=2, r=0.5), sample(run="b", seed=3, r=-0.4)]
    r = [stats.pearsonr(one.x, one.y).statistic for one in samples]
    found = pooled_correlation(samples, shared=True, margin=0.3, rng=rng())
    assert found.estimate.value == pytest.approx(((r[0] + r[1]) / 2 + r[2]) / 2, abs=1e-12)


def test_the_level_of_a_model_makes_no_correlation():
    # between the two models x and y rise together; within each there is nothing
    low, high = sample(n=500, seed=1), sample(n=500, seed=2, run="b")
    shifted = Sample(run="b", x=high.x + 100, y=high.y + 100, clusters=high.clusters)
    apart, plain = (pooled_correlation([low, other], shared=True, margin=0.3, rng=rng()) for other in (shifted, high))
    assert apart.estimate.value == pytest.approx(plain.estimate.value, abs=1e-9)


def test_the_interval_over_independent_points_is_that_of_fisher():
    one = sample(n=400, r=0.2, seed=5)
    found = pooled_correlation([one], shared=True, margin=0.5, rng=rng(), resamples=4000).estimate
    z, half = np.arctanh(found.value), 1.645 / np.sqrt(397)
    assert found.low == pytest.approx(np.tanh(z - half), abs=0.02)
    assert found.high == pytest.approx(np.tanh(z + half), abs=0.02)


def test_points_of_a_cluster_are_drawn_together():
    # 400 points that are ten copies of 40: the interval must be that of 40
    base = sample(n=40, r=0.3, seed=4)
    copies = Sample(run="a", x=np.tile(base.x, 10), y=np.tile(base.y, 10), clusters=np.tile(np.arange(40), 10))
    alone, copied = (pooled_correlation([one], shared=True, margin=0.3, rng=rng()).estimate for one in (base, copies))
    assert (copied.value, copied.n) == (pytest.approx(alone.value), 40)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=1e-9)  # the same draws


def test_shared_clusters_are_drawn_once_for_all_models():
    # the same points in eight runs tell no more about languages than one run
    one = sample(n=30, r=0.2, seed=6)
    many = [Sample(run=f"r{i}", x=one.x, y=one.y, clusters=one.clusters) for i in range(8)]
    single, shared = (pooled_correlation(s, shared=True, margin=0.3, rng=rng()).estimate for s in ([one], many))
    assert shared.high - shared.low == pytest.approx(single.high - single.low, rel=0.05)
    own = pooled_correlation(many, shared=False, margin=0.3, rng=rng()).estimate
    assert own.high - own.low < 0.6 * (shared.high - shared.low)
    assert (shared.n, own.n) == (30, 240)


def test_checkpoints_of_a_run_share_their_draws():
    # the same points at four checkpoints tell no more than at one
    one = sample(n=30, r=0.2, seed=6)
    alone, four = (pooled_correlation([one] * m, shared=False, margin=0.3, rng=rng()).estimate for m in (1, 4))
    assert (four.n, four.low, four.high) == (30, pytest.approx(alone.low), pytest.approx(alone.high))


def test_a_constant_is_no_correlation():
    flat = Sample(run="a", x=np.ones(9), y=np.arange(9.0), clusters=np.arange(9))
    found = pooled_correlation([flat], shared=True, margin=0.3, rng=rng())
    assert found.estimate.value is None
    verdict, because = smallness(found, units="languages")
    assert verdict is Verdict.NOT_APPLICABLE
    assert "constant" in because


@pytest.mark.parametrize(
    ("n", "r", "verdict"), [(1000, 0.0, None), (60, 0.7, Verdict.NOT_SUPPORTED), (20, 0.0, Verdict.UNDERPOWERED)]
)
def test_small_has_to_be_shown_and_large_refutes(n, r, verdict):
    found = pooled_correlation([sample(n=n, r=r)], shared=True, margin=0.3, rng=rng())
    assert smallness(found, units="languages")[0] is verdict
    assert found.equivalent is (verdict is None)


def test_a_correlation_as_large_as_the_margin_is_called_small_at_the_nominal_rate():
    found = [
        pooled_correlation([sample(n=100, r=0.3, seed=s)], shared=True, margin=0.3, rng=rng(s), resamples=400)
        for s in range(200)
    ]
    assert sum(bool(one.equivalent) for one in found) <= binomial_band(200, 0.05)[1]


def heads_of_layers(draw, layers, heads, r, icc):
    """One run: x and y correlate by `r` between layers, which hold the share `icc` of their variance, and within."""

    def pair(n):
        x = draw.standard_normal(n)
        return x, r * x + np.sqrt(1 - r * r) * draw.standard_normal(n)

    x, y = (
        np.sqrt(icc) * np.repeat(own, heads) + np.sqrt(1 - icc) * each
        for own, each in zip(pair(layers), pair(layers * heads), strict=True)
    )
    return Sample(run="a", x=x, y=y, clusters=np.repeat(np.arange(layers), heads))


@pytest.mark.parametrize(("layers", "heads"), [(4, 4), (8, 8), (12, 12), (24, 16)])
@pytest.mark.parametrize("icc", [0.3, 0.7])
def test_the_interval_of_one_run_is_as_unsure_as_its_few_layers(layers, heads, icc):
    # percentiles of drawn layers held the true r in .80 to .86 / .84 to .85 / .88 to .89 / .84 to .87
    draw, trials = rng(7), 200
    found = [
        pooled_correlation(
            [heads_of_layers(draw, layers, heads, 0.3, icc)], shared=False, margin=0.3, rng=draw, resamples=400
        )
        for _ in range(trials)
    ]
    held = sum(one.estimate.low <= 0.3 <= one.estimate.high for one in found)
    assert held >= trials - binomial_band(trials, 0.1)[1]
    assert sum(bool(one.equivalent) for one in found) <= binomial_band(trials, 0.05)[1]
    assert found[0].estimate.method.endswith("no limit nearer than by the jackknife over layers")


def test_points_must_belong_together():
    with pytest.raises(ValueError, match="3 x, 2 y"):
        Sample(run="a", x=np.zeros(3), y=np.zeros(2), clusters=np.arange(3))
    with pytest.raises(ValueError, match="at least one model"):
        pooled_correlation([], shared=True, margin=0.3, rng=rng())
