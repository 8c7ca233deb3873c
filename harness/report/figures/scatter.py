"""Scatter plots: a predictor against degradation (H-035), sparsity against recovered damage (H-037)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.figures.figure import Case, Wrong, label_of, short
from harness.report.numbers import estimate

__all__ = ["models", "overlap"]


def overlap(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.scatter`: `x`, `y`, `labels` alike long, `x_name`, `y_name`."""
    found = row["data"].get("scatter")
    if not found:
        return None
    xs, ys, labels = found["x"], found["y"], found["labels"]
    if not len(xs) == len(ys) == len(labels):
        raise Wrong(f"{len(xs)} x, {len(ys)} y and {len(labels)} labels")
    points = [(short(x), short(y), str(label)) for x, y, label in zip(xs, ys, labels, strict=True)]
    return _case(row, points, ("language", str(found["x_name"]), str(found["y_name"])), languages)


def models(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.points`, one entry per model; None where fewer than two have both."""
    found = row["data"].get("points")
    if not isinstance(found, list) or not found or "sparsity" not in found[0]:
        return None
    points = [(short(one["sparsity"]), short(one["recovered"]), str(one["model"])) for one in found]
    drawn = [point for point in points if None not in point]
    if len(drawn) < 2:
        return None
    return _case(row, points, ("model", "sparsity", "recovered share of damage"), languages)


def _case(
    row: Mapping[str, Any],
    points: list[tuple[float | None, float | None, str]],
    names: tuple[str, str, str],
    languages: Mapping[str, Any],
) -> Case:
    _, x_name, y_name = names
    measured = row["estimate"]
    effect = f"{row['metric']} {estimate(measured)}" if measured["value"] is not None else str(measured["reason"])
    return Case(
        label=label_of(row),
        alternative=f"{y_name} against {x_name} for {len(points)} points: {effect}.",
        data={
            "x_name": x_name,
            "y_name": y_name,
            "points": [
                [x, y, label, languages.get(label, {}).get("tier")]
                for x, y, label in points
                if x is not None and y is not None
            ],
        },
        columns=names,
        rows=tuple((label, x, y) for x, y, label in points),
    )
