"""Three-way decisions by the interval, and the n that would decide."""

import pytest
from evenbits.estimates import Estimate, Finding, Threshold, Verdict, judge, three_way, units_needed


def estimate(value, low, high, n=100):
    return Estimate(value=value, low=low, high=high, n=n, method="drawn")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.6, 0.9, Verdict.SUPPORTED), (0.1, 0.4, Verdict.NOT_SUPPORTED), (0.4, 0.6, Verdict.UNDERPOWERED)],
)
def test_a_claim_of_more_than_a_bound_is_decided_by_where_the_interval_lies(low, high, verdict):
    assert three_way(estimate((low + high) / 2, low, high), above=0.5) is verdict


def test_a_value_beyond_the_bound_alone_shows_nothing():
    assert three_way(estimate(0.9, 0.4, 1.0), above=0.5) is Verdict.UNDERPOWERED
    assert three_way(estimate(0.9, None, None), above=0.5) is Verdict.UNDERPOWERED


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.1, 0.1, Verdict.SUPPORTED),
        (0.3, 0.5, Verdict.NOT_SUPPORTED),
        (-0.5, -0.3, Verdict.NOT_SUPPORTED),
        (0.1, 0.3, Verdict.UNDERPOWERED),
        (-0.9, 0.9, Verdict.UNDERPOWERED),
    ],
)
def test_a_claim_of_smallness_has_two_bounds(low, high, verdict):
    assert three_way(estimate((low + high) / 2, low, high), above=-0.2, below=0.2) is verdict


def test_what_has_no_value_claims_nothing():
    assert three_way(Estimate.undefined("nothing there"), above=0.0) is Verdict.NOT_APPLICABLE


def test_the_n_that_would_decide_follows_from_the_root_law():
    # half width .4 around .2: four times the units halve it to .2
    assert units_needed(estimate(0.2, -0.2, 0.6, n=10), above=0.0) == 40
    # outside, the upper limit has to come down to the bound: .3 to .1 takes nine times as many
    assert units_needed(estimate(-0.1, -0.4, 0.2, n=10), above=0.0) == 90
    # inside two bounds, the nearer one counts
    assert units_needed(estimate(0.1, -0.1, 0.3, n=10), above=-0.2, below=0.2) == 40


def test_no_n_decides_a_value_on_its_bound_or_without_interval():
    assert units_needed(estimate(0.0, -0.5, 0.5), above=0.0) is None
    assert units_needed(estimate(0.5, None, 0.9), above=0.0) is None


R = Threshold(metric="r", op=">", bound=0.5, why="set for this test")


def judged(*, shown, value, low, high):
    finding = Finding(estimate=estimate(value, low, high), shown=shown)
    return judge(finding, R, hypothesis="H-000", test="t", role="criterion").verdict


@pytest.mark.parametrize(
    ("shown", "value", "low", "high", "verdict"),
    [
        (None, 0.7, 0.6, 0.8, Verdict.SUPPORTED),
        (None, 0.7, 0.4, 0.9, Verdict.UNDERPOWERED),
        (None, 0.3, 0.1, 0.45, Verdict.NOT_SUPPORTED),
        (None, 0.3, 0.1, 0.6, Verdict.UNDERPOWERED),
        (True, 0.7, 0.4, 0.9, Verdict.SUPPORTED),  # its tests show it and the value meets the bound
        (True, 0.3, 0.1, 0.6, Verdict.UNDERPOWERED),
        (True, 0.3, 0.1, 0.45, Verdict.NOT_SUPPORTED),
        (False, 0.7, 0.6, 0.8, Verdict.UNDERPOWERED),  # an insignificant value supports nothing, and refutes nothing
        (False, 0.3, 0.1, 0.45, Verdict.NOT_SUPPORTED),
    ],
)
def test_a_finding_is_judged_three_ways(shown, value, low, high, verdict):
    assert judged(shown=shown, value=value, low=low, high=high) is verdict


def test_an_undecided_finding_says_what_n_would_decide():
    found = judge(Finding(estimate=estimate(0.7, 0.3, 1.1, n=10)), R, hypothesis="H-000", test="t", role="criterion")
    # .4 wide and .2 away: four times as many
    assert "n of about 40 would decide" in found.explain()


@pytest.mark.parametrize(("op", "verdict"), [(">=", Verdict.SUPPORTED), (">", Verdict.NOT_SUPPORTED)])
def test_a_constant_on_its_bound_belongs_to_the_closed_claim(op, verdict):
    bound = Threshold(metric="share", op=op, bound=1.0, why="set for this test")
    found = judge(Finding(estimate=estimate(1.0, 1.0, 1.0)), bound, hypothesis="H-000", test="t", role="criterion")
    assert found.verdict is verdict
