"""Figures of the HTML report: which measurements carry data for one, and that data in the form the page draws.

A figure is drawn from `data` of measurement rows alone. Rows without such data give no figure. Data in another form
than expected is named in `problems`, not drawn and not passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evenbits.report.described import described
from evenbits.report.figures.figure import Case, Figure, Wrong
from evenbits.report.figures.growth import growth
from evenbits.report.figures.layers import layers
from evenbits.report.figures.plans import plans
from evenbits.report.figures.scatter import comparators, models, overlap
from evenbits.report.figures.sparsity import by_model, sparsity
from evenbits.report.figures.tradeoff import tradeoff

__all__ = ["FIGURES", "Case", "Figure", "figures"]

Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], "Case | None"]
"""Makes a case of one measurement, given what is known of each language by tag."""

Joiner = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], "Case | None"]
"""Makes one case of all measurements together."""

FIGURES: tuple[tuple[Figure, Maker], ...] = (
    (
        Figure(
            id="tradeoff",
            kind="tradeoff",
            title="What keeping outliers buys",
            note="Left: how many times more low-resource languages lose than high-resource ones, by share k of weights "
            "kept in FP16; the band is parity (a factor of 1.25). Right: mean damage against storage; points on the "
            "line are on the Pareto front of disparity, damage and bits: nothing else is better in all three.",
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
            id="plans",
            kind="dots",
            title="What protection buys",
            note="Plans (diamonds) and rules of thumb, each with the bits per weight that it costs more. Lines are "
            "95 % intervals.",
        ),
        plans,
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
            id="comparators",
            kind="dots",
            title="Which predictor holds",
            note="What is known before quantizing, by how well it goes with damage over languages; the hypothesis' own "
            "predictor is the diamond. Lines are 95 % intervals.",
        ),
        comparators,
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
"""Figures in the order of the page, each with what makes a case of it."""

JOINED: tuple[tuple[Figure, Joiner, str], ...] = (
    (
        Figure(
            id="by-model",
            kind="dots",
            title="Sparsity by model",
            note="One line per model, the one with the heaviest outliers first.",
        ),
        by_model,
        "sparsity",
    ),
)
"""Figures over all measurements, each with what makes its case, and the figure before which it stands."""


def figures(document: Mapping[str, Any]) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return the figures that have data, and a sentence for each measurement whose data cannot be drawn."""
    rows = document["measurements"]
    languages = {model: described(document, model) for model in {None, *(row["model"] for row in rows)}}
    found: list[Figure] = []
    problems: list[str] = []
    for figure, make in FIGURES:
        for joined, join, before in JOINED:
            if before == figure.id:
                case = _attempt(problems, joined, "all models", join, rows, languages[None])
                found += [joined.with_cases([case])] if case else []
        cases = [_attempt(problems, figure, row["test"], make, row, languages[row["model"]]) for row in rows]
        drawn = [case for case in cases if case is not None]
        found += [figure.with_cases(drawn)] if drawn else []
    return tuple(found), tuple(problems)


def _attempt(
    problems: list[str], figure: Figure, of: str, make: Callable[..., Case | None], *given: object
) -> Case | None:
    """Return what `make` gives; where the data has another form than it needs, add a sentence to `problems`."""
    try:
        return make(*given)
    except (Wrong, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problems.append(f"{figure.title}: the data of {of} cannot be drawn ({type(error).__name__}: {error}).")
        return None
