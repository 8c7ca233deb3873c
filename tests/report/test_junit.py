"""A measurement as JUnit properties."""

from evenbits.estimates import Estimate, Finding, Threshold, judge
from evenbits.report.junit import properties

NEEDED = Threshold(metric="excess_bits", op="<=", bound=20.0, why="policy")


def measured(**changes):
    values = {"estimate": Estimate(value=0.1 + 0.2, low=0.1, high=0.5, n=30, method="BCa"), "p_value": 0.04}
    return judge(
        Finding(**values | changes),
        NEEDED,
        hypothesis="H-039",
        test="test_parity",
        role="criterion",
        model="m",
        spec="int4-g64",
    )


def test_hypothesis_verdict_effect_interval_need_and_p_are_properties_unrounded():
    found = dict(properties(measured()))
    assert found == {
        "evenbits.hypothesis": "H-039",
        "evenbits.role": "criterion",
        "evenbits.model": "m",
        "evenbits.spec": "int4-g64",
        "evenbits.verdict": "supported",
        "evenbits.metric": "excess_bits",
        "evenbits.estimate": "0.30000000000000004",
        "evenbits.low": "0.1",
        "evenbits.high": "0.5",
        "evenbits.n": "30",
        "evenbits.p_value": "0.04",
        "evenbits.needed": "<= 20.0",
    }


def test_a_case_of_the_gate_says_its_language_and_outcome():
    found = dict(properties(measured(data={"language": "ug", "outcome": "waived"})))
    assert (found["evenbits.language"], found["evenbits.outcome"]) == ("ug", "waived")


def test_an_undefined_number_is_left_out_and_its_reason_given():
    found = dict(properties(measured(estimate=Estimate.undefined("no segments"), p_value=None)))
    assert found["evenbits.reason"] == "no segments"
    assert found["evenbits.verdict"] == "error"
    assert not {"evenbits.estimate", "evenbits.low", "evenbits.p_value"} & found.keys()


def test_further_measurements_of_a_test_are_numbered():
    assert all(name.startswith("evenbits.2.") for name, _ in properties(measured(), number=2))
