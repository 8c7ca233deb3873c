"""Two levels of resampling, disparity between groups of languages, and equivalence."""

import math

import numpy as np
import pytest
from evenbits.statistics import (
    LOG_PARITY,
    bootstrap_equivalence,
    crossed_bootstrap,
    disparities,
    disparity,
    disparity_change,
)
from hypothesis import given, settings
from hypothesis import strategies as some

LOW, HIGH = ("am-Ethi", "si-Sinh", "ta-Taml"), ("de-Latn", "fr-Latn", "ru-Cyrl")


def rng(seed=0):
    return np.random.default_rng(seed)


def damage(ratio, *, languages=6, segments=30, conditions=1, seed=0, spread=0.1):
    source = rng(seed)
    table = {f"low{i}": ratio + spread * source.normal(size=(conditions, segments)) for i in range(languages)}
    return table | {f"high{i}": 1 + spread * source.normal(size=(conditions, segments)) for i in range(languages)}


def sides(table):
    return {side: [tag for tag in table if tag.startswith(side)] for side in ("low", "high")}


def test_disparity_is_the_difference_and_ratio_of_means_over_languages():
    # low means 4, 2, 6 -> 4; high means 1, 2, 3 -> 2: difference 2, ratio 2
    table = dict(
        zip((*LOW, *HIGH), [[3.0, 5.0], [2.0, 2.0], [6.0, 6.0], [1.0, 1.0], [0.0, 4.0], [3.0, 3.0]], strict=True)
    )
    found = disparity(table, low=LOW, high=HIGH, rng=rng())
    assert found.low.value == pytest.approx(4.0)
    assert found.high.value == pytest.approx(2.0)
    assert found.difference.value == pytest.approx(2.0)
    assert found.ratio.value == pytest.approx(2.0)
    assert found.log_ratio.value == pytest.approx(math.log(2))
    assert found.ratio.n == 6


def test_ratio_is_undefined_with_its_reason_below_the_noise_floor():
    found = disparity(damage(2.0), **sides(damage(2.0)), rng=rng(), noise_floor=1.5)
    assert found.ratio.value is None
    assert found.log_ratio.value is None
    assert "noise floor, 1.5" in found.ratio.reason
    assert found.parity.equivalent is None
    assert found.difference.value == pytest.approx(1.0, abs=0.1)


def test_log_ratio_is_undefined_where_low_languages_gain():
    table = damage(-0.5)
    found = disparity(table, **sides(table), rng=rng())
    assert found.ratio.value < 0
    assert found.log_ratio.value is None
    assert "not above 0" in found.log_ratio.reason


def test_resamples_without_high_damage_open_the_interval_upwards():
    table = damage(2.0, spread=8.0, segments=5, languages=5)
    found = disparity(table, **sides(table), rng=rng())
    assert found.high.value > 0
    assert found.ratio.high is None
    assert "open interval" in found.ratio.reason
    assert found.parity.equivalent is False


def test_segments_are_shared_by_languages_and_conditions():
    # the same hard segment in every language: a difference between groups must not see it at all
    hard = rng(1).gamma(1, 5, size=20)
    table = {f"low{i}": np.stack([hard + 2, hard + 3]) for i in range(3)} | {
        f"high{i}": np.stack([hard + 1, hard + 1]) for i in range(3)
    }
    first, second = disparities(table, **sides(table), rng=rng())
    assert (first.difference.low, first.difference.high) == pytest.approx((1.0, 1.0))
    assert (second.difference.low, second.difference.high) == pytest.approx((2.0, 2.0))
    assert first.low.high - first.low.low > 1  # while each mean moves with the draw of segments
    nested = disparity({tag: rows[0] for tag, rows in table.items()}, **sides(table), rng=rng(), aligned=False)
    assert nested.difference.high - nested.difference.low > 1


def test_resampling_languages_has_the_variance_of_independent_groups():
    low, high = rng(5).normal(5, 1, size=8), rng(6).normal(3, 2, size=10)
    table = {f"low{i}": np.full(4, value) for i, value in enumerate(low)}
    table |= {f"high{i}": np.full(4, value) for i, value in enumerate(high)}
    found = crossed_bootstrap(
        table,
        lambda means: means[:, :8, 0].mean(axis=1) - means[:, 8:, 0].mean(axis=1),
        rng=rng(),
        groups={tag: tag.rstrip("0123456789") for tag in table},
        resamples=8000,
    )
    expected = math.sqrt(low.var() / 8 + high.var() / 10)
    # relative standard error of a standard deviation from 8000 draws: 1 / sqrt(16000) = .8 %
    assert found.replicates.std() == pytest.approx(expected, rel=0.03)
    assert found.estimate().value == pytest.approx(low.mean() - high.mean())


