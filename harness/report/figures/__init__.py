"""Figures of the HTML report: which measurements carry data for one, and that data in the form the page draws.

A figure is drawn from `data` of measurement rows alone. Rows without such data give no figure. Data in another form
than expected is named in `problems`, not drawn and not passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.report.figures.figure import Case, Figure, Wrong
from harness.report.figures.growth import growth
from harness.report.figures.layers import layers
from harness.report.figures.scatter import models, overlap
from harness.report.figures.sparsity import sparsity
from harness.report.figures.tradeoff import tradeoff

__all__ = ["FIGURES", "Case", "Figure", "figures"]

Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], "Case | None"]

FIGURES: tuple[tuple[Figure, Maker], ...] = (
    (
        Figure(
            id="tradeoff",
            kind="tradeoff",
            title="What keeping outliers buys",
            note="Left: how many times more low-resource languages lose than high-resource ones, by share k of weights "
            "kept in FP16; the band is parity (a factor of 1.25). Right: mean damage against storage; points on the "
            "line are on the Pareto front of disparity, damage and bits: no other k is better in all three.",
        ),
        tradeoff,
    ),
    (
        Figure(
            id="layers",
            kind="matrix",
            title="Where each language is hurt",
            note="Excess bits per segment when only that layer is quantized. Rows are languages, columns layers.",
        ),
        layers,
    ),
    (
        Figure(
            id="overlap",
            kind="scatter",
            title="Predictor against degradation",
            note="One point per language. The predictor is computed before anything is quantized.",
        ),
        overlap,
    ),
    (
        Figure(
            id="sparsity",
            kind="matrix",
            title="Where the outlier weights sit",
            note="One cell per weight matrix. Rows are projections, columns layers.",
        ),
        sparsity,
    ),
    (
        Figure(
            id="models",
            kind="scatter",
            title="Sparsity against recovered damage",
            note="One point per model: how concentrated its outliers are, the share of its damage a fixed k recovers.",
        ),
        models,
    ),
    (
        Figure(
            id="growth",
            kind="lines",
            title="Outliers during training",
            note="One line per series of checkpoints of the same training run.",
        ),
        growth,
    ),
)
"""Figures in the order of the page, each with what makes a case of it from (measurement row, languages by tag)."""


def figures(document: Mapping[str, Any]) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return the figures that have data, and a sentence for each measurement whose data cannot be drawn."""
    languages = {entry["tag"]: entry for entry in document["inputs"]["corpus"].get("languages") or []}
    found: list[Figure] = []
    problems: list[str] = []
    for figure, make in FIGURES:
        cases: list[Case] = []
        for row in document["measurements"]:
            try:
                case = make(row, languages)
            except (Wrong, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
                problems.append(f"{figure.title}: the data of {row['test']} cannot be drawn ({reason}).")
                continue
            if case is not None:
                cases.append(case)
        if cases:
            found.append(figure.with_cases(cases))
    return tuple(found), tuple(problems)
