"""Training runs behind the models of a report: copies that compute the same function, and checkpoints, are one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenbits.estimates import Measurement
from evenbits.observe.runs import training_run

__all__ = ["FUNCTION", "training_runs_of"]

FUNCTION = "nll_full_bits"
"""Key of a measurement's data: mean full-precision NLL by language, which tells models apart by what they compute."""

SAME = 2e-3
"""Relative difference below which two models score a language alike: rescaled copies differ by rounding, other
trainings by a percent and more."""


def training_runs_of(rows: Sequence[Measurement]) -> int:
    """Return how many training runs the models of `rows` come from: by name, and by the function they compute."""
    functions: dict[str, Mapping[str, float]] = {}
    for row in rows:
        if row.model is not None:
            functions.setdefault(row.model, row.data.get(FUNCTION) or {})
    found: list[tuple[str, Mapping[str, float]]] = []
    for model, scores in functions.items():
        run = training_run(model)
        if not any(run == other or _alike(scores, others) for other, others in found):
            found.append((run, scores))
    return len(found)


def _alike(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    shared = first.keys() & second.keys()
    return bool(shared) and all(abs(first[tag] - second[tag]) <= SAME * abs(first[tag]) for tag in shared)
