"""Statistics: intervals, tests, effect sizes, equivalence, trend and interaction. No torch.

Every function takes checked arrays and returns an `Estimate` or a small frozen record that holds one. What is undefined
(too few units, constant input, zero denominator) is an estimate without a value and with the reason, never NaN.
Randomness comes only through `rng`. Non-finite or unpaired input raises `ValueError` naming the argument.
"""

from __future__ import annotations

from evenbits.statistics.bootstrap import (
    RESAMPLES,
    bootstrap_estimate,
    mean_interval,
    mean_intervals,
    percentile_interval,
    ratio_of_sums,
    relative_increase,
    t_interval,
)
from evenbits.statistics.comparison import paired_difference, paired_differences
from evenbits.statistics.correlation import cluster_means, kendall, leave_group_out, pearson, spearman
from evenbits.statistics.disparity import (
    CrossedBootstrap,
    Disparity,
    crossed_bootstrap,
    disparities,
    disparity,
    disparity_change,
)
from evenbits.statistics.effects import LARGE_DELTA, cliffs_delta, hedges_g
from evenbits.statistics.equivalence import (
    LOG_PARITY,
    Equivalence,
    bootstrap_equivalence,
    tost_independent,
    tost_paired,
)
from evenbits.statistics.flips import JointFlips, joint_flips
from evenbits.statistics.front import pareto
from evenbits.statistics.interaction import Interaction, layer_language_interaction, sums_of_squares
from evenbits.statistics.multiplicity import benjamini_hochberg, holm
from evenbits.statistics.noninferiority import NoHarm, no_harm
from evenbits.statistics.outcomes import Alternative, Outcome
from evenbits.statistics.partial import partial_correlation
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, rearrangements, sign_flips
from evenbits.statistics.pooling import Components, pooled_means, variance_components
from evenbits.statistics.power import correlation_power, correlation_units
from evenbits.statistics.proportions import Stability, binomial_band, stability, wilson
from evenbits.statistics.regression import added_r2, held_out_predictions, held_out_r2
from evenbits.statistics.selection import Selection, nested_selection_auc
from evenbits.statistics.sequential import Looks, looks, schedule
from evenbits.statistics.trend import page_trend

__all__ = [
    "LARGE_DELTA",
    "LOG_PARITY",
    "PERMUTATIONS",
    "RESAMPLES",
    "Alternative",
    "Components",
    "CrossedBootstrap",
    "Disparity",
    "Equivalence",
    "Interaction",
    "JointFlips",
    "Looks",
    "NoHarm",
    "Outcome",
    "Selection",
    "Stability",
    "added_r2",
    "benjamini_hochberg",
    "binomial_band",
    "bootstrap_equivalence",
    "bootstrap_estimate",
    "cliffs_delta",
    "cluster_means",
    "correlation_power",
    "correlation_units",
    "crossed_bootstrap",
    "disparities",
    "disparity",
    "disparity_change",
    "hedges_g",
    "held_out_predictions",
    "held_out_r2",
    "holm",
    "joint_flips",
    "kendall",
    "layer_language_interaction",
    "leave_group_out",
    "looks",
    "mean_interval",
    "mean_intervals",
    "nested_selection_auc",
    "no_harm",
    "page_trend",
    "paired_difference",
    "paired_differences",
    "pareto",
    "partial_correlation",
    "pearson",
    "percentile_interval",
    "permutation_p",
    "pooled_means",
    "ratio_of_sums",
    "rearrangements",
    "relative_increase",
    "schedule",
    "sign_flips",
    "spearman",
    "stability",
    "sums_of_squares",
    "t_interval",
    "tost_independent",
    "tost_paired",
    "variance_components",
    "wilson",
]
