"""Damage by layer and language (H-036)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.report.figures.figure import Case, Wrong, finite, label_of, short
from evenbits.report.numbers import number

__all__ = ["layers"]


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
    cells = [(value, tags[y], names[x]) for y, line in enumerate(by_language) for x, value in enumerate(line)
             if value is not None]  # fmt: skip
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
