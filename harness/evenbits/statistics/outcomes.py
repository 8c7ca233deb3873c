"""Outcome: an estimate with the test that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evenbits.estimates import Estimate
from evenbits.rows import Row

__all__ = ["Alternative", "Outcome"]

Alternative = Literal["two-sided", "greater", "less"]
ALTERNATIVES: tuple[Alternative, ...] = ("two-sided", "greater", "less")


def checked_alternative(alternative: Alternative) -> Alternative:
    """Return `alternative` if it is one of the three that tests know."""
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative must be one of {', '.join(ALTERNATIVES)}, got {alternative!r}")
    return alternative


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Row):
    """An effect size with its interval, and the p-value of the null hypothesis that it is absent.

    `p_value` is None where no test is possible; `p_method` says how it was computed, or why it is missing.
    `statistic`: the test statistic where it differs from the estimate. `adjusted_p`: after correction for several
    tests, where this outcome is one of a family. `least_p`: the smallest p that these units can give, where known.
    """

    estimate: Estimate
    p_value: float | None
    p_method: str
    statistic: float | None = None
    adjusted_p: float | None = None
    least_p: float | None = None

    def __post_init__(self) -> None:
        for name in ("p_value", "adjusted_p"):
            p = getattr(self, name)
            if p is not None and not 0 < p <= 1:
                raise ValueError(f"{name} is {p}, outside (0, 1]")

    @classmethod
    def undefined(cls, reason: str, *, n: int = 0, method: str = "none") -> Outcome:
        """Return an outcome with neither estimate nor p-value; `reason` says why."""
        return cls(estimate=Estimate.undefined(reason, n=n, method=method), p_value=None, p_method=f"none: {reason}")
