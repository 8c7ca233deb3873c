"""H-039: does keeping the largest k of the weights in FP16 bring low- and high-resource languages together?

Studies hold the measurements; findings are functions of a study and a generator.
"""

from evenbits.studies.h039 import figures, wants
from evenbits.studies.h039.comparators import (
    ComparatorStudy,
    nothing_to_compare,
    reference_budget,
    study_comparators,
    unmeasured,
)
from evenbits.studies.h039.comparison import against_protection, better_choice, language_awareness, parity_elsewhere
from evenbits.studies.h039.controls import falling, random_control
from evenbits.studies.h039.parity import parity
from evenbits.studies.h039.recommendation import Recommendation, recommend, retention_recipe
from evenbits.studies.h039.smaller_groups import SmallerGroups, equal_bits, study_smaller_groups
from evenbits.studies.h039.study import RetentionStudy, retention_specs, study_retention
from evenbits.studies.study import Drawing, Study

__all__ = [
    "STUDY",
    "ComparatorStudy",
    "Recommendation",
    "RetentionStudy",
    "SmallerGroups",
    "against_protection",
    "better_choice",
    "equal_bits",
    "falling",
    "language_awareness",
    "nothing_to_compare",
    "parity",
    "parity_elsewhere",
    "random_control",
    "recommend",
    "reference_budget",
    "retention_recipe",
    "retention_specs",
    "study_comparators",
    "study_retention",
    "study_smaller_groups",
    "unmeasured",
]

STUDY = Study(
    claims={"H-039": "Keeping the top outliers brings languages to parity"},
    place=5,
    wants={
        "retention": wants.retention,
        "smaller_groups": wants.smaller_groups,
        "comparators": wants.comparators,
    },
    drawings=(Drawing(place=10, figure=figures.TRADEOFF, make=figures.tradeoff),),
)
