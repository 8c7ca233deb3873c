"""Quantization: spec, rounding, clipping, retention, and patching a model and putting it back.

Names are imported when they are first used: `evenbits.variants.quantization.spec` and `planning` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenbits.variants.quantization.importance import Importance, MeasuredImportance
    from evenbits.variants.quantization.matrices import QuantizedMatrix, quantize_matrix, quantize_planned
    from evenbits.variants.quantization.patching import patched, plan_for, plan_loaded, quantized, zeroed
    from evenbits.variants.quantization.planning import Plan, bits_per_weight, plan, storage
    from evenbits.variants.quantization.spec import QuantSpec, parse_spec, parse_specs

__all__ = [
    "Importance",
    "MeasuredImportance",
    "Plan",
    "QuantSpec",
    "QuantizedMatrix",
    "bits_per_weight",
    "parse_spec",
    "parse_specs",
    "patched",
    "plan",
    "plan_for",
    "plan_loaded",
    "quantize_matrix",
    "quantize_planned",
    "quantized",
    "storage",
    "zeroed",
]

_MODULE_OF = {
    "importance": ("Importance", "MeasuredImportance"),
    "matrices": ("QuantizedMatrix", "quantize_matrix", "quantize_planned"),
    "patching": ("patched", "plan_for", "plan_loaded", "quantized", "zeroed"),
    "planning": ("Plan", "bits_per_weight", "plan", "storage"),
    "spec": ("QuantSpec", "parse_spec", "parse_specs"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the module holds
    for module, names in _MODULE_OF.items():
        if name in names:
            return getattr(import_module(f"evenbits.variants.quantization.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
