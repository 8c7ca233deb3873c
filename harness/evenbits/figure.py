"""A figure of the report, and the cases (models, specs, tests) a reader can choose between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evenbits.numbers import estimate

__all__ = ["Case", "Figure", "Series", "Wrong", "finite", "label_of", "scatter", "short", "text_or"]


class Wrong(ValueError):  # noqa: N818 - it never leaves the package
    """Data that does not have the form a figure needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One drawing. `data`: plain JSON for the page. `columns`, `rows`: the same numbers as a table for those who read.

    `alternative`: a sentence that says what is to be seen.
    """

    label: str
    alternative: str
    data: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A titled figure; `kind` names the drawing routine of the page."""

    id: str
    kind: str
    title: str
    note: str
    cases: tuple[Case, ...] = field(default=())

    def with_cases(self, cases: Iterable[Case]) -> Figure:
        """Return the figure with `cases`, their labels made different from each other."""
        seen: dict[str, int] = {}
        unique = []
        for case in cases:
            seen[case.label] = seen.get(case.label, 0) + 1
            again = seen[case.label]
            unique.append(case if again == 1 else replace(case, label=f"{case.label} ({again})"))
        return replace(self, cases=tuple(unique))


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One x against the y of the figure, both in the order of its labels."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]


def label_of(row: Mapping[str, Any]) -> str:
    """Return what tells a measurement from its neighbours: hypothesis, model and spec."""
    return " · ".join(part for part in (row["hypothesis"], row["model"], row["spec"]) if part)


def short(value: object) -> float | None:
    """Return a number with five significant digits, which is more than a drawing shows; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"a number was expected, not {value!r:.40}")
    return float(f"{value:.5g}") if math.isfinite(value) else None


def text_or(value: object, otherwise: str = "") -> str:
    """Return a text as it is, `otherwise` where there is none."""
    return value if isinstance(value, str) else otherwise


def finite(values: Sequence[Any]) -> list[float]:
    """Return the defined numbers of `values`."""
    return [float(value) for value in values if value is not None]


def scatter(
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
    effect = (
        f"{row['metric'].replace('_', ' ')} {estimate(measured)}"
        if measured["value"] is not None
        else str(measured["reason"])
    )
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
