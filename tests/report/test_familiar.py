import math

import pytest
from evenbits.report.familiar import NAMES, familiar, recovery


def row(**changes):
    return {
        "tokens": 40,
        "nll_full": 100.0,
        "nll_quantized": 104.0,
        "top1_changed": 0.05,
        "rms_delta_p": 0.02,
        "mean_delta_p": -0.01,
        "kl_nats_per_token": {"mean": 0.03, "p50": 0.01, "p99": 0.4},
        **changes,
    }


def test_the_names_are_those_that_llama_cpp_prints():
    found = familiar(row())
    assert tuple(found) == NAMES
    assert (found["Mean KLD"], found["99.0% KLD"]) == (0.03, 0.4)
    assert found["Same top p"] == pytest.approx(95)
    assert (found["Mean delta p"], found["RMS delta p"]) == (pytest.approx(-1), pytest.approx(2))
    assert found["PPL(Q)/PPL(base)"] == pytest.approx(math.exp(0.1))  # 4 nats over 40 tokens


def test_other_tokens_have_no_perplexity_to_compare():
    other = row(
        top1_changed=None,
        mean_delta_p=None,
        rms_delta_p=None,
        kl_nats_per_token={"mean": None, "p50": None, "p99": None, "reason": "no KL: 2 of 3 have other tokens"},
    )
    assert set(familiar(other).values()) == {None}


def test_an_endpoint_has_a_perplexity_but_no_kl():
    served = row(
        top1_changed=None,
        mean_delta_p=None,
        rms_delta_p=None,
        kl_nats_per_token={"mean": None, "p50": None, "p99": None, "reason": "no KL: an endpoint"},
    )
    found = familiar(served)
    assert found.pop("PPL(Q)/PPL(base)") == pytest.approx(math.exp(0.1))
    assert set(found.values()) == {None}


def test_a_ruined_model_has_no_finite_ratio():
    assert familiar(row(nll_quantized=1e6))["PPL(Q)/PPL(base)"] is None


def test_recovery_is_in_per_cent_of_the_original():
    assert recovery(0.5, 0.45) == pytest.approx(90)
    assert recovery(0.0, 0.4) is None
    assert recovery(0.5, None) is None
