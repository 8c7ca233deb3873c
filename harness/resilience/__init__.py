"""H-038: are languages that lose less than expected represented more redundantly, and does training decide it?

Groups of languages are settled before any feature is measured; findings are functions of a study and a generator.
"""

from harness.resilience.contrasts import CONTRASTS, Contrast, TrainedModel, contrasted, needed_models
from harness.resilience.discrimination import Discrimination, discriminate
from harness.resilience.distribution import more_distributed
from harness.resilience.features import EXPECTED, FeatureTable, measured_features
from harness.resilience.gradient import along_all_languages
from harness.resilience.groups import Refusal, ResilienceGroups, divide
from harness.resilience.recommendations import Recommendation, recommend, training_choices, training_recipes
from harness.resilience.redundancy import loss_increase
from harness.resilience.study import ResilienceStudy, SettledGroups, group_languages
from harness.resilience.verdict import (
    beyond_resource_level,
    discriminating_features,
    without_a_family,
    without_likelihood,
)

__all__ = [
    "CONTRASTS",
    "EXPECTED",
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
    "needed_models",
    "recommend",
    "training_choices",
    "training_recipes",
    "without_a_family",
    "without_likelihood",
]
