"""Streamed statistics of weight tensors, positions of outliers, super-weight candidates.

The names below are imported when first used: the records need no torch, measuring does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenbits.observe.weights.checkpoint import weight_statistics
    from evenbits.observe.weights.measurement import matrix_statistics
    from evenbits.observe.weights.statistics import (
        KurtosisClass,
        SigmaCount,
        TensorStatistics,
        TensorSummary,
        WeightStatistics,
        WeightSummary,
    )
    from evenbits.observe.weights.superweights import SpikeProfile, SuperWeightCandidate, super_weight_candidates

__all__ = [
    "KurtosisClass",
    "SigmaCount",
    "SpikeProfile",
    "SuperWeightCandidate",
    "TensorStatistics",
    "TensorSummary",
    "WeightStatistics",
    "WeightSummary",
    "matrix_statistics",
    "super_weight_candidates",
    "weight_statistics",
]

_HOMES = {
    "KurtosisClass": "statistics",
    "SigmaCount": "statistics",
    "SpikeProfile": "superweights",
    "SuperWeightCandidate": "superweights",
    "TensorStatistics": "statistics",
    "TensorSummary": "statistics",
    "WeightStatistics": "statistics",
    "WeightSummary": "statistics",
    "matrix_statistics": "measurement",
    "super_weight_candidates": "superweights",
    "weight_statistics": "checkpoint",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
