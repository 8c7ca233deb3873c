"""What the programme states as known, measured again: five claims, each with its unit, n, interval and verdict.

E-1 outliers explain disparity, E-2 outliers sit in attention projections, E-3 outliers grow during training, E-4
attention sinks are not outliers, E-5 token parity is not degradation. They are claims, not assumptions: nothing else in
the harness rests on them.
"""

from evenbits.studies.established import figures, wants
from evenbits.studies.established.disparity import outliers_explain_disparity
from evenbits.studies.established.fertility import parity_is_not_degradation
from evenbits.studies.established.growth import outliers_grow
from evenbits.studies.established.location import outliers_sit_in_attention
from evenbits.studies.established.records import ModelDamage, ModelHeads, ModelWeights, measure_damages, measure_heads
from evenbits.studies.established.sinks import sinks_are_not_outliers
from evenbits.studies.study import Drawing, Study

__all__ = [
    "STUDY",
    "ModelDamage",
    "ModelHeads",
    "ModelWeights",
    "measure_damages",
    "measure_heads",
    "outliers_explain_disparity",
    "outliers_grow",
    "outliers_sit_in_attention",
    "parity_is_not_degradation",
    "sinks_are_not_outliers",
]

STUDY = Study(
    claims={
        "E-1": "Known: outliers explain the disparity between languages",
        "E-2": "Known: outliers sit in the attention projections",
        "E-3": "Known: outliers grow during training",
        "E-4": "Known: attention sinks are not the outliers",
        "E-5": "Known: token parity is not degradation",
        "established": "Findings the programme states as known, measured again",
    },
    wants={
        "family_damage": wants.family_damage,
        "family_heads": wants.family_heads,
    },
    drawings=(Drawing(place=80, figure=figures.GROWTH, make=figures.growth),),
)
