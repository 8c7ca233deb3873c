"""Multiplicity: p-values adjusted for being one of several. Holm within a hypothesis, FDR in feature searches.

The values are those of `statsmodels.stats.multitest.multipletests`, which a test checks; it is not called here because
it brings pandas and collects all garbage on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from evenbits.statistics.samples import FloatArray

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return Holm's adjusted p-values (family-wise error), same keys in the same order.

    None, a test that could not be made, stays None and is not counted among the tests.
    """
    return _adjusted(p_values, _step_down)


def benjamini_hochberg(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return Benjamini-Hochberg q-values (false discovery rate), as `holm` does."""
    from scipy.stats import false_discovery_control

    return _adjusted(p_values, false_discovery_control)


def _step_down(p: FloatArray) -> FloatArray:
    """Multiply the smallest p by m, the next by m - 1, ...; never below the one before, never above 1 (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _adjusted(
    p_values: Mapping[str, float | None], adjust: Callable[[FloatArray], FloatArray]
) -> dict[str, float | None]:
    known = {name: p for name, p in p_values.items() if p is not None}
    for name, p in known.items():
        if not 0 <= p <= 1:
            raise ValueError(f"p_values[{name!r}] is {p}, outside [0, 1]")
    if not known:
        return dict(p_values)
    adjusted = adjust(np.array(list(known.values()), dtype=np.float64))
    found = dict(zip(known, (float(p) for p in adjusted), strict=True))
    return {name: found.get(name) for name in p_values}
