"""H-035: pre-quantization kurtosis overlap predicts post-quantization degradation.

Overlap is the share of a language's activation energy that enters heavy-tailed weights, taken on the probe half of the
segments; damage is measured on the other half. Every other metric stands beside it on the same footing.
"""

import pytest
from evenbits.estimates import Threshold
from evenbits.studies.h035 import adds_held_out, beyond_what_is_known, forecasts_hold, overlap_predicts, own_layers

PREDICTS = Threshold(
    metric="pearson_r_overlap_excess_bits",
    op=">",
    bound=0.5,
    why="programme: Pearson r > 0.5 over languages, p < .05 within family x script; fixed 2026-11",
)
BEYOND = Threshold(
    metric="partial_r_overlap_excess_bits",
    op=">",
    bound=0.0,
    why="what token parity, full-precision NLL and resource level say already needs no kurtosis, p < .05",
)
ADDS = Threshold(
    metric="added_held_out_r2",
    op=">",
    bound=0.0,
    why="a predictor of its own adds R2 on left-out languages beyond all comparators, interval above zero",
)
OWN_LAYERS = Threshold(
    metric="r_above_permuted_layers",
    op=">",
    bound=0.0,
    why="where the kurtosis sits must matter, or any energy profile of the language would do, p < .05",
)
HOLDS = Threshold(
    metric="coverage_of_90_percent_interval",
    op=">=",
    bound=0.8,
    why="a 90 % interval that misses more than twice as often as it says must not be shown to a user",
)


@pytest.mark.hypothesis("H-035")
@pytest.mark.criterion
def test_kurtosis_overlap_predicts_degradation(prediction_study, record, rng):
    """Languages whose activations overlap heavy-tailed weights more lose more excess bits."""
    result = record(overlap_predicts(prediction_study, rng=rng), PREDICTS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-035")
@pytest.mark.robustness(always="a correlation may be that of token parity")
def test_overlap_says_more_than_tokens_likelihood_and_resources(prediction_study, record, rng):
    """The correlation remains when token parity, full-precision NLL and resource level are held constant."""
    result = record(beyond_what_is_known(prediction_study, rng=rng), BEYOND)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-035")
@pytest.mark.robustness
def test_overlap_adds_to_the_comparators_on_left_out_languages(prediction_study, record, rng):
    """Overlap adds held-out R2 beyond all comparators together."""
    result = record(adds_held_out(prediction_study, rng=rng), ADDS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-035")
@pytest.mark.robustness
def test_the_layers_own_kurtosis_is_what_matters(prediction_study, record, rng):
    """Overlap with the kurtosis of other layers correlates less."""
    result = record(own_layers(prediction_study, rng=rng), OWN_LAYERS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-035")
@pytest.mark.robustness
def test_a_diagnosis_calibrated_on_other_models_holds(prediction_study, other_models, record):
    """The interval that `evenbits diagnose` gives without quantizing covers the damage that is then measured."""
    result = record(forecasts_hold(prediction_study, other_models), HOLDS)
    assert result.supported, result.explain()
