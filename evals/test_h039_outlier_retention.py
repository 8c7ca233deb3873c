"""H-039: keeping the top-k outliers in FP16 disproportionately helps low-resource languages.

Kept weights leave the grid before its scale is fitted. Resource levels are fixed before anything is measured.
"""

import math

import pytest
from evenbits.estimates import Threshold
from evenbits.studies.h039 import (
    against_protection,
    better_choice,
    equal_bits,
    falling,
    language_awareness,
    parity_elsewhere,
    random_control,
)

PARITY = Threshold(
    metric="disparity_ratio",
    op="<",
    bound=1.25,
    why="programme: k < 1 % achieves parity; two one-sided tests inside +-log 1.25, Holm over k, a paired fall from "
    "k = 0, and no high-resource language harmed (non-inferiority within a quarter of their mean); fixed 2026-11",
)
FALLS = Threshold(
    metric="asinh_change_low_minus_high",
    op="<",
    bound=0.0,
    why="programme prediction: disparity falls in k; one change per language, k = 1 % against 0, tiers compared by the "
    "crossed bootstrap over families: a trend test over nested k rejects where tiers do not differ; fixed 2026-11",
)
BEATS_RANDOM = Threshold(
    metric="recovered_bits",
    op=">",
    bound=0.0,
    why="the largest weights must recover more than as many random ones, or 'outlier' explains nothing",
)
BEATS_SMALLER_GROUPS = Threshold(
    metric="log_disparity_change",
    op="<",
    bound=0.0,
    why="retention must leave less disparity than the same bits spent on smaller groups",
)
PARITY_ELSEWHERE = Threshold(
    metric="disparity_ratio",
    op="<",
    bound=1.25,
    why="the criterion's own bound and tests, for another choice of as many weights where magnitude has no parity",
)
BEATS_MAGNITUDE = Threshold(
    metric="saved_bits",
    op=">",
    bound=0.0,
    why="a choice that looks at activations, gradients, scope or range must leave less damage at equal k, p < .05",
)
LANGUAGES_MATTER = Threshold(
    metric="saved_bits_of_low_resource_languages",
    op=">",
    bound=0.0,
    why="looking at low-resource languages must help these more than looking at all, or it was in vain; p < .05",
)
BEATS_PROTECTION = Threshold(
    metric="log_disparity_change",
    op="<",
    bound=0.0,
    why="retention must leave less disparity than the same bits spent on layers in high precision",
)

assert math.isclose(math.log(PARITY.bound), 0.2231, abs_tol=1e-4)  # the band of METHOD's equivalence test


@pytest.mark.hypothesis("H-039")
@pytest.mark.criterion
def test_parity_below_one_percent(retention_parity, record):
    """Some k < 1 % brings low- and high-resource languages to parity, and makes no high-resource language worse."""
    result = record(retention_parity, PARITY)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.prediction
def test_disparity_falls_with_k(retention, record, rng):
    """The damage of low-resource languages falls more than that of high-resource ones as k grows."""
    result = record(falling(retention, rng=rng), FALLS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness(always="as many weights of any kind may do the same")
def test_largest_weights_beat_random_ones(retention, record, rng):
    """Keeping the largest weights recovers more damage than keeping as many random ones."""
    result = record(random_control(retention, rng=rng), BEATS_RANDOM)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness
def test_retention_beats_smaller_groups_at_equal_bits(smaller_groups, record, rng):
    """Retention leaves less disparity than smaller groups that cost the same bits."""
    result = record(equal_bits(smaller_groups, rng=rng), BEATS_SMALLER_GROUPS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness
def test_retention_beats_layer_protection_at_equal_bits(comparators, record, rng):
    """Retention leaves less disparity than layers, or parts of them, in high precision that cost the same bits."""
    result = record(against_protection(comparators, rng=rng), BEATS_PROTECTION)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness
def test_another_choice_reaches_parity_where_magnitude_does_not(comparators, record, rng):
    """Where the largest magnitudes leave a disparity, as many weights chosen otherwise bring parity."""
    result = record(parity_elsewhere(comparators, rng=rng), PARITY_ELSEWHERE)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness
def test_another_choice_recovers_more_than_magnitude(comparators, record, rng):
    """As many weights chosen otherwise leave less damage than the largest magnitudes."""
    result = record(better_choice(comparators, rng=rng), BEATS_MAGNITUDE)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-039")
@pytest.mark.robustness
def test_statistics_of_low_resource_languages_help_these_more(comparators, record, rng):
    """Choosing by statistics of the low-resource languages helps them more than choosing by those of all languages."""
    result = record(language_awareness(comparators, rng=rng), LANGUAGES_MATTER)
    assert result.supported, result.explain()
