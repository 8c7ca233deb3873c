"""What the gate says of a disparity: its number, and which family carries it."""

import datetime as dt

import numpy as np
from evenbits.statistics import mean_interval
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
