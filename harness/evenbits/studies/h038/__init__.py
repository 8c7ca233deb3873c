"""H-038: are languages that lose less than expected represented more redundantly, and does training decide it?

Groups of languages are settled before any feature is measured; findings are functions of a study and a generator.
"""

from evenbits.studies.h038 import wants
from evenbits.studies.h038.contrasts import CONTRASTS, Contrast, TrainedModel, contrasted, name_in_contrasts
from evenbits.studies.h038.discrimination import Discrimination, discriminate
from evenbits.studies.h038.distribution import more_distributed
from evenbits.studies.h038.features import EXPECTED, FeatureTable, measured_features
from evenbits.studies.h038.gradient import along_all_languages
from evenbits.studies.h038.groups import Refusal, ResilienceGroups, divide
from evenbits.studies.h038.recommendations import Recommendation, recommend, training_choices, training_recipes
from evenbits.studies.h038.redundancy import loss_increase
from evenbits.studies.h038.study import ResilienceStudy, SettledGroups, group_languages
from evenbits.studies.h038.verdict import (
    beyond_resource_level,
    discriminating_features,
    without_a_family,
    without_likelihood,
)
from evenbits.studies.study import Study

__all__ = [
    "CONTRASTS",
    "EXPECTED",
    "STUDY",
    "Contrast",
    "Discrimination",
    "FeatureTable",
    "Recommendation",
    "Refusal",
    "ResilienceGroups",
    "ResilienceStudy",
    "SettledGroups",
    "TrainedModel",
    "along_all_languages",
    "beyond_resource_level",
    "contrasted",
    "discriminate",
    "discriminating_features",
    "divide",
    "group_languages",
    "loss_increase",
    "measured_features",
    "more_distributed",
    "name_in_contrasts",
    "recommend",
    "training_choices",
    "training_recipes",
    "without_a_family",
    "without_likelihood",
]

STUDY = Study(
    claims={"H-038": "Resilient languages use more distributed representations"},
    place=4,
    wants={
        "activations": wants.activations,
        "damage": wants.damage,
        "trained_models": wants.trained_models,
        "gate_damage": wants.damage,
        "language_features": wants.language_features,
    },
)
