"""Figures of the HTML report: which measurements carry data for one, and that data in the form the page draws.

A figure is drawn from `data` of measurement rows alone. Rows without such data give no figure. Data in another form
than expected is named in `problems`, not drawn and not passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evenbits.figure import Case, Figure, Wrong
from evenbits.report.described import described
from evenbits.studies.h037.figures import BY_MODEL, by_model
from evenbits.studies.study import studies

__all__ = ["figures"]

Joiner = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], "Case | None"]
"""Makes one case of all measurements together."""


JOINED: tuple[tuple[Figure, Joiner, str], ...] = ((BY_MODEL, by_model, "sparsity"),)
"""Figures over all measurements, each with what makes its case, and the figure before which it stands."""


def figures(document: Mapping[str, Any]) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Return the figures that have data, and a sentence for each measurement whose data cannot be drawn."""
    rows = document["measurements"]
    languages = {model: described(document, model) for model in {None, *(row["model"] for row in rows)}}
    found: list[Figure] = []
    problems: list[str] = []
    for drawing in sorted((one for study in studies() for one in study.drawings), key=lambda one: one.place):
        figure, make = drawing.figure, drawing.make
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
