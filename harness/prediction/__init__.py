"""H-035: can damage be predicted before quantizing, and by what? And a diagnosis from what predicts best.

A study holds metrics and damage; findings are functions of a study and a generator. A calibration holds the same of
known models, and a diagnosis is what it says of a new one.
"""

from harness.prediction.calibration import (
    CalibratedModel,
    Calibration,
    calibrated_model,
    load_calibration,
    one_run_by_function,
)
from harness.prediction.check import forecasts_hold
from harness.prediction.comparators import comparator_table
from harness.prediction.diagnosis import Diagnosis, LanguageRisk, diagnose, standings
from harness.prediction.forecast import CONFIDENCE, Forecaster, best_forecaster, forecaster
from harness.prediction.overlap import QUANTILE, Overlap, kurtosis_overlap
from harness.prediction.performance import Performance, performances
from harness.prediction.predictors import METRICS, Metric, Predictors, measure_predictors
from harness.prediction.study import PredictionStudy, study_prediction
from harness.prediction.verdict import adds_held_out, beyond_what_is_known, overlap_predicts, own_layers

__all__ = [
    "CONFIDENCE",
    "METRICS",
    "QUANTILE",
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
