"""H-036: do languages rely on different layers, and which layers should be protected?

A study holds the measurements; findings are functions of a study and a generator.
"""

from evenbits.studies.h036 import figures, wants
from evenbits.studies.h036.additivity import additivity
from evenbits.studies.h036.choice import Choice, additive_savings, choose
from evenbits.studies.h036.comparators import kind_for, unit_kurtosis
from evenbits.studies.h036.critical import CriticalLayers, critical_layers, overlap_with_outliers
from evenbits.studies.h036.depth import Depth, where_damage_lies
from evenbits.studies.h036.profiles import different_layers, layer_language
from evenbits.studies.h036.protection import ProtectionStudy, rule_budget, study_protection
from evenbits.studies.h036.study import KINDS, LayerStudy, Unit, sizes_of, study_layers, whole_model
from evenbits.studies.h036.verdict import best_plan, plan_beats_comparators, protection_recipe, protection_table
from evenbits.studies.study import Drawing, Study

__all__ = [
    "KINDS",
    "STUDY",
    "Choice",
    "CriticalLayers",
    "Depth",
    "LayerStudy",
    "ProtectionStudy",
    "Unit",
    "additive_savings",
    "additivity",
    "best_plan",
    "choose",
    "critical_layers",
    "different_layers",
    "kind_for",
    "layer_language",
    "overlap_with_outliers",
    "plan_beats_comparators",
    "protection_recipe",
    "protection_table",
    "rule_budget",
    "sizes_of",
    "study_layers",
    "study_protection",
    "unit_kurtosis",
    "where_damage_lies",
    "whole_model",
]

STUDY = Study(
    claims={"H-036": "Languages rely on different layers"},
    place=2,
    wants={
        "layer_study": wants.layer_study,
        "layer_writes": wants.layer_writes,
        "protection": wants.protection,
    },
    drawings=(
        Drawing(place=20, figure=figures.LAYERS, make=figures.layers),
        Drawing(place=30, figure=figures.PLANS, make=figures.plans),
    ),
)
