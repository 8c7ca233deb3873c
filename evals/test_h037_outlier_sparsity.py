"""H-037: outlier weights are sparse or dense, and models with sparse outliers are easier to fix.

On one model: the class, whether it is firm, whether ablation agrees, and whether single weights are super weights.
Over eight models and more: whether sparsity predicts how much of the damage a fixed k recovers.
"""

import pytest
from evenbits.estimates import Threshold
from evenbits.studies.h037 import (
    across_models,
    against_damage,
    clear_pattern,
    outliers_by_size,
    outliers_in_few_layers,
    super_weights,
)

CLEAR = Threshold(
    metric="class_stability",
    op=">=",
    bound=0.95,
    why="programme: clear sparsity pattern, in 95 % of resamples of tensors and agreeing with ablation; fixed 2026-11",
)
SPARSE_IS_EASIER = Threshold(
    metric="spearman_sparsity_recovered",
    op=">",
    bound=0.0,
    why="programme prediction: sparse outliers are easier to preserve selectively; fixed 2026-11",
)
SPARSE_LOSE_MORE = Threshold(
    metric="spearman_sparsity_damage",
    op=">",
    bound=0.0,
    why="an absmax grid has to span its outliers: the more concentrated they are, the coarser it is for the rest",
)
FEW_CARRY_MOST = Threshold(
    metric="damage_ratio",
    op=">=",
    bound=0.5,
    why="Q3, super weights (.01 %) matter more than general outliers (1 %) if they do at least half of the damage",
)
FEW_LAYERS = Threshold(
    metric="effective_share_of_layers",
    op="<=",
    bound=0.5,
    why="Q3, per layer if the damage is as if spread over half of the layers at most, else distributed",
)
ONE_WEIGHT = Threshold(
    metric="perplexity_factor",
    op=">=",
    bound=2.0,
    why="a super weight multiplies perplexity (arXiv 2411.07191: by orders of magnitude); twofold is the least",
)


@pytest.mark.hypothesis("H-037")
@pytest.mark.criterion
def test_sparsity_pattern_is_clear(weight_statistics, ablations, record, rng):
    """The sparsity class survives resampling of tensors and agrees with ablation."""
    result = record(clear_pattern(weight_statistics, ablations, rng=rng), CLEAR)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-037")
@pytest.mark.prediction
def test_sparse_outliers_are_easier_to_preserve(model_points, record, rng, first_grid):
    """Over training runs, sparser outliers go with a larger share of damage recovered at the same k."""
    result = record(across_models(model_points, rng=rng), SPARSE_IS_EASIER, spec=first_grid)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-037")
@pytest.mark.robustness
def test_sparse_outliers_cost_more_when_nothing_is_kept(model_points, record, rng, first_grid):
    """Over training runs, sparser outliers go with more damage while nothing is kept."""
    result = record(against_damage(model_points, rng=rng), SPARSE_LOSE_MORE, spec=first_grid)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-037")
@pytest.mark.robustness
def test_few_weights_carry_most_of_the_damage(weight_statistics, ablations, record, rng):
    """Zeroing the largest .01 % does at least half the damage of zeroing the largest 1 %."""
    result = record(outliers_by_size(weight_statistics, ablations, rng=rng), FEW_CARRY_MOST)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-037")
@pytest.mark.robustness
def test_outliers_sit_in_few_layers(weight_statistics, ablations, placements, record, rng):
    """Zeroing the largest 1 % of one layer at a time does its damage in few of them."""
    found = outliers_in_few_layers(weight_statistics, ablations, placements, rng=rng)
    result = record(found, FEW_LAYERS)
    assert result.supported, result.explain()


@pytest.mark.hypothesis("H-037")
@pytest.mark.robustness
def test_a_super_weight_exists(confirmed_super_weights, record):
    """Some single weight, found through activation spikes, multiplies perplexity when it is zeroed."""
    result = record(super_weights(confirmed_super_weights), ONE_WEIGHT)
    assert result.supported, result.explain()
