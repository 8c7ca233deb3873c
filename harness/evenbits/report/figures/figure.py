"""A figure of the report, and the cases (models, specs, tests) a reader can choose between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Case", "Figure", "Wrong", "finite", "label_of", "short", "text_or"]


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
