"""Streamed statistics of activations by language, layer, channel and head; nothing large is kept.

The names below are imported when first used, so that naming the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenbits.observe.activations.gradients import GradientSquares, gradient_squares
    from evenbits.observe.activations.importance import ActivationImportance
    from evenbits.observe.activations.lookup import activation_statistics, activations
    from evenbits.observe.activations.spikes import Peaks, spike_peaks
    from evenbits.observe.activations.statistics import ActivationStatistics, token_parity

__all__ = [
    "ActivationImportance",
    "ActivationStatistics",
    "GradientSquares",
    "Peaks",
    "activation_statistics",
    "activations",
    "gradient_squares",
    "spike_peaks",
    "token_parity",
]

_HOMES = {
    "ActivationImportance": "importance",
    "ActivationStatistics": "statistics",
    "GradientSquares": "gradients",
    "Peaks": "spikes",
    "activation_statistics": "lookup",
    "activations": "lookup",
    "gradient_squares": "gradients",
    "spike_peaks": "spikes",
    "token_parity": "statistics",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
