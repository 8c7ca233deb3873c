"""H-037: are a model's outlier weights sparse, dense, or absent, where do they sit, and does it matter?

The class comes twice: from the weights (how many lie beyond five standard deviations) and from ablation (how much more
the largest weights carry than random ones). Super weights are searched through activation spikes and confirmed by
zeroing them. Across models, sparsity is correlated with damage and with how much of it a fixed k recovers.
"""

from evenbits.studies.h037 import figures, wants
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
from evenbits.studies.h037.sizes import outliers_by_size
from evenbits.studies.h037.superweights import SuperWeight, find_super_weights, super_weights
from evenbits.studies.study import Drawing, Study

__all__ = [
    "MIN_RUNS",
    "SHARES",
    "SIGMA",
    "STUDY",
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
    "measure_candidate",
    "measure_point",
    "normal_energy_ratio",
    "outliers_by_size",
    "outliers_in_few_layers",
    "place_outliers",
    "rank_models",
    "super_weights",
    "weigh_candidate",
    "worth_of_weights",
]

STUDY = Study(
    claims={"H-037": "Models with sparse outliers are easier to fix"},
    place=1,
    wants={
        "ablations": wants.ablations,
        "placements": wants.placements,
        "confirmed_super_weights": wants.confirmed_super_weights,
        "model_points": wants.model_points,
        "weight_statistics": wants.weight_statistics,
        "training_runs_of": wants.weight_statistics,  # copies of a model are known by the statistics of its embedding
    },
    drawings=(
        Drawing(place=60, figure=figures.SPARSITY, make=figures.sparsity),
        Drawing(place=70, figure=figures.MODELS, make=figures.models),
    ),
)
