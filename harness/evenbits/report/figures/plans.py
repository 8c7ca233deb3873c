"""What spending bits on protection buys: plans beside rules of thumb (H-036)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.report.figures.figure import Case, label_of, short
from evenbits.report.numbers import number

__all__ = ["plans"]

OBJECTIVES = {
    "worst": "excess bits of the worst language",
    "mean": "mean excess bits",
    "gap": "gap of low- to high-resource languages, excess bits",
}


def plans(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.plans`, an entry per contestant; None without."""
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
            "marks": ["strong" if entry["kind"] == "plan" else None if entry["within_budget"] else "faint"
                      for entry in entries],
            "metrics": [
                {"name": name, "values": [[short(entry[key].get(bound)) for bound in ("value", "low", "high")]
                                          for entry in entries]}
                for key, name in OBJECTIVES.items()
            ],
        },
        columns=("spent on", "protects", "extra bits per weight", *OBJECTIVES.values(), "within budget"),
        rows=tuple(
            (
                entry["name"], " ".join(str(unit) for unit in entry["protects"]), entry["extra_bits_per_weight"],
                *(entry[key]["value"] for key in OBJECTIVES), "yes" if entry["within_budget"] else "no",
            )
            for entry in entries
        ),
    )  # fmt: skip
