"""Scatter plots: predictors against degradation (H-035, E-5), sparsity against recovered damage (H-037)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenbits.report.figures.figure import Case, Wrong, label_of, short
from evenbits.report.numbers import estimate

__all__ = ["comparators", "models", "overlap"]

DAMAGE = "excess bits per segment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One x against the y of the figure, both in the order of its labels."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]


def overlap(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with predictors of damage by language; None without.

    Either `data.scatter`: `x`, `y`, `labels` alike long, `x_name`, `y_name`. Or `data.metrics`: predictors by name,
    each alike long with `data.languages` and `data.damage.excess_bits`; `data.comparators` may give them labels.
    """
    found = row["data"].get("scatter")
    if found:
        one = Series(name=str(found["x_name"]), x=found["x"], y=found["y"])
        return _case(row, found["labels"], [one], ("language", str(found["y_name"])), languages)
    metrics, tags = row["data"].get("metrics"), row["data"].get("languages")
    damage = (row["data"].get("damage") or {}).get("excess_bits")
    if not isinstance(metrics, Mapping) or not metrics or not tags or not damage:
        return None
    names = {entry["metric"]: entry["label"] for entry in row["data"].get("comparators") or []}
    series = [Series(name=str(names.get(key, key)), x=values, y=damage) for key, values in metrics.items()]
    return _case(row, tags, series, ("language", DAMAGE), languages)


def models(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.points`, one entry per model; None where fewer than two have both."""
    found = row["data"].get("points")
    if not isinstance(found, list) or not found or "sparsity" not in found[0]:
        return None
    known = [one for one in found if one["sparsity"] is not None and one["recovered"] is not None]
    if len(known) < 2:
        return None
    one = Series(name="sparsity", x=[point["sparsity"] for point in known], y=[point["recovered"] for point in known])
    return _case(row, [point["model"] for point in known], [one], ("model", "recovered share of damage"), languages)


def comparators(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.comparators`: every predictor's correlation and held-out R2."""
    found = row["data"].get("comparators")
    if not isinstance(found, list) or not found or "r" not in found[0]:
        return None
    found = sorted(found, key=lambda entry: (entry["r"]["value"] is None, -abs(entry["r"]["value"] or 0.0)))
    kinds = {
        "r": "Pearson r with excess bits", "rho": "Spearman rho with excess bits",
        "r2_language_out": "R2 on a language left out", "r2_family_out": "R2 on a family left out",
    }  # fmt: skip
    best = found[0]
    return Case(
        label=label_of(row),
        alternative=f"The strongest correlation with excess bits is that of {best['label']}: {estimate(best['r'])}.",
        data={
            "y": [entry["label"] for entry in found],
            "notes": [""] * len(found),
            "marks": ["strong" if entry["metric"] == "kurtosis_overlap" else None for entry in found],
            "metrics": [
                {"name": name, "values": [[short(entry[kind][bound]) for bound in ("value", "low", "high")]
                                          for entry in found]}
                for kind, name in kinds.items()
            ],
        },
        columns=("predictor", *kinds.values(), "p of r"),
        rows=tuple(
            (entry["label"], *(entry[kind]["value"] for kind in kinds), entry.get("p_value")) for entry in found
        ),
    )  # fmt: skip


def _case(
    row: Mapping[str, Any],
    labels: Sequence[str],
    series: Sequence[Series],
    names: tuple[str, str],
    languages: Mapping[str, Any],
) -> Case:
    """Return the case; `names`: what a point stands for, and what y is."""
    unit, y_name = names
    for one in series:
        if not len(one.x) == len(one.y) == len(labels):
            raise Wrong(f"{len(one.x)} x, {len(one.y)} y and {len(labels)} labels")
    measured = row["estimate"]
    effect = f"{row['metric'].replace('_', ' ')} {estimate(measured)}" if measured["value"] is not None else str(
        measured["reason"]
    )  # fmt: skip
    return Case(
        label=label_of(row),
        alternative=f"{y_name} against {series[0].name} for {len(labels)} points: {effect}.",
        data={
            "y_name": y_name,
            "metrics": [
                {
                    "name": one.name,
                    "points": [
                        [short(x), short(y), str(label), languages.get(label, {}).get("tier")]
                        for x, y, label in zip(one.x, one.y, labels, strict=True)
                        if x is not None and y is not None
                    ],
                }
                for one in series
            ],
        },
        columns=(unit, *(one.name for one in series), y_name),
        rows=tuple(
            (str(label), *(short(one.x[place]) for one in series), short(series[0].y[place]))
            for place, label in enumerate(labels)
        ),
    )