def test_conditions_are_compared_with_the_draws_they_share():
    source = rng(2)
    base = damage(3.0, conditions=1, seed=2, spread=1.0)
    table = {
        tag: np.vstack([row, row * (0.5 if tag.startswith("low") else 1.0)]) for tag, row in base.items()
    }  # the second condition halves low-resource damage exactly
    before, after = disparities(table, **sides(table), rng=source)
    change = disparity_change(before, after)
    assert change.value == pytest.approx(math.log(0.5))
    assert (change.low, change.high) == pytest.approx((math.log(0.5), math.log(0.5)))
    with pytest.raises(ValueError, match="share their draws"):
        disparity_change(before, disparity(base, **sides(base), rng=rng(), resamples=200))


def test_forty_languages_ten_conditions_are_resampled_within_seconds():
    import time

    table = damage(2.0, languages=20, segments=84, conditions=10)
    start = time.process_time()
    assert len(disparities(table, **sides(table), rng=rng())) == 10
    assert time.process_time() - start < 2.0  # about .05 s


def test_disparity_refuses_groups_that_make_no_sense():
    table = damage(2.0, languages=2)
    with pytest.raises(ValueError, match="low names no language"):
        disparity(table, low=[], high=["high0"], rng=rng())
    with pytest.raises(ValueError, match="xx, for which there is no damage"):
        disparity(table, low=["xx"], high=["high0"], rng=rng())
    with pytest.raises(ValueError, match="both in low and in high"):
        disparity(table, low=["low0"], high=["low0"], rng=rng())
    table["low1"] = np.ones(7)
    with pytest.raises(ValueError, match="aligned=False"):
        disparity(table, **sides(table), rng=rng())
    table["low1"] = np.full(30, math.inf)
    with pytest.raises(ValueError, match="not finite"):
        disparity(table, **sides(table), rng=rng())


def test_intervals_of_the_difference_cover_the_true_one():
    # 200 studies: language effects (sd 1) and segment effects (sd 1), 8 languages a side, true difference 1
    source = rng(17)
    covered = 0
    for _ in range(200):
        hard = source.normal(size=15)
        table = {
            f"{side}{i}": level + source.normal() + hard + source.normal(size=15)
            for side, level in (("low", 3.0), ("high", 2.0))
            for i in range(8)
        }
        found = disparity(table, **sides(table), rng=source, resamples=300).difference
        covered += found.low <= 1.0 <= found.high
    # nominal 95 %; a bootstrap of 8 languages a side covers about 93 %
    assert 0.89 <= covered / 200 <= 0.99


def test_parity_is_shown_only_where_the_interval_lies_inside_the_bounds():
    equal, apart, vague = damage(1.0), damage(1.6), damage(1.0, spread=3.0, segments=8)
    assert disparity(equal, **sides(equal), rng=rng()).parity.equivalent is True
    assert disparity(apart, **sides(apart), rng=rng()).parity.equivalent is False
    assert disparity(vague, **sides(vague), rng=rng()).parity.equivalent is False  # no evidence is not parity


@settings(max_examples=60, deadline=None)
@given(some.floats(-0.4, 0.4), some.floats(0.001, 0.3), some.integers(0, 99), some.integers(40, 400))
def test_bootstrap_p_and_interval_are_one_decision(centre, spread, seed, count):
    found = bootstrap_equivalence(centre, rng(seed).normal(centre, spread, size=count), n=9)
    assert 0 < found.p_value <= 1
    assert found.equivalent == (found.p_value <= 0.05)
    assert found.equivalent == (found.estimate.low > -LOG_PARITY and found.estimate.high < LOG_PARITY)
    mirrored = bootstrap_equivalence(-centre, -rng(seed).normal(centre, spread, size=count), n=9)
    assert mirrored.p_value == found.p_value


def test_undefined_replicates_count_against_equivalence():
    replicates = np.zeros(1000)
    assert bootstrap_equivalence(0.0, replicates, n=5).equivalent is True
    replicates[:60] = math.nan
    found = bootstrap_equivalence(0.0, replicates, n=5)
    assert found.equivalent is False
    assert found.p_value == pytest.approx(61 / 1001)
