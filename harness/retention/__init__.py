"""H-039: does keeping the largest k of the weights in FP16 bring low- and high-resource languages together?

Studies hold the measurements; findings are functions of a study and a generator.
"""

from harness.retention.comparison import against_protection, better_choice, language_awareness, parity_elsewhere
from harness.retention.contenders import (
    ContenderStudy,
    nothing_to_compare,
    reference_budget,
    study_contenders,
    unmeasured,
)
from harness.retention.controls import equal_bits, monotone, random_control
from harness.retention.parity import parity
from harness.retention.recommendation import Recommendation, recommend, retention_recipe
from harness.retention.study import RetentionStudy, retention_specs, study_retention, tiers

__all__ = [
    "ContenderStudy",
    "Recommendation",
    "RetentionStudy",
    "against_protection",
    "better_choice",
    "equal_bits",
    "language_awareness",
    "monotone",
    "nothing_to_compare",
    "parity",
    "parity_elsewhere",
    "random_control",
    "recommend",
    "reference_budget",
    "retention_recipe",
    "retention_specs",
    "study_contenders",
    "study_retention",
    "tiers",
    "unmeasured",
]
