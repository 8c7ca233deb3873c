"""Predictors against degradation (H-035, E-5), and how well each of them holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.figure import Case, Figure, Series, label_of, scatter, short
from evenbits.numbers import estimate

__all__ = ["COMPARATORS", "OVERLAP", "comparators", "overlap"]

DAMAGE = "excess bits per segment"

OVERLAP = Figure(
    id="overlap",
    kind="scatter",
    title="Predictor against degradation",
    note="One point per language. The predictor is computed before anything is quantized.",
)
COMPARATORS = Figure(
    id="comparators",
    kind="dots",
    title="Which predictor holds",
    note="What is known before quantizing, by how well it goes with damage over languages; the hypothesis' own "
    "predictor is the diamond. Lines are 95 % intervals.",
)


def overlap(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with predictors of damage by language; None without.

    Either `data.scatter`: `x`, `y`, `labels` alike long, `x_name`, `y_name`. Or `data.metrics`: predictors by name,
    each alike long with `data.languages` and `data.damage.excess_bits`; `data.comparators` may give them labels.
    """
    found = row["data"].get("scatter")
    if found:
        one = Series(name=str(found["x_name"]), x=found["x"], y=found["y"])
        return scatter(row, found["labels"], [one], ("language", str(found["y_name"])), languages)
    metrics, tags = row["data"].get("metrics"), row["data"].get("languages")
    damage = (row["data"].get("damage") or {}).get("excess_bits")
    if not isinstance(metrics, Mapping) or not metrics or not tags or not damage:
        return None
    names = {entry["metric"]: entry["label"] for entry in row["data"].get("comparators") or []}
    series = [Series(name=str(names.get(key, key)), x=values, y=damage) for key, values in metrics.items()]
    return scatter(row, tags, series, ("language", DAMAGE), languages)


def comparators(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.comparators`: every predictor's correlation and held-out R2."""
    found = row["data"].get("comparators")
    if not isinstance(found, list) or not found or "r" not in found[0]:
        return None
    found = sorted(found, key=lambda entry: (entry["r"]["value"] is None, -abs(entry["r"]["value"] or 0.0)))
    kinds = {
        "r": "Pearson r with excess bits",
        "rho": "Spearman rho with excess bits",
        "r2_language_out": "R2 on a language left out",
        "r2_family_out": "R2 on a family left out",
    }
    best = found[0]
    return Case(
        label=label_of(row),
        alternative=f"The strongest correlation with excess bits is that of {best['label']}: {estimate(best['r'])}.",
        data={
            "y": [entry["label"] for entry in found],
            "notes": [""] * len(found),
            "marks": ["strong" if entry["metric"] == "kurtosis_overlap" else None for entry in found],
            "metrics": [
                {
                    "name": name,
                    "values": [[short(entry[kind][bound]) for bound in ("value", "low", "high")] for entry in found],
                }
                for kind, name in kinds.items()
            ],
        },
        columns=("predictor", *kinds.values(), "p of r"),
        rows=tuple(
            (entry["label"], *(entry[kind]["value"] for kind in kinds), entry.get("p_value")) for entry in found
        ),
    )
