"""The statistics that verdicts hang on, each beside scipy, statsmodels or pingouin.

Values agree to 1e-6. What is random agrees within its Monte-Carlo error: four standard errors of the share or quantile
estimated, stated beside the assert. Tests of single modules go further; here every peer stands in one place.
"""

import math

import numpy as np
import pandas as pd
import pingouin
import pytest
from evenbits.statistics import (
    benjamini_hochberg,
    cliffs_delta,
    partial_correlation,
    pearson,
    spearman,
)
from scipy import stats
from statsmodels.stats.multitest import multipletests

CHEAP = {"resamples": 100, "permutations": 99}


def rng(seed=0):
    return np.random.default_rng(seed)


def pair(n, seed=0, slope=0.6):
    x = rng(seed).normal(size=n)
    return x, slope * x + rng(seed + 100).normal(size=n)


def within(p, draws):
    """Four standard errors of a share `p` of `draws`."""
    return 4 * math.sqrt(p * (1 - p) / draws)


@pytest.mark.parametrize("digits", [9, 0], ids=["distinct", "ties"])
@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
def test_correlation(ours, theirs, digits):
    x, y = (np.round(values, digits) for values in pair(30))
    value = ours(x, y, rng=rng(), **CHEAP).estimate.value
    assert value == pytest.approx(theirs(x, y).statistic, abs=1e-6)
    assert value == pytest.approx(pingouin.corr(x, y, method=ours.__name__)["r"].iloc[0], abs=1e-6)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_partial_correlation_and_its_p(kind):
    source = rng(6)
    c, d = source.normal(size=60), source.normal(size=60)
    x, y = c + source.normal(size=60), c - d + 0.3 * (source.normal(size=60) + c)
    frame = pd.DataFrame({"x": x, "y": y, "c": c, "d": d})
    theirs = pingouin.partial_corr(frame, x="x", y="y", covar=["c", "d"], method=kind).iloc[0]
    ours = partial_correlation(x, y, {"c": c, "d": d}, kind=kind, rng=rng(1), resamples=100, permutations=9999)
    assert ours.estimate.value == pytest.approx(theirs["r"], abs=1e-6)
    p = theirs[next(name for name in theirs.index if name.lower().replace("_", "-").startswith("p-val"))]
    # pingouin's p is that of a t-test, exact for normal residuals only: another .01
    assert ours.p_value == pytest.approx(p, abs=within(p, 9999) + 0.01)


def test_bca_interval():
    x, y = pair(15, seed=3)
    given = {"paired": True, "vectorized": False, "method": "BCa"}
    theirs = stats.bootstrap((x, y), lambda a, b: stats.pearsonr(a, b).statistic, n_resamples=500, rng=rng(5), **given)
    same_draws = pearson(x, y, rng=rng(5), resamples=500, permutations=9).estimate
    assert (same_draws.low, same_draws.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-6)
    other_draws = pearson(x, y, rng=rng(6), resamples=20_000, permutations=9).estimate
    # a bound is a quantile of 500 draws near .025: one whose level is off by four standard errors of that share
    drawn, off = np.sort(theirs.bootstrap_distribution), within(0.025, 500)
    for bound, found in zip(theirs.confidence_interval, (other_draws.low, other_draws.high), strict=True):
        level = (drawn <= bound).mean()
        low, high = np.quantile(drawn, np.clip([level - off, level + off], 0, 1))
        assert low <= found <= high


def test_permutation_p():
    a, b = rng(1).normal(0.9, 1, size=7), rng(2).normal(size=7)

    def delta(p, q):
        return np.sign(p[:, None] - q).mean()

    theirs = stats.permutation_test((a, b), delta, vectorized=False, n_resamples=np.inf).pvalue
    exact = cliffs_delta(a, b, rng=rng(), resamples=100, permutations=9999)  # 3432 labellings: all of them
    assert exact.p_value == pytest.approx(theirs, abs=1e-6)
    drawn = cliffs_delta(a, b, rng=rng(), resamples=100, permutations=2000)
    assert drawn.p_value != exact.p_value
    assert drawn.p_value == pytest.approx(theirs, abs=within(theirs, 2000) + 1 / 2001)  # (b + 1) / (m + 1)


def test_fdr():
    values = np.round(rng(2).uniform(0.001, 0.2, size=12), 2)  # ties included
    ours = list(benjamini_hochberg({str(i): float(value) for i, value in enumerate(values)}).values())
    assert ours == pytest.approx(stats.false_discovery_control(values), abs=1e-6)
    assert ours == pytest.approx(multipletests(values, method="fdr_bh")[1], abs=1e-6)
    assert ours == pytest.approx(pingouin.multicomp(values, method="fdr_bh")[1], abs=1e-6)


@pytest.mark.parametrize("digits", [9, 0], ids=["distinct", "ties"])
def test_cliffs_delta(digits):
    a, b = np.round(rng(1).normal(0.8, 1, size=9), digits), np.round(rng(2).normal(size=14), digits)
    value = cliffs_delta(a, b, rng=rng(), **CHEAP).estimate.value
    # Vargha and Delaney's A, which pingouin calls CLES, is P(a > b) + P(a = b) / 2 = (delta + 1) / 2; so is U / (n m)
    assert value == pytest.approx(2 * pingouin.compute_effsize(a, b, eftype="cles") - 1, abs=1e-6)
    assert value == pytest.approx(2 * stats.mannwhitneyu(a, b).statistic / (9 * 14) - 1, abs=1e-6)
