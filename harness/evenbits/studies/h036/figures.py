"""Damage by layer and language, and what spending bits on protection buys (H-036)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.figure import Case, Figure, Wrong, finite, label_of, short
from evenbits.numbers import number

__all__ = ["LAYERS", "PLANS", "layers", "plans"]

LAYERS = Figure(
    id="layers",
    kind="matrix",
    title="Where each language is hurt",
    note="Excess bits per segment when only that layer is quantized. Rows are languages, columns layers.",
)
PLANS = Figure(
    id="plans",
    kind="dots",
    title="What protection buys",
    note="Plans (diamonds) and rules of thumb, each with the bits per weight that it costs more. Lines are 95 % "
    "intervals.",
)

OBJECTIVES = {
    "worst": "excess bits of the worst language",
    "mean": "mean excess bits",
    "gap": "gap of low- to high-resource languages, excess bits",
}


def layers(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.layer_language`: `layers`, `languages`, `excess_bits`.

    `excess_bits` has a row per layer and a column per language, or the other way round where only that fits.
    """
    found = row["data"].get("layer_language")
    if not found:
        return None
    names, tags, matrix = [str(name) for name in found["layers"]], list(found["languages"]), found["excess_bits"]
    by_language = [[short(value) for value in line] for line in matrix]
    if _fits(by_language, len(names), len(tags)):
        by_language = [list(column) for column in zip(*by_language, strict=True)]
    elif not _fits(by_language, len(tags), len(names)):
        raise Wrong(f"excess_bits is not {len(names)} layers x {len(tags)} languages")
    totals = [sum(finite(line)) for line in by_language]
    order = sorted(range(len(tags)), key=lambda place: (-totals[place], tags[place]))
    cells = [
        (value, tags[y], names[x])
        for y, line in enumerate(by_language)
        for x, value in enumerate(line)
        if value is not None
    ]
    worst = max(cells, default=None)
    named = {tag: str(languages.get(tag, {}).get("name") or tag) for tag in tags}
    return Case(
        label=label_of(row),
        alternative="No cell has a value."
        if worst is None
        else f"The largest damage is {number(worst[0])} excess bits, in {named[worst[1]]} at layer {worst[2]}.",
        data={
            "x": names,
            "y": [named[tags[place]] for place in order],
            "x_name": "layer",
            "metrics": [{"name": "excess bits per segment", "values": [by_language[place] for place in order]}],
        },
        columns=("language", *(f"layer {name}" for name in names)),
        rows=tuple((tags[place], *by_language[place]) for place in order),
    )


def _fits(matrix: list[list[float | None]], rows: int, columns: int) -> bool:
    return len(matrix) == rows and all(len(line) == columns for line in matrix)


def plans(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.plans`, an entry per protection; None without."""
    entries = row["data"].get("plans")
    if not isinstance(entries, list) or not entries or "worst" not in entries[0]:
        return None
    entries = sorted(entries, key=lambda entry: (entry["worst"]["value"], entry["name"]))
    best = next((entry for entry in entries if entry["within_budget"]), entries[0])
    return Case(
        label=label_of(row),
        alternative=f"The worst language loses least with {best['name']}: {number(best['worst']['value'])} excess bits "
        f"for {best['extra_bits_per_weight']:+.2f} bits per weight.",
        data={
            "y": [f"{entry['name']}  {entry['extra_bits_per_weight']:+.2f}" for entry in entries],
            "notes": ["" if entry["within_budget"] else "dearer than the budget" for entry in entries],
            "marks": [
                "strong" if entry["kind"] == "plan" else None if entry["within_budget"] else "faint"
                for entry in entries
            ],
            "metrics": [
                {
                    "name": name,
                    "values": [
                        [short(entry[key].get(bound)) for bound in ("value", "low", "high")] for entry in entries
                    ],
                }
                for key, name in OBJECTIVES.items()
            ],
        },
        columns=("spent on", "protects", "extra bits per weight", *OBJECTIVES.values(), "within budget"),
        rows=tuple(
            (
                entry["name"],
                " ".join(str(unit) for unit in entry["protects"]),
                entry["extra_bits_per_weight"],
                *(entry[key]["value"] for key in OBJECTIVES),
                "yes" if entry["within_budget"] else "no",
            )
            for entry in entries
        ),
    )
