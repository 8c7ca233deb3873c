"""From measurements to one verdict per hypothesis."""

import pytest
from evenbits.estimates import Estimate, Measurement, Verdict
from evenbits.report.verdicts import combine, verdicts
from hypothesis import given
from hypothesis import strategies as st

S, N, U, A, E = (
    Verdict.SUPPORTED,
    Verdict.NOT_SUPPORTED,
    Verdict.UNDERPOWERED,
    Verdict.NOT_APPLICABLE,
    Verdict.ERROR,
)


def row(verdict=S, **changes):
    values = {
        "hypothesis": "H-039",
        "test": "test_parity",
        "role": "criterion",
        "model": "m",
        "spec": "int4-g64",
        "verdict": verdict,
        "metric": "disparity",
        "estimate": Estimate(value=1.5, low=1.0, high=2.0, n=40, method="BCa"),
        "threshold": None,
        "p_value": 0.01,
        "explanation": f"{verdict}: disparity 1.5.",
    }
    return Measurement(**{**values, **changes})


@pytest.mark.parametrize(
    ("cases", "whole"),
    [
        ([S], S),
        ([S, S], S),
        ([S, A], S),  # what does not apply does not count
        ([S, N], N),  # one refuted case refutes
        ([U, N], N),
        ([S, U], U),  # nothing refuted, but the question is still open
        ([U, A], U),
        ([A, A], A),
        ([E, S, N, U, A], E),  # a missing result never looks like an answer
        ([], A),
    ],
)
def test_cases_combine_to_one_verdict(cases, whole):
    assert combine(cases) is whole


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1), st.randoms())
def test_combining_does_not_depend_on_order_or_repetition(cases, random):
    shuffled = cases + cases[:1]
    random.shuffle(shuffled)
    assert combine(shuffled) is combine(cases)


def test_only_the_criterion_decides_a_hypothesis():
    found = verdicts([row(S), row(N, role="prediction"), row(E, role="robustness")])
    assert found["H-039"]["verdict"] == "supported"
    assert len(found["H-039"]["by_case"]) == 1


def test_a_mixed_verdict_counts_its_cases_and_takes_the_numbers_of_the_first_that_decides():
    deciding = Estimate(value=0.5, n=7, method="BCa")
    found = verdicts([row(S), row(N, spec="int3-row", estimate=deciding, p_value=0.4)])["H-039"]
    assert found["verdict"] == "not_supported"
    assert found["explain"].startswith("Supported for 1 of 2, not supported for 1. test_parity, m, int3-row: ")
    assert (found["estimate"]["value"], found["n"], found["p_value"]) == (0.5, 7, 0.4)
    assert [case["verdict"] for case in found["by_case"]] == ["supported", "not_supported"]


def test_a_hypothesis_is_metric_sensitive_if_any_deciding_case_is():
    assert verdicts([row(S), row(S, metric_sensitive=True)])["H-039"]["metric_sensitive"] is True


def test_a_hypothesis_without_its_criterion_is_not_applicable_and_says_so():
    found = verdicts([row(S, role="robustness")])["H-039"]
    assert found["verdict"] == "not_applicable"
    assert "no criterion test of H-039 was selected" in found["explain"]


def test_established_findings_gate_and_controls_are_groups_after_the_hypotheses():
    found = verdicts(
        [
            row(N, role="gate", hypothesis="gate"),
            row(S, role="established", hypothesis="H-035"),
            row(S, role="control", hypothesis="H-039"),
            row(S),
            row(S, hypothesis="H-100"),
        ]
    )
    assert list(found) == ["H-035", "H-039", "H-100", "established", "gate", "control"]
    assert found["H-035"]["verdict"] == "not_applicable"
    assert found["gate"]["verdict"] == "not_supported"
    assert found["established"]["verdict"] == found["control"]["verdict"] == "supported"


def test_each_established_finding_has_a_verdict_of_its_own_between_the_hypotheses_and_the_groups():
    found = verdicts(
        [
            row(S, role="gate", hypothesis="gate"),
            row(N, role="established", hypothesis="E-2"),
            row(S, role="established", hypothesis="E-1"),
            row(U, role="established", hypothesis="E-1", model="other"),
            row(S),
        ]
    )
    assert list(found) == ["H-039", "E-1", "E-2", "gate"]  # no group beside the names
    assert [found[name]["verdict"] for name in found] == ["supported", "underpowered", "not_supported", "supported"]
    assert len(found["E-1"]["by_case"]) == 2


def test_copies_that_compute_the_same_function_are_one_training_run():
    def of(model, nll):
        return row(hypothesis="H-036", model=model, data={"nll_full_bits": {"de": nll, "sw": 2 * nll}})

    found = verdicts([of("a1", 100.0), of("a1-injected", 100.05)])["H-036"]
    assert found["explain"].startswith("Supported for 2 of 2 (2 models of 1 training run: copies")
    two = verdicts([of("a1", 100.0), of("a2", 103.0)])["H-036"]
    assert two["explain"].startswith("Supported for 2 of 2. ")
    steps = verdicts([of("r-s0020", 100.0), of("r-s0080", 90.0)])["H-036"]
    assert "2 models of 1 training run" in steps["explain"]
