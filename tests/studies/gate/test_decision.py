"""What the gate says of a disparity: its number, and which family carries it."""

import datetime as dt

import numpy as np
import pytest
from evenbits.estimates import Verdict, judge
from evenbits.numbers import estimate
from evenbits.statistics import binomial_band, mean_interval
from evenbits.studies.gate.decision import Outcome, decide_disparity
from evenbits.studies.gate.policy import Policy

POLICY = Policy.parse({"metric": {"disparity": {"limit": 3.0}}})


def decided(means):
    rows = []
    for tag, mean in means.items():
        values = mean + 0.01 * np.random.default_rng(0).standard_normal(20)
        bits = mean_interval(values, rng=np.random.default_rng(0), resamples=100).to_json()
        rows.append({"language": tag, "segments": 20, "excess_bits": bits, "excess_bits_by_segment": values.tolist()})
    return decide_disparity(POLICY, rows, metric="disparity", model="m", spec="s", seed=0, today=dt.date(2026, 1, 1))


def test_a_disparity_that_one_family_carries_is_said_to_be_its():
    # low: sw, yo (Atlantic-Congo), mt; high: de, en, fi, eu, all at 1: (10 + 10 + 1) / 3 - 1 = 6
    found = decided({"sw": 10.0, "yo": 10.0, "mt": 1.0, "de": 1.0, "en": 1.0, "fi": 1.0, "eu": 1.0})
    assert found.outcome is Outcome.FAIL
    assert found.because.endswith(
        "The family Atlantic-Congo carries it: the difference is +0.00 bits without, +6.00 bits with it."
    )
    assert found.finding().because == found.because


def test_a_disparity_within_its_limit_says_what_is_left_without_a_family():
    found = decided({"sw": 3.0, "mt": 2.0, "de": 1.0, "fi": 1.0})
    assert found.outcome is Outcome.PASS
    assert found.because == "Leaving one family out gives +1.00 to +2.00 bits of +1.50."


RATIO = Policy.parse({"metric": {"disparity_ratio": {"limit": 1.5}}})


def of_segments(low, high, policy=RATIO, seed=0):
    """Decide the ratio of two languages of low resource, drawn around `low` [2, S], to one of high, `high` [S]."""
    rows = [
        {
            "language": tag,
            "segments": len(values),
            "excess_bits": {"value": float(values.mean())},
            "excess_bits_by_segment": values.tolist(),
        }
        for tag, values in (("sw", low[0]), ("yo", low[1]), ("en", high))
    ]
    return decide_disparity(
        policy, rows, metric="disparity_ratio", model="m", spec="s", seed=seed, today=dt.date(2026, 1, 1)
    )


@pytest.mark.parametrize("spread", [2.0, 3.0])
def test_a_ratio_of_three_languages_at_its_limit_passes_and_fails_no_more_often_than_its_level(spread):
    # segments spread by 2 and 3 times their mean, a third of it shared; by the delta method .053 and .059 passed
    draw, trials, outcomes = np.random.default_rng(4), 400, []
    for seed in range(trials):
        shared, own = draw.standard_normal(20), draw.standard_normal((3, 20))
        bits = np.array([[1.5], [1.5], [1.0]]) * (1 + spread * (np.sqrt(0.3) * shared + np.sqrt(0.7) * own))
        outcomes.append(of_segments(bits[:2], bits[2], seed=seed).outcome)
    most = binomial_band(trials, 0.025)[1]
    assert outcomes.count(Outcome.PASS) <= most
    assert outcomes.count(Outcome.FAIL) <= most


def test_a_ratio_without_an_upper_limit_passes_nothing_and_is_shown_as_open():
    noisy = np.tile([-3.0, 4.0, -2.0, 5.0, -3.0, 2.0], 2)  # mean .5, standard error 1
    found = of_segments(np.tile(noisy + 0.2, (2, 1)), noisy)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "no lower and no upper limit" in found.estimate.reason
    steady = 0.5 + 0.1 * np.cos(np.arange(12.0))
    found = of_segments(np.tile(steady, (2, 1)), noisy)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.because.startswith(
        "The interval straddles the limit (no upper limit: the mean of the denominator, 0.5, is not clear of 0)."
    )
    assert estimate(found.estimate.to_json()).endswith(", open]")
    row = judge(found.finding(), found.threshold(), hypothesis="gate", test="t", role="gate")
    assert row.verdict is Verdict.UNDERPOWERED
    assert ", open], n 12" in row.explanation


def test_a_ratio_whose_lower_limit_lies_above_the_policys_fails_whatever_its_upper_one():
    noisy = np.tile([-3.0, 4.0, -2.0, 5.0, -3.0, 2.0], 2)  # 0.5 + 2.2 x 1 at the most: 10 is 3 times that
    found = of_segments(10 + 0.1 * np.cos(np.arange(24.0)).reshape(2, 12), noisy)
    assert found.estimate.high is None
    assert found.outcome is Outcome.FAIL
