"""Outliers along training (established finding 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.figure import Case, Figure, Wrong, label_of, short
from evenbits.numbers import number

__all__ = ["GROWTH", "growth"]

GROWTH = Figure(
    id="growth",
    kind="lines",
    title="Outliers during training",
    note="One line per series of checkpoints of the same training run.",
)


def growth(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.growth`: `x`, `x_name`, `y_name`, `series` of `name` and `y`."""
    found = row["data"].get("growth")
    if not found:
        return None
    xs = [short(x) for x in found["x"]]
    series = [(str(one["name"]), [short(y) for y in one["y"]]) for one in found["series"]]
    if any(len(ys) != len(xs) for _, ys in series):
        raise Wrong(f"a series does not have {len(xs)} values")
    name, ys = series[0]
    return Case(
        label=label_of(row),
        alternative=f"{found['y_name']} of {name}: {number(ys[0])} at the first checkpoint, "
        f"{number(ys[-1])} at the last.",
        data={
            "x": xs,
            "x_name": str(found["x_name"]),
            "y_name": str(found["y_name"]),
            "series": [{"name": name, "y": ys} for name, ys in series],
        },
        columns=(str(found["x_name"]), *(name for name, _ in series)),
        rows=tuple((x, *(ys[place] for _, ys in series)) for place, x in enumerate(xs)),
    )
