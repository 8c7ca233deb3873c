"""H-035: can damage be predicted before quantizing, and by what? And a diagnosis from what predicts best.

A study holds metrics and damage; findings are functions of a study and a generator. A calibration holds the same of
known models, and a diagnosis is what it says of a new one.
"""

from evenbits.studies.h035 import figures, wants
from evenbits.studies.h035.calibration import (
    CalibratedModel,
    Calibration,
    calibrated_model,
    load_calibration,
    one_run_by_function,
)
from evenbits.studies.h035.check import forecasts_hold
from evenbits.studies.h035.comparators import comparator_table
from evenbits.studies.h035.diagnosis import Diagnosis, LanguageRisk, diagnose, standings
from evenbits.studies.h035.forecast import CONFIDENCE, Forecaster, best_forecaster, forecaster
from evenbits.studies.h035.overlap import QUANTILE, Overlap, kurtosis_overlap
from evenbits.studies.h035.performance import Performance, performances
from evenbits.studies.h035.predictors import METRICS, Metric, Predictors, measure_predictors
from evenbits.studies.h035.study import PredictionStudy, study_prediction
from evenbits.studies.h035.verdict import adds_held_out, beyond_what_is_known, overlap_predicts, own_layers
from evenbits.studies.study import Drawing, Study

__all__ = [
    "CONFIDENCE",
    "METRICS",
    "QUANTILE",
    "STUDY",
    "CalibratedModel",
    "Calibration",
    "Diagnosis",
    "Forecaster",
    "LanguageRisk",
    "Metric",
    "Overlap",
    "Performance",
    "PredictionStudy",
    "Predictors",
    "adds_held_out",
    "best_forecaster",
    "beyond_what_is_known",
    "calibrated_model",
    "comparator_table",
    "diagnose",
    "forecaster",
    "forecasts_hold",
    "kurtosis_overlap",
    "load_calibration",
    "measure_predictors",
    "one_run_by_function",
    "overlap_predicts",
    "own_layers",
    "performances",
    "standings",
    "study_prediction",
]

STUDY = Study(
    claims={"H-035": "Damage can be predicted before quantizing"},
    place=3,
    wants={
        "predictors": wants.predictors,
    },
    drawings=(
        Drawing(place=40, figure=figures.OVERLAP, make=figures.overlap),
        Drawing(place=50, figure=figures.COMPARATORS, make=figures.comparators),
    ),
)
