"""Forecasting damage from one metric, with an interval that knows that models differ.

Shapes: N pairs of model and language, K training runs, Q languages asked for.

Fit: asinh(excess bits) on the metric (its logarithm or asinh where sizes mean something), least squares, every training
run with equal weight. The mean of a model and what its languages differ by have a slope each: models with heavier tails
may lose less, and languages that meet more of them more, and one slope would hide the second behind the first. asinh is
linear near zero, where damage is noise and may be negative, and logarithmic above. No forecast leaves the range of
damage that it was fitted on: a model whose metric lies far outside would get numbers that nothing ever lost. The order
of languages is that of the line itself.

Interval: cross-validation+ (Barber et al. 2021, Annals of Statistics 49) with training runs as folds, and the levels of
hierarchical conformal prediction (Dunn, Wasserman & Ramdas 2022, JASA, "pooling CDFs"): each of K runs has the mass
1 / (K + 1), spread evenly over its pairs, and the new model's own mass lies at infinity. A new model is exchangeable
with models, not with languages, so K, not N, is the sample size; with fewer than nine runs there is no 90 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.statistics.samples import spread_of
from evenbits.studies.h035.calibration import CalibratedModel, Calibration
from evenbits.studies.h035.predictors import METRICS

__all__ = [
    "CONFIDENCE",
    "Forecaster",
    "Forecasts",
    "best_forecaster",
    "forecaster",
    "shared_metrics",
    "worst_quarter",
]

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENCE = 0.9
FEWEST_RUNS = 3
SLACK = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecasts:
    """Forecast excess bits per segment, [Q] each; `low` and `high` are None where there are too few runs.

    `order`: on the scale of the fit, also where `value` has reached the most or least damage that was calibrated.
    """

    value: Float64
    order: Float64
    low: Float64 | None
    high: Float64 | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """One metric, fitted.

    `line`: constant, slope of the model's mean, slope of a language's distance from it; `lines` [K, 3]: with each run
    left out. `least`, `most` [K]: damage of the
    other runs, on the asinh scale. `misses` [N]: absolute error of each pair, forecast without its run, on that scale;
    `run` [N]: its run. `skill`: 1 - squared error of forecasts
    without the run over that of the other runs' mean, runs weighted equally. `recall`: share of each model's quarter of
    languages with most damage that such forecasts put into the worst quarter. `span`: lowest and highest metric seen.
    """

    metric: str
    line: tuple[float, float, float]
    lines: Float64
    least: Float64
    most: Float64
    misses: Float64
    run: Ints
    skill: float
    recall: float
    span: tuple[float, float]

    @property
    def runs(self) -> int:
        return len(self.lines)

    @property
    def level(self) -> float:
        """Return the confidence of the widest interval up to `CONFIDENCE` that so many runs give."""
        return min(CONFIDENCE, self.runs / (self.runs + 1))

    def forecast(self, values: Float64, *, confidence: float = CONFIDENCE) -> Forecasts:
        """Return forecasts for the languages with these values of the metric, [Q]."""
        x_Q3 = _split(_scaled(self.metric, values))
        order_Q = x_Q3 @ np.array(self.line)
        without_QK = (x_Q3 @ self.lines.T).clip(self.least, self.most)
        centre_QN = without_QK[:, self.run]
        mass_N = 1 / ((self.runs + 1) * np.bincount(self.run)[self.run])
        high = _reached(centre_QN + self.misses, mass_N, confidence)
        low = _reached(self.misses - centre_QN, mass_N, confidence)
        return Forecasts(
            value=np.sinh(order_Q.clip(self.least.min(), self.most.max())),
            order=order_Q,
            low=None if low is None else np.sinh(-low),
            high=None if high is None else np.sinh(high),
        )


def _reached(values_QN: Float64, mass_N: Float64, confidence: float) -> Float64 | None:
    """Return the smallest value of each row at or below which `confidence` of the mass lies; None where it never is."""
    if mass_N.sum() < confidence - SLACK:
        return None
    order = np.argsort(values_QN, axis=1, kind="stable")
    below = np.cumsum(mass_N[order], axis=1)
    place = np.argmax(below >= confidence - SLACK, axis=1)
    rows = np.arange(len(values_QN))
    return np.asarray(values_QN[rows, order[rows, place]])


def _split(x_Q: Float64) -> Float64:
    """Return what a line is fitted on, [Q, 3]: one, the mean over the languages of a model, the distance from it."""
    mean = np.full(len(x_Q), x_Q.mean())
    return np.stack([np.ones(len(x_Q)), mean, x_Q - mean], axis=1)


def _scaled(metric: str, values: Float64) -> Float64:
    scale = METRICS[metric].scale
    return np.asarray(np.log(values) if scale == "log" else values if scale == "plain" else np.arcsinh(values))


def forecaster(models: Sequence[CalibratedModel], spec: str, metric: str) -> Forecaster | None:
    """Return the metric fitted on `models`; None where it cannot be: undefined, constant, or fewer than three runs."""
    if any(metric not in model.metrics[spec] for model in models):
        return None
    values = np.concatenate([np.array(model.metrics[spec][metric]) for model in models] or [np.empty(0)])
    if not len(values) or (METRICS[metric].scale == "log" and values.min() <= 0) or spread_of(values) == 0:
        return None
    names = list(dict.fromkeys(model.run for model in models))
    run = np.concatenate([np.full(len(m.languages), names.index(m.run)) for m in models])
    if len(names) < FEWEST_RUNS:
        return None
    x_N3 = np.concatenate([_split(_scaled(metric, np.array(model.metrics[spec][metric]))) for model in models])
    y = np.arcsinh(np.concatenate([np.array(model.excess_bits[spec]) for model in models]))
    weight = 1 / np.bincount(run)[run]
    lines, expected, order, mean = np.empty((len(names), 3)), np.empty_like(y), np.empty_like(y), np.empty_like(y)
    least, most = np.empty(len(names)), np.empty(len(names))
    for number in range(len(names)):
        out = run == number
        if spread_of(x_N3[~out, 1:].sum(axis=1)) == 0:
            return None
        lines[number] = _line(x_N3[~out], y[~out], weight[~out])
        least[number], most[number] = y[~out].min(), y[~out].max()
        order[out] = x_N3[out] @ lines[number]
        expected[out] = order[out].clip(least[number], most[number])
        mean[out] = np.average(y[~out], weights=weight[~out])
    error, spread = (weight * (y - expected) ** 2).sum(), (weight * (y - mean) ** 2).sum()
    constant, between, within = _line(x_N3, y, weight)
    return Forecaster(
        metric=metric,
        line=(float(constant), float(between), float(within)),
        lines=lines,
        least=least,
        most=most,
        misses=np.abs(y - expected),
        run=run,
        skill=float(1 - error / spread) if spread > 0 else 0.0,
        recall=_recall(models, names, y, order),
        span=(float(values.min()), float(values.max())),
    )


def _recall(models: Sequence[CalibratedModel], runs: Sequence[str], damage: Float64, expected: Float64) -> float:
    """Return the share of the worst quarters that was expected there, every training run with equal weight."""
    ends = np.cumsum([len(model.languages) for model in models])[:-1]
    by_run: list[list[float]] = [[] for _ in runs]
    for model, one, other in zip(models, np.split(damage, ends), np.split(expected, ends), strict=True):
        worst = worst_quarter(one)
        by_run[runs.index(model.run)].append(len(worst & worst_quarter(other)) / len(worst))
    return float(np.mean([np.mean(shares) for shares in by_run]))


def worst_quarter(damage: Float64) -> set[int]:
    """Return the places of the quarter (rounded, at least one) with most damage; ties go to the earlier language."""
    count = max(1, round(len(damage) / 4))
    return {int(place) for place in np.argsort(-damage, kind="stable")[:count]}


def _line(x_N3: Float64, y: Float64, weight: Float64) -> Float64:
    """Return the coefficients of weighted least squares; the smallest where models or languages do not differ."""
    root = np.sqrt(weight)
    return np.asarray(np.linalg.lstsq(x_N3 * root[:, None], y * root, rcond=None)[0])


def shared_metrics(models: Sequence[CalibratedModel], *, resource_kind: str | None) -> tuple[str, ...]:
    """Return the metrics that mean the same in all `models` and in a model with this kind of resource level."""
    kinds = {model.resource_kind for model in models}
    return tuple(name for name in METRICS if name != "resource" or kinds == {resource_kind})


def best_forecaster(calibration: Calibration, spec: str, names: Sequence[str]) -> Forecaster | None:
    """Return the metric among `names` that does best on left-out runs; ties go to the earlier.

    Best is what finds most of the languages that lose most, which is what a diagnosis is asked for; among equals, what
    forecasts the size of the damage best. A metric that tells models apart, not languages, has skill and no use.
    """
    fitted: Mapping[str, Forecaster | None] = {name: forecaster(calibration.models, spec, name) for name in names}
    known = [one for one in fitted.values() if one is not None]
    return max(known, key=lambda one: (one.recall, one.skill), default=None)
