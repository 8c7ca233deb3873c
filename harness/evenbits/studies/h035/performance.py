"""How well forecasts hold on models left out: coverage of the interval and recall of the worst quartile.

Every training run is left out in turn. The choice of the metric is made anew without it, so that the figures of the
best metric include the price of choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.statistics import cluster_means
from evenbits.studies.h035.calibration import CalibratedModel, Calibration
from evenbits.studies.h035.forecast import Forecaster, best_forecaster, forecaster, shared_metrics, worst_quarter

__all__ = ["BEST", "PREDICTORS", "LeftOut", "Performance", "forecast_left_out", "performances"]

Float64 = NDArray[np.float64]

BEST = "best"
PREDICTORS = (BEST, "token_parity", "nll_full", "kurtosis_overlap")
"""Shown beside each other: the chosen metric, the two that it must beat, and the hypothesis's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Forecasts of one left-out model against its measured damage.

    `metric`: what was used. `covered`: of each language, whether it lies inside the interval, whose `level` is 90 %, or
    what fewer than nine other runs give; `coverage` and `inside`: the share and number that do.
    `recall`: share of the quarter of languages with most damage that is in the quarter with most forecast damage.
    `error`: mean absolute error in bits per segment. `recalled`: the count behind the recall.
    """

    model: str
    run: str
    metric: str
    languages: int
    level: float
    covered: tuple[bool, ...]
    recalled: int
    quarter: int
    error: float
    width: float

    @property
    def inside(self) -> int:
        return sum(self.covered)

    @property
    def coverage(self) -> float:
        return self.inside / self.languages

    @property
    def recall(self) -> float:
        return self.recalled / self.quarter

    @property
    def chance(self) -> float:
        """Return the recall of an order drawn by lot."""
        return self.quarter / self.languages

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "run": self.run,
            "metric": self.metric,
            "languages": self.languages,
            "level": self.level,
            "coverage": self.coverage,
            "recall": self.recall,
            "mean_absolute_error": self.error,
            "median_width": self.width,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """All left-out models of one predictor; means give every training run the same weight."""

    predictor: str
    models: tuple[LeftOut, ...]

    @property
    def coverage(self) -> float | None:
        return self._mean([one.coverage for one in self.models])

    @property
    def recall(self) -> float | None:
        return self._mean([one.recall for one in self.models])

    @property
    def chance(self) -> float | None:
        return self._mean([one.chance for one in self.models])

    @property
    def level(self) -> float | None:
        return min((one.level for one in self.models), default=None)

    @property
    def least_coverage(self) -> float | None:
        return min((one.coverage for one in self.models), default=None)

    def _mean(self, values: Sequence[float]) -> float | None:
        if not self.models:
            return None
        return float(cluster_means(values, [one.run for one in self.models])[1].mean())

    def to_json(self) -> dict[str, Any]:
        return {
            "predictor": self.predictor,
            "level": self.level,
            "coverage": self.coverage,
            "least_coverage": self.least_coverage,
            "recall": self.recall,
            "recall_by_chance": self.chance,
            "models": [one.to_json() for one in self.models],
        }


def performances(calibration: Calibration, spec: str) -> dict[str, Performance]:
    """Return how each predictor does on every model, fitted without the model's training run."""
    found: dict[str, list[LeftOut]] = {name: [] for name in PREDICTORS}
    for run in calibration.runs:
        rest = calibration.without(run)
        for model in calibration.models:
            if model.run != run:
                continue
            for predictor in PREDICTORS:
                row = forecast_left_out(model, rest, spec, predictor)
                if row is not None:
                    found[predictor].append(row)
    return {name: Performance(predictor=name, models=tuple(rows)) for name, rows in found.items()}


def forecast_left_out(model: CalibratedModel, rest: Calibration, spec: str, predictor: str) -> LeftOut | None:
    """Return how `predictor`, fitted on `rest`, does on a model that `rest` lacks; None where it cannot be used."""
    known = model.metrics[spec]
    if predictor == BEST:
        names = [name for name in shared_metrics(rest.models, resource_kind=model.resource_kind) if name in known]
        fitted = best_forecaster(rest, spec, names)
    else:
        fitted = forecaster(rest.models, spec, predictor)
    return None if fitted is None or fitted.metric not in known else _held_against(model, spec, fitted)


def _held_against(model: CalibratedModel, spec: str, fitted: Forecaster) -> LeftOut:
    """Hold the forecasts of `fitted`, which must not have seen the model's run, against the model's damage."""
    forecasts = fitted.forecast(np.array(model.metrics[spec][fitted.metric]), confidence=fitted.level)
    assert forecasts.low is not None  # noqa: S101 - so many runs give an interval of this level
    assert forecasts.high is not None  # noqa: S101 - same
    damage = np.array(model.excess_bits[spec])
    worst = worst_quarter(damage)
    return LeftOut(
        model=model.text,
        run=model.run,
        metric=fitted.metric,
        languages=len(damage),
        level=fitted.level,
        covered=tuple(((damage >= forecasts.low) & (damage <= forecasts.high)).tolist()),
        recalled=len(worst & worst_quarter(forecasts.order)),
        quarter=len(worst),
        error=float(np.abs(damage - forecasts.value).mean()),
        width=float(np.median(forecasts.high - forecasts.low)),
    )
