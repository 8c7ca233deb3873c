"""A measurement as JUnit properties: what CI servers show beside a test."""

from __future__ import annotations

from harness.estimates import Measurement
from harness.report.gate import language_of, outcome_of

__all__ = ["properties"]


def properties(measurement: Measurement, *, number: int = 1) -> list[tuple[str, str]]:
    """Return (name, text) pairs. `number`: which measurement of its test this is; from the second on it is in the name.

    Undefined numbers are left out, their reason stands under `reason`. Numbers are unrounded.
    """
    estimate, threshold = measurement.estimate, measurement.threshold
    row = measurement.to_json() if measurement.role == "gate" else None
    values: dict[str, object | None] = {
        "hypothesis": measurement.hypothesis,
        "role": measurement.role,
        "model": measurement.model,
        "spec": measurement.spec,
        "verdict": str(measurement.verdict),
        "outcome": outcome_of(row) if row else measurement.data.get("outcome"),
        "language": language_of(row) if row else measurement.data.get("language"),
        "metric": measurement.metric,
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "reason": estimate.reason,
        "p_value": measurement.p_value,
        "needed": None if threshold is None else f"{threshold.op} {threshold.bound!r}",
        "metric_sensitive": "true" if measurement.metric_sensitive else None,
    }
    prefix = "evenbits." if number == 1 else f"evenbits.{number}."
    return [
        (prefix + name, repr(value) if isinstance(value, float) else str(value))
        for name, value in values.items()
        if value is not None
    ]
