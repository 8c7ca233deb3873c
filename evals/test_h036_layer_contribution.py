"""H-036: languages rely on different layer subsets; overlap with outlier layers predicts vulnerability.

Every layer is quantized alone and its damage measured in every language. Critical layers come from what layers write.
"""

import pytest
from evenbits.estimates import Threshold
from evenbits.studies.h036 import (
    additivity,
    different_layers,
    overlap_with_outliers,
    plan_beats_comparators,
)

DIFFERENT_LAYERS = Threshold(
    metric="partial_omega_squared_share",
    op=">",
    bound=0.0,
    why="programme: a significant layer x language interaction, p < .05, of damage shares: losing more of the same "
    "profile is difference in size, not in layers; refuted where the effect is shown to be below .06; fixed 2026-11",
)
LOW_OVERLAPS_MORE = Threshold(
    metric="cliffs_delta_overlap",
    op=">",
    bound=0.0,
    why="programme prediction: low-resource languages' critical layers overlap outlier layers more, p < .05",
)
ADDS_UP = Threshold(
    metric="explained_by_single_layers",
    op=">=",
    bound=0.85,
    why="plans add up single layers; the literature's least is 85 % of variance (arXiv 2607.12266)",
)
WORTH_ITS_BITS = Threshold(
    metric="saved_bits_of_worst_language",
    op=">",
    bound=0.0,
    why="a plan that the best rule of thumb at equal bits matches is not worth measuring layers for",
)


@pytest.mark.hypothesis("H-036")
@pytest.mark.criterion
def test_languages_rely_on_different_layers(layer_study, record, rng):
    """Damage of single layers depends on the language beyond what layer and language add up to."""
    result = record(different_layers(layer_study, rng=rng), DIFFERENT_LAYERS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-036")
@pytest.mark.prediction
def test_low_resource_languages_rely_on_outlier_layers(layer_writes, weight_statistics, tier, record, rng):
    """Critical layers of low-resource languages overlap high-kurtosis layers more than those of high-resource ones."""
    found = overlap_with_outliers(layer_writes, weight_statistics.layer_kurtosis(), tier=tier, rng=rng)
    result = record(found, LOW_OVERLAPS_MORE)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-036")
@pytest.mark.robustness(always="layers that do not add up say little of the model")
def test_single_layers_add_up_to_the_full_damage(layer_study, record, rng):
    """The sum of single-layer damage explains the full model's damage over languages."""
    result = record(additivity(layer_study, rng=rng), ADDS_UP)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-036")
@pytest.mark.robustness
def test_a_measured_plan_beats_rules_of_thumb_at_equal_bits(layer_study, protection, record, rng):
    """The plan for the worst language leaves it better off than every comparator of the same cost."""
    result = record(plan_beats_comparators(layer_study, protection, rng=rng), WORTH_ITS_BITS)
    assert result.supported, result.explain()
