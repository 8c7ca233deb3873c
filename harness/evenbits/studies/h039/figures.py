"""Disparity, damage and bits per weight against the share of weights kept (H-039)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evenbits.figure import Case, Figure, label_of, short
from evenbits.numbers import number
from evenbits.statistics.front import pareto

__all__ = ["TRADEOFF", "tradeoff"]

TRADEOFF = Figure(
    id="tradeoff",
    kind="tradeoff",
    title="What keeping outliers buys",
    note="Left: how many times more low-resource languages lose than high-resource ones, by share k of weights kept in "
    "FP16; the band is parity (a factor of 1.25). Right: mean damage against storage; points on the line are on the "
    "Pareto front of disparity, damage and bits: nothing else is better in all three.",
)

PRIMARY = "excess_bits"


def tradeoff(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement whose `data.rows` has an entry per k with disparity and cost; None without.

    Entries with a `label` are other specs: they follow, and are drawn by cost alone.
    """
    entries = row["data"].get("rows")
    if not isinstance(entries, list) or not entries or "bits_per_weight" not in entries[0]:
        return None
    if "disparity" not in entries[0]:
        return None
    entries = sorted(entries, key=lambda entry: (bool(entry.get("label")), entry["percent"]))
    metrics = list(dict.fromkeys(name for entry in entries for name in entry["disparity"]))
    metrics.sort(key=lambda name: (name != PRIMARY, name))
    front = pareto([_objectives(entry, metrics[0]) for entry in entries])
    chosen = _recommended(row, [str(entry.get("spec", "")) for entry in entries])
    first, last = entries[0], [entry for entry in entries if not entry.get("label")][-1]
    return Case(
        label=label_of(row),
        alternative=f"Mean damage {number(first['mean_excess_bits'])} bits per segment at k {first['percent']:g} %, "
        f"{number(last['mean_excess_bits'])} at k {last['percent']:g} %; disparity "
        f"{number(_ratio(first, metrics[0]).get('value'))} and {number(_ratio(last, metrics[0]).get('value'))}.",
        data={
            "metrics": metrics,
            "margin": short(math.exp(row["data"].get("margin", math.log(1.25)))),
            "recommended": chosen,
            "points": [
                {
                    "k": short(entry["percent"]),
                    "name": entry.get("label") or "",
                    "bits": short(entry["bits_per_weight"]),
                    "damage": short(entry["mean_excess_bits"]),
                    "front": place in front,
                    "ratio": [
                        [short(_ratio(entry, name).get(key)) for key in ("value", "low", "high")] for name in metrics
                    ],
                }
                for place, entry in enumerate(entries)
            ],
        },
        columns=(
            "kept",
            "k, % of weights",
            "bits per weight",
            "mean excess bits",
            *(f"disparity, {name}" for name in metrics),
            "Pareto front",
            "recommended",
        ),
        rows=tuple(
            (
                entry.get("label") or "magnitude",
                entry["percent"],
                entry["bits_per_weight"],
                entry["mean_excess_bits"],
                *(_ratio(entry, name).get("value") for name in metrics),
                "yes" if place in front else "no",
                "yes" if place == chosen else "",
            )
            for place, entry in enumerate(entries)
        ),
    )


def _objectives(entry: Mapping[str, Any], metric: str) -> tuple[float, ...] | None:
    """Return disparity, damage and bits; a ratio below 1 counts as 1, for it leaves no disadvantage to remove."""
    ratio = _ratio(entry, metric).get("value")
    if ratio is None:
        return None
    return max(float(ratio), 1.0), float(entry["mean_excess_bits"]), float(entry["bits_per_weight"])


def _ratio(entry: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry["disparity"].get(metric, {}).get("ratio", {})
    return found


def _recommended(row: Mapping[str, Any], specs: Sequence[str]) -> int | None:
    """Return the place of the recommended spec, else of the one that the action names.

    Of several that it names the longest counts, as specs can begin alike.
    """
    given = (row["data"].get("recommended") or {}).get("spec")
    if given in specs:
        return specs.index(given)
    named = [place for place, spec in enumerate(specs) if spec and spec in (row["action"] or "")]
    return max(named, key=lambda place: len(specs[place])) if named else None
