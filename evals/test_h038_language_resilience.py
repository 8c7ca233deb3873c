"""H-038: resilience correlates with representation redundancy.

Low-resource languages that lose less than training text and likelihood explain, against high-resource languages that
lose more: settled before any feature is looked at. Does a feature of their representations tell them apart?
"""

import pytest
from evenbits.estimates import Threshold
from evenbits.studies.h038 import (
    along_all_languages,
    beyond_resource_level,
    discriminating_features,
    more_distributed,
    training_choices,
    without_a_family,
    without_likelihood,
)

DISCRIMINATES = Threshold(
    metric="largest_cliffs_delta",
    op=">=",
    bound=0.474,
    why="programme: a feature with FDR q < .05 and a large effect in the direction fixed for it, and a nested AUC "
    "above the null of the whole selection, p < .05; fixed 2026-11",
)
MORE_DISTRIBUTED = Threshold(
    metric="cliffs_delta_distribution",
    op=">",
    bound=0.0,
    why="programme prediction: resilient languages use more distributed representations, p < .05; signs fixed 2026-11",
)
HOLDS_BY_EXPOSURE = Threshold(
    metric="largest_cliffs_delta",
    op=">=",
    bound=0.474,
    why="the same criterion must not hang on likelihood being one of the covariates that make the groups",
)
BEYOND_RESOURCE = Threshold(
    metric="largest_cliffs_delta",
    op=">=",
    bound=0.474,
    why="the groups differ in resource level by definition; a feature that only follows it says nothing of resilience",
)
WITHOUT_A_FAMILY = Threshold(
    metric="least_cliffs_delta",
    op=">=",
    bound=0.474,
    why="related languages are not independent: the effect must be large without any one family",
)
OVER_ALL_LANGUAGES = Threshold(
    metric="largest_partial_r",
    op=">=",
    bound=0.5,
    why="groups of a few languages see large effects only; over all languages a large correlation is .5 (Cohen 1988)",
)
SAVES_DAMAGE = Threshold(
    metric="damage_difference",
    op="<",
    bound=0.0,
    why="a training recommendation needs a contrast of trained models with less damage, Holm p < .05 over contrasts, "
    "from at least 4 pairs of training runs: languages of one run are no replicates",
)


@pytest.mark.hypothesis("H-038")
@pytest.mark.criterion
def test_a_feature_tells_resilient_from_vulnerable_languages(resilience, record, rng):
    """Some feature tells the groups apart, with a large effect, and the search for it holds on languages left out."""
    result = record(discriminating_features(resilience, rng=rng), DISCRIMINATES)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.prediction
def test_resilient_languages_use_more_distributed_representations(resilience, record, rng):
    """All features together, with signs fixed in advance, are higher in resilient languages."""
    result = record(more_distributed(resilience, rng=rng), MORE_DISTRIBUTED)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.robustness
def test_the_groups_may_be_made_without_likelihood(resilience, record, rng):
    """The criterion holds for groups by residuals on resource level alone."""
    result = record(without_likelihood(resilience, rng=rng), HOLDS_BY_EXPOSURE)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.robustness(always="languages with little training text differ in more than one way")
def test_the_features_tell_more_than_resource_level(resilience, record, rng):
    """The criterion holds for what is left of the features when resource level and likelihood are taken out."""
    result = record(beyond_resource_level(resilience, rng=rng), BEYOND_RESOURCE)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.robustness
def test_no_family_alone_makes_the_effect(resilience, record, rng):
    """The decisive feature keeps a large effect when any one family is left out."""
    result = record(without_a_family(resilience, rng=rng), WITHOUT_A_FAMILY)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.robustness
def test_the_residual_goes_with_a_feature_over_all_languages(resilience, record, rng):
    """Damage beyond expectation correlates with some feature over low, middle and high resource levels."""
    result = record(along_all_languages(resilience, rng=rng), OVER_ALL_LANGUAGES)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-038")
@pytest.mark.robustness
def test_a_training_choice_saves_damage(training_advice, record):
    """Some training recommendation is backed by trained models that differ in nothing else."""
    result = record(training_choices(training_advice), SAVES_DAMAGE)
    assert result.supported, result.explain()
