"""H-037: are a model's outlier weights sparse, dense, or absent, where do they sit, and does it matter?

The class comes twice: from the weights (how many lie beyond five standard deviations) and from ablation (how much more
the largest weights carry than random ones). Super weights are searched through activation spikes and confirmed by
zeroing them. Across models, sparsity is correlated with damage and with how much of it a fixed k recovers.
"""

from evenbits.studies.h037.ablation import SHARES, Ablation, ablate, ablation_sample, normal_energy_ratio
from evenbits.studies.h037.classes import SIGMA, class_by_ablation, class_by_weights, clear_pattern
from evenbits.studies.h037.friendliness import (
    MIN_RUNS,
    ModelPoint,
    across_models,
    against_damage,
    measure_point,
)
from evenbits.studies.h037.placement import Placement, outliers_in_few_layers, place_outliers
from evenbits.studies.h037.ranking import (
    Candidate,
    Ranked,
    Ranking,
    measure_candidate,
    rank_models,
    weigh_candidate,
    worth_of_weights,
)
from evenbits.studies.h037.runs import latest, origin_of, step_of, training_run, training_runs
from evenbits.studies.h037.sizes import outliers_by_size
from evenbits.studies.h037.superweights import SuperWeight, find_super_weights, super_weights

__all__ = [
    "MIN_RUNS",
    "SHARES",
    "SIGMA",
    "Ablation",
    "Candidate",
    "ModelPoint",
    "Placement",
    "Ranked",
    "Ranking",
    "SuperWeight",
    "ablate",
    "ablation_sample",
    "across_models",
    "against_damage",
    "class_by_ablation",
    "class_by_weights",
    "clear_pattern",
    "find_super_weights",
    "latest",
    "measure_candidate",
    "measure_point",
    "normal_energy_ratio",
    "origin_of",
    "outliers_by_size",
    "outliers_in_few_layers",
    "place_outliers",
    "rank_models",
    "step_of",
    "super_weights",
    "training_run",
    "training_runs",
    "weigh_candidate",
    "worth_of_weights",
]
