"""Statistics: intervals, tests, effect sizes, equivalence, pooling, power and interaction. No torch.

Every function takes checked arrays and returns an `Estimate` or a small frozen record that holds one. What is undefined
(too few units, constant input, zero denominator) is an estimate without a value and with the reason, never NaN.
Randomness comes only through `rng`. Non-finite or unpaired input raises `ValueError` naming the argument.
"""

from __future__ import annotations

from evenbits.statistics.bootstrap import (
    RESAMPLES,
    at_least_jackknife,
    bootstrap_estimate,
    percentile_interval,
)
from evenbits.statistics.clusters import by_cluster
from evenbits.statistics.comparison import paired_differences
from evenbits.statistics.correlation import cluster_means, leave_group_out, pearson, spearman
from evenbits.statistics.crossed import CrossedBootstrap, Design, MeansStatistic, crossed_bootstrap
from evenbits.statistics.disparity import (
    Disparity,
    disparities,
    disparity,
    disparity_change,
    group_contrast,
    language_mean,
    over_all,
    paired_disparity,
    without_each_family,
)
from evenbits.statistics.effects import LARGE_DELTA, cliffs_delta
from evenbits.statistics.equivalence import LOG_PARITY, Equivalence, bootstrap_equivalence
from evenbits.statistics.flips import JointFlips, joint_flips
from evenbits.statistics.front import pareto
from evenbits.statistics.interaction import Interaction, Scale, layer_language_interaction, sums_of_squares
from evenbits.statistics.means import FEWEST_FOR_PASS, mean_interval, ratio_of_means, ratio_of_sums, relative_increase
from evenbits.statistics.multiplicity import benjamini_hochberg, holm
from evenbits.statistics.noninferiority import NoHarm, no_harm
from evenbits.statistics.outcomes import Alternative, Outcome
from evenbits.statistics.partial import partial_correlation
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, rearrangements, sign_flips
from evenbits.statistics.pooling import Components, pooled_means, variance_components
from evenbits.statistics.power import draw_damage, power
from evenbits.statistics.proportions import Stability, binomial_band, paired_proportions, stability, wilson
from evenbits.statistics.regression import added_r2, held_out_predictions, held_out_r2
from evenbits.statistics.selection import Selection, nested_selection_auc
from evenbits.statistics.sequential import By, Looks, looks, schedule

__all__ = [
    "FEWEST_FOR_PASS",
    "LARGE_DELTA",
    "LOG_PARITY",
    "PERMUTATIONS",
    "RESAMPLES",
    "Alternative",
    "By",
    "Components",
    "CrossedBootstrap",
    "Design",
    "Disparity",
    "Equivalence",
    "Interaction",
    "JointFlips",
    "Looks",
    "MeansStatistic",
    "NoHarm",
    "Outcome",
    "Scale",
    "Selection",
    "Stability",
    "added_r2",
    "at_least_jackknife",
    "benjamini_hochberg",
    "binomial_band",
    "bootstrap_equivalence",
    "bootstrap_estimate",
    "by_cluster",
    "cliffs_delta",
    "cluster_means",
    "crossed_bootstrap",
    "disparities",
    "disparity",
    "disparity_change",
    "draw_damage",
    "group_contrast",
    "held_out_predictions",
    "held_out_r2",
    "holm",
    "joint_flips",
    "language_mean",
    "layer_language_interaction",
    "leave_group_out",
    "looks",
    "mean_interval",
    "nested_selection_auc",
    "no_harm",
    "over_all",
    "paired_differences",
    "paired_disparity",
    "paired_proportions",
    "pareto",
    "partial_correlation",
    "pearson",
    "percentile_interval",
    "permutation_p",
    "pooled_means",
    "power",
    "ratio_of_means",
    "ratio_of_sums",
    "rearrangements",
    "relative_increase",
    "schedule",
    "sign_flips",
    "spearman",
    "stability",
    "sums_of_squares",
    "variance_components",
    "wilson",
    "without_each_family",
]
