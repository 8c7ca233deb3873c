"""Choice: which units to protect under a budget of bits, solved exactly as a small integer programme.

What a choice leaves is taken as additive: full damage minus what the chosen units do alone. It is a prediction that
ranks choices; the chosen plan is measured afterwards.

Shapes: P units, L languages.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["OBJECTIVES", "Choice", "Objective", "additive_savings", "choose", "left_over"]

Float64 = NDArray[np.float64]
Objective = Literal["worst", "mean", "gap"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

SLACK = 1e-9
"""Relative: a budget that equals the cost of a choice up to rounding buys it."""

STEP = 4e-6
"""The solver keeps constraints to 1e-6 of the budget; where that oversteps, it is asked again with this much less."""

TOLERANCE = 1e-5
"""Of the largest damage: choices this near to each other are equally good, and the one of less mean damage is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Units chosen for an objective, in order, with the damage they are predicted to leave, [L]."""

    objective: Objective
    units: tuple[int, ...]
    cost: float
    predicted: Float64


def additive_savings(excess_PL: Float64, full_L: Float64) -> Float64:
    """Return what protecting each unit saves each language, [P, L], such that all units together save all damage.

    A language's single-unit damages are scaled by one factor to add up to its full damage; where they add up to
    nothing above 0 they are left as they are.
    """
    totals = excess_PL.sum(axis=0)
    known = (totals > 0) & (full_L > 0)
    return np.asarray(excess_PL * np.where(known, full_L / np.where(known, totals, 1.0), 1.0))


def left_over(full_L: Float64, savings_PL: Float64, units: Sequence[int]) -> Float64:
    """Return the damage that a choice is predicted to leave to each language, [L]."""
    return np.asarray(full_L - savings_PL[list(units)].sum(axis=0))


def choose(
    objective: Objective,
    *,
    savings: Float64,
    full: Float64,
    cost: Float64,
    budget: float,
    low: Sequence[int] = (),
    high: Sequence[int] = (),
) -> Choice:
    """Return the best units to protect at a total cost of at most `budget` (in the unit of `cost`, [P]).

    `worst`: least damage of the worst-off language. `mean`: least mean damage. `gap`: least distance between the mean
    damages of the languages at `low` and at `high`. Ties go to the choice with less mean damage. `ValueError` for a
    budget or cost that is not finite, a cost of nothing, and a gap without both groups.
    """
    if not (np.isfinite(budget) and np.isfinite(cost).all() and (cost > 0).all()):
        raise ValueError("budget and costs must be finite, and every unit must cost something")
    if objective == "gap" and not (len(low) and len(high)):
        raise ValueError("a gap needs languages in both groups")
    if budget < cost.min() * (1 - SLACK):
        return _choice(objective, (), savings, full, cost)
    allowed = budget
    while True:
        units = _solve(
            objective, savings=savings, full=full, cost=cost / budget, share=allowed / budget, low=low, high=high
        )
        if float(cost[list(units)].sum()) <= budget * (1 + SLACK):
            return _choice(objective, units, savings, full, cost)
        allowed -= STEP * budget


def _choice(objective: Objective, units: tuple[int, ...], savings: Float64, full: Float64, cost: Float64) -> Choice:
    return Choice(
        objective=objective,
        units=units,
        cost=float(cost[list(units)].sum()),
        predicted=left_over(full, savings, units),
    )


def _solve(
    objective: Objective,
    *,
    savings: Float64,
    full: Float64,
    cost: Float64,
    share: float,
    low: Sequence[int],
    high: Sequence[int],
) -> tuple[int, ...]:
    """Return the optimum: the least bound that some affordable choice keeps, found by halving.

    With the bound fixed the programme has no other variables than the choices themselves; written with the bound as a
    variable of its own, HiGHS called worse choices optimal.
    """
    scale = float(np.abs(full).max()) or 1.0
    saved_PL, full_L = savings / scale, full / scale
    mean_P = saved_PL.mean(axis=1)
    best = _most_saved(mean_P, cost, share)
    if objective == "mean":
        return best or ()
    rows_RP, base_R = _rows(objective, saved_PL, full_L, low, high)

    def value(units: tuple[int, ...]) -> float:
        return float((base_R - rows_RP[:, list(units)].sum(axis=1)).max())

    best = min([best or (), ()], key=value)
    reached = value(best)
    impossible = float((base_R - np.maximum(rows_RP, 0).sum(axis=1)).max())
    while reached - impossible > TOLERANCE:
        bound = (reached + impossible) / 2
        found = _most_saved(mean_P, cost, share, rows=rows_RP, needed=base_R - bound)
        if found is None or value(found) >= reached:
            impossible = bound
        else:
            best, reached = found, value(found)
    tied = _most_saved(mean_P, cost, share, rows=rows_RP, needed=base_R - reached - TOLERANCE)
    return tied if tied is not None and value(tied) <= reached + 2 * TOLERANCE else best


def _rows(
    objective: Objective, saved_PL: Float64, full_L: Float64, low: Sequence[int], high: Sequence[int]
) -> tuple[Float64, Float64]:
    """Return rows [R, P] and base [R]: the objective is the largest of base - rows x."""
    if objective == "worst":
        return saved_PL.T, full_L
    difference = saved_PL[:, list(low)].mean(axis=1) - saved_PL[:, list(high)].mean(axis=1)
    gap = float(full_L[list(low)].mean() - full_L[list(high)].mean())
    return np.stack([difference, -difference]), np.array([gap, -gap])


def _most_saved(
    mean_P: Float64, cost: Float64, share: float, *, rows: Float64 | None = None, needed: Float64 | None = None
) -> tuple[int, ...] | None:
    """Return the affordable choice of largest mean saving with rows x >= needed; None where there is none."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    constraints = [LinearConstraint(cost[None], -np.inf, share * (1 + SLACK))]
    if rows is not None and needed is not None:
        constraints.append(LinearConstraint(rows, needed, np.inf))
    with _without_solver_messages():
        found = milp(-mean_P, integrality=np.ones(len(cost)), bounds=Bounds(0, 1), constraints=constraints)
    return None if found.x is None else tuple(int(place) for place in np.flatnonzero(np.round(found.x)))


@contextmanager
def _without_solver_messages() -> Iterator[None]:
    """Keep what the solver's C++ code prints on its own away from standard output, where a command may write JSON."""
    try:
        kept = os.dup(1)
    except OSError:  # standard output is closed: nothing can be printed on it
        yield
        return
    flush = getattr(ctypes.CDLL(None), "fflush", None) if os.name == "posix" else None
    sys.stdout.flush()
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            if flush is not None:
                flush(None)
            os.dup2(kept, 1)
            os.close(kept)
