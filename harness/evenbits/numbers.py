"""Numbers as people read them. Rounding happens here and nowhere before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["counted", "estimate", "interval", "number", "p_value", "percent"]


def number(value: float | None, *, sign: bool = False) -> str:
    """Return three significant digits, without exponents between a thousandth and a million; `n/a` for None."""
    if value is None:
        return "n/a"
    plus = "+" if sign else ""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        return f"{value:{plus}.2e}"
    if size >= 99.95:
        return f"{value:{plus},.0f}"
    decimals = 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:{plus}.{decimals}f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """Return `[low, high]`, `open` in the place of a single bound that is undefined, empty where both are."""
    bounds = [estimate[name] for name in ("low", "high")]
    if bounds == [None, None]:
        return ""
    return f"[{', '.join('open' if bound is None else number(bound) for bound in bounds)}]"


def estimate(found: Mapping[str, Any], *, sign: bool = False) -> str:
    """Return the value with its interval, or why there is none."""
    if found["value"] is None:
        return f"undefined ({found['reason']})"
    return " ".join(part for part in (number(found["value"], sign=sign), interval(found)) if part)


def p_value(value: float | None) -> str:
    """Return `p 0.012` or `p < 0.001`; empty where there is no test."""
    if value is None:
        return ""
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}" if value < 0.1 else f"p {value:.2f}"


def counted(count: int, what: str) -> str:
    """Return `1 language` or `2 languages`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """Return a level as it is: `95%`, or `98.7654%` where several looks share what may go wrong."""
    return f"{100 * share:.6g}%"
