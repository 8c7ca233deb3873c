"""E-3: outliers grow during training. Over the checkpoints of a run: does the heaviest tail become heavier?

Shapes: B resamples, T tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.runs import step_of
from evenbits.observe.weights.statistics import TensorSummary
from evenbits.statistics import mean_interval
from evenbits.statistics.bootstrap import bootstrap_estimate
from evenbits.studies.established.records import ModelWeights, largest_tail, originals_first

__all__ = ["outliers_grow"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

FEWEST_RUNS = 4
"""Training runs below which nothing is said of training: checkpoints of one run follow each other, so a trend over them
has n = 1 and no p (a walk without drift is 'significant' in every seventh run)."""
SIGMA = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """The checkpoints of one training run, first to last."""

    run: str
    checkpoints: tuple[ModelWeights, ...]

    @property
    def tails(self) -> list[float]:
        """Largest excess kurtosis at each checkpoint, at least what chance gives."""
        return [largest_tail(one.statistics.tensors) or 0.0 for one in self.checkpoints]

    @property
    def outliers(self) -> list[float]:
        """Weights beyond five standard deviations per million, at each checkpoint."""
        return [1e6 * one.statistics.beyond(SIGMA).share for one in self.checkpoints]

    @property
    def progress(self) -> tuple[str, list[float]]:
        """How far training was at each checkpoint: bytes of text where all say it, else their number."""
        seen = [one.trained_bytes for one in self.checkpoints]
        if all(amount is not None for amount in seen):
            return "bytes of training text", [float(amount or 0) for amount in seen]
        return "checkpoint", [float(place + 1) for place in range(len(seen))]


def outliers_grow(models: Sequence[ModelWeights], *, rng: np.random.Generator) -> Finding:
    """Whether the largest excess kurtosis of a tensor grows over the checkpoints of a training run.

    The estimate is the factor between last and first checkpoint, its geometric mean over training runs; the interval
    is over runs. Below four runs with several checkpoints it is the factor of the run with most of them, its interval
    over tensors speaks of that run alone, and the verdict is `underpowered`.
    """
    courses = _courses(models)
    if not courses:
        reason = "no training run is there with more than one checkpoint"
        return Finding(
            estimate=Estimate.undefined(reason, method="factor of the largest kurtosis"),
            verdict=Verdict.NOT_APPLICABLE,
            because=f"{reason}. Name several checkpoints of one run, such as reference:a1-heavy-s0064 and "
            "reference:a1-heavy.",
            summary=reason,
        )
    main = max(courses, key=lambda one: len(one.checkpoints))
    few = len(courses) < FEWEST_RUNS
    growth = _factor(main, rng=rng) if few else _over_runs(courses, rng=rng)
    needed = f" {len(courses)} training run{'' if len(courses) == 1 else 's'} with checkpoints, needed {FEWEST_RUNS}."
    return Finding(
        estimate=growth,
        verdict=Verdict.UNDERPOWERED if few else None,
        because=" ".join(_sentence(one) for one in courses) + needed * few,
        also={f"growth of {one.run}": _factor(one, rng=rng) for one in courses if one is not main},
        summary=f"{main.run}: largest kurtosis over {len(main.checkpoints)} checkpoints",
        data={"growth": _figure(main), "courses": [_row(one) for one in courses]},
    )


def _courses(models: Sequence[ModelWeights]) -> list[Course]:
    by_run: dict[str, list[ModelWeights]] = {}
    for one in models:
        by_run.setdefault(one.run, []).append(one)
    found = []
    for run, members in by_run.items():
        # a changed copy of a checkpoint is no further checkpoint
        by_step = {step_of(one.model): one for one in reversed(originals_first(members))}
        checkpoints = tuple(by_step[step] for step in sorted(by_step))
        if len(checkpoints) > 1 and largest_tail(checkpoints[0].statistics.tensors) is not None:
            found.append(Course(run=run, checkpoints=checkpoints))
    return found


def _over_runs(courses: Sequence[Course], *, rng: np.random.Generator) -> Estimate:
    """Return the geometric mean over runs of last over first largest kurtosis, with its interval over runs."""
    logs = [math.log(one.tails[-1] / one.tails[0]) for one in courses]
    mean = mean_interval(logs, rng=rng)
    value, low, high = (
        None if part is None else math.exp(min(part, 700.0)) for part in (mean.value, mean.low, mean.high)
    )
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=len(courses),
        method=f"largest excess kurtosis, last over first checkpoint, geometric mean over runs; {mean.method}",
    )


def _factor(course: Course, *, rng: np.random.Generator) -> Estimate:
    """Return last over first largest kurtosis; resamples draw tensors, the same at both checkpoints."""
    first, last = (_tails(one.statistics.tensors) for one in (course.checkpoints[0], course.checkpoints[-1]))
    what = "largest excess kurtosis, last over first checkpoint"
    if len(first) != len(last):
        return Estimate.undefined("the checkpoints have different tensors", n=1, method=what)

    def factor(rows_BT: Int64) -> Float64:
        return np.asarray(last[rows_BT].max(axis=1) / first[rows_BT].max(axis=1))

    found = bootstrap_estimate(factor, len(first), what=what, rng=rng)
    return Estimate(
        value=found.value,
        low=found.low,
        high=found.high,
        n=1,
        method=f"{found.method} over {len(first)} tensors",
        reason="one training run: the interval is over its tensors, not over runs",
    )


def _tails(tensors: Sequence[TensorSummary]) -> Float64:
    return np.array([max(t.kurtosis or 0.0, math.sqrt(24 / t.n)) for t in tensors])


def _sentence(course: Course) -> str:
    tails, outliers = course.tails, course.outliers
    return (
        f"{course.run}: largest kurtosis {tails[0]:.2g} to {tails[-1]:.2g} over {len(tails)} checkpoints"
        f"{_peak(tails)}, weights beyond {SIGMA} sigma {outliers[0]:.3g} to {outliers[-1]:.3g} per million."
    )


def _peak(tails: Sequence[float]) -> str:
    """Return where the largest value stands, if it is not the last."""
    place = int(np.argmax(tails))
    return "" if place == len(tails) - 1 else f" with a peak of {tails[place]:.2g} at the {_ordinal(place + 1)}"


def _ordinal(place: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th") if place % 100 // 10 != 1 else "th"
    return f"{place}{ending}"


def _figure(course: Course) -> dict[str, Any]:
    name, x = course.progress
    return {
        "x": x,
        "x_name": name,
        "y_name": "excess kurtosis",
        "series": [
            {"name": "largest of a tensor", "y": course.tails},
            {"name": "mean over tensors", "y": [one.statistics.weighted("kurtosis") for one in course.checkpoints]},
        ],
    }


def _row(course: Course) -> dict[str, Any]:
    return {
        "run": course.run,
        "checkpoints": [one.model for one in course.checkpoints],
        "largest_kurtosis": course.tails,
        "outliers_per_million": course.outliers,
        "heaviest": [None if (t := one.statistics.heaviest) is None else t.name for one in course.checkpoints],
    }
