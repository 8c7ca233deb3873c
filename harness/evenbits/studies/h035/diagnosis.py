"""Diagnosis: which languages will pay when a model is quantized, said before it is quantized.

Metrics of the model go into a calibration from which its own training run was left out. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import UsageError
from evenbits.models.records import LocalModel
from evenbits.rows import Row
from evenbits.statistics.samples import spread_of
from evenbits.studies.h035.calibration import Calibration
from evenbits.studies.h035.forecast import (
    CONFIDENCE,
    Forecaster,
    best_forecaster,
    forecaster,
    shared_metrics,
    worst_quarter,
)
from evenbits.studies.h035.performance import BEST, Performance, performances
from evenbits.studies.h035.predictors import METRICS, Predictors

__all__ = ["Diagnosis", "LanguageRisk", "diagnose"]

Float64 = NDArray[np.float64]

REASONS = 3
SIZES = 3.0
"""A model this many times larger or smaller than every calibrated one is outside of what the calibration knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRisk(Row):
    """Forecast of one language, excess bits per segment with its 90 % interval.

    `flag`: `vulnerable` for the quarter of the model's languages with most forecast damage, `severe` where that is also
    more than three quarters of all calibrated pairs lost; None else. `reason`: what the forecast rests on. `outside`:
    the metric lies beyond anything calibrated, so that the forecast is an extrapolation, which flags nothing.
    """

    KEYS: ClassVar = {"value": "excess_bits", "outside": "extrapolated"}

    language: str
    value: float
    low: float | None
    high: float | None
    flag: str | None
    reason: str
    outside: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Languages of one model, the most endangered first, and what the forecast is worth.

    `metric`: what was chosen, with `skill` on left-out models. `left_out`: training runs that the calibration did
    without. `performance`: of it and of the other predictors on left-out models. `warnings`: sentences on what
    the calibration does not know.
    """

    model: str
    spec: str
    calibration: str
    corpus: Mapping[str, Any]
    metric: str
    skill: float
    runs: int
    calibrated: tuple[str, ...]
    left_out: tuple[str, ...]
    languages: tuple[LanguageRisk, ...]
    performance: Mapping[str, Performance]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "spec": self.spec,
            "metric": self.metric,
            "skill": self.skill,
            "confidence": CONFIDENCE,
            "calibration": {
                "name": self.calibration,
                "corpus": dict(self.corpus),
                "models": list(self.calibrated),
                "runs": self.runs,
                "left_out": list(self.left_out),
                "performance": {name: one.to_json() for name, one in self.performance.items()},
            },
            "languages": [one.to_json() for one in self.languages],
            "warnings": list(self.warnings),
        }


def diagnose(
    predictors: Predictors, calibration: Calibration, *, local: LocalModel, run: str, corpus: str | None = None
) -> Diagnosis:
    """Forecast the damage of every language in `predictors` under their spec.

    `run`: training run of the model, whose checkpoints are left out of the calibration, as is the model itself wherever
    its weights occur. `corpus`: name of the text the metrics come from. `UsageError` where the spec was not calibrated
    or fewer than three other runs are left.
    """
    spec = predictors.spec
    calibration.require(spec)
    left_out = calibration.runs_of(fingerprint=local.fingerprint, run=run)
    rest = calibration.without(*left_out)
    names = [
        name
        for name in shared_metrics(rest.models, resource_kind=predictors.resource_kind)
        if _usable(predictors, name)
    ]
    chosen = best_forecaster(rest, spec, names)
    if chosen is None:
        raise UsageError(
            f"{calibration.name} has {len(rest.runs)} training runs apart from this model's, and no metric can be "
            "fitted on them; three runs are needed, nine for an interval. Calibrate on more models."
        )
    performance = performances(rest, spec)
    return Diagnosis(
        model=predictors.model,
        spec=spec,
        calibration=calibration.name,
        corpus=calibration.corpus,
        metric=chosen.metric,
        skill=chosen.skill,
        runs=len(rest.runs),
        calibrated=tuple(model.text for model in rest.models),
        left_out=left_out,
        languages=_ranked(predictors, rest, chosen),
        performance=performance,
        warnings=_warnings(predictors, rest, chosen, local, corpus) + _doubts(chosen, performance[BEST]),
    )


def _usable(predictors: Predictors, name: str) -> bool:
    values = predictors.values.get(name)
    return values is not None and not (METRICS[name].scale == "log" and values.min() <= 0)


def _ranked(predictors: Predictors, rest: Calibration, chosen: Forecaster) -> tuple[LanguageRisk, ...]:
    values = predictors.values[chosen.metric]
    forecasts = chosen.forecast(values)
    differ = spread_of(forecasts.order) > 0  # where all are forecast alike, none is more vulnerable than another
    endangered = worst_quarter(forecasts.order) if differ else set()
    known = np.concatenate([np.array(model.excess_bits[predictors.spec]) for model in rest.models])
    severe = float(np.quantile(known, 0.75))
    reasons = _reasons(predictors, rest, chosen)
    outside = (values < chosen.span[0]) | (values > chosen.span[1])
    risks = [
        LanguageRisk(
            language=tag,
            value=float(forecasts.value[place]),
            low=None if forecasts.low is None else float(forecasts.low[place]),
            high=None if forecasts.high is None else float(forecasts.high[place]),
            flag=None
            if place not in endangered or outside[place]
            else "severe"
            if forecasts.value[place] > severe
            else "vulnerable",
            reason=reasons[place],
            outside=bool(outside[place]),
        )
        for place, tag in enumerate(predictors.languages)
    ]
    places = sorted(range(len(risks)), key=lambda place: (-forecasts.order[place], risks[place].language))
    return tuple(risks[place] for place in places)


def _reasons(predictors: Predictors, rest: Calibration, chosen: Forecaster) -> list[str]:
    """Return for each language where it stands by the chosen metric, and what else speaks for damage.

    Another metric is named where the language is in its harmful quarter; which end harms is what the calibration found.
    Estimates of the damage itself are no reasons.
    """
    values = predictors.values[chosen.metric]
    middle = float(np.median(values))
    label = METRICS[chosen.metric].label
    sentences = [
        f"{label} {value / middle:.2g} x the median"
        if METRICS[chosen.metric].scale == "log" and middle > 0
        else f"{label} {value:.3g}, median {middle:.3g}"
        for value in values
    ]
    others = []
    for name in shared_metrics(rest.models, resource_kind=predictors.resource_kind):
        if name != chosen.metric and METRICS[name].scale != "bits" and _usable(predictors, name):
            fitted = forecaster(rest.models, predictors.spec, name)
            others += [fitted] if fitted is not None and fitted.skill > 0 else []
    others.sort(key=lambda one: -one.skill)
    said: list[list[str]] = [[] for _ in values]
    for one in others:
        column = predictors.values[one.metric]
        if len(set(column.tolist())) < 3:  # two values have no harmful quarter
            continue
        harmful = worst_quarter(column if one.line[2] > 0 else -column)
        phrase = METRICS[one.metric].high if one.line[2] > 0 else METRICS[one.metric].low
        for place in harmful:
            said[place].append(phrase)
    return ["; ".join([first, *more[: REASONS - 1]]) for first, more in zip(sentences, said, strict=True)]


def _warnings(
    predictors: Predictors, rest: Calibration, chosen: Forecaster, local: LocalModel, corpus: str | None
) -> tuple[str, ...]:
    found = []
    types = sorted({model.model_type for model in rest.models})
    if local.model_type not in types:
        found.append(f"no {local.model_type} model was calibrated, only {', '.join(types)}")
    sizes = [model.parameters for model in rest.models]
    if not min(sizes) / SIZES <= local.parameters <= max(sizes) * SIZES:
        found.append(
            f"the model has {local.parameters / 1e6:,.1f} million parameters, calibrated ones "
            f"{min(sizes) / 1e6:,.1f} to {max(sizes) / 1e6:,.1f} million"
        )
    values = predictors.values[chosen.metric]
    outside = int(((values < chosen.span[0]) | (values > chosen.span[1])).sum())
    if outside:
        found.append(
            f"{METRICS[chosen.metric].label} of {outside} of {len(values)} languages lies outside the calibrated range"
        )
    if corpus is not None and corpus != rest.corpus.get("name"):
        found.append(f"the text is {corpus}, calibrated was {rest.corpus.get('name')}: its segments may be longer")
    if found:
        found.append(
            "bits and intervals are extrapolated: neither the size of the damage nor the order of languages is "
            "validated on what is unlike the calibrated models and their text"
        )
    return tuple(found)


def _doubts(chosen: Forecaster, best: Performance) -> tuple[str, ...]:
    """Return what left-out models say against relying on the forecast at all."""
    found = []
    chance = best.chance
    if best.recall is not None and chance is not None and best.recall <= chance:
        found.append("on left-out models no metric finds more of the worst than chance: do not rely on this order")
    if chosen.skill <= 0:
        found.append("on left-out models the mean forecasts the size of the damage as well: do not rely on the bits")
    if chosen.runs < _runs_needed():
        found.append(f"{chosen.runs} training runs give no 90 % interval, {_runs_needed()} are needed")
    return tuple(found)


def _runs_needed() -> int:
    """Return the fewest runs whose mass K / (K + 1) reaches the confidence."""
    return int(np.ceil(CONFIDENCE / (1 - CONFIDENCE) - 1e-9))


def standings(performance: Mapping[str, Performance], chosen: str, *, intervals: bool) -> tuple[str, ...]:
    """Return a line per predictor on what it does on left-out models, and one on what chance does, for a person.

    A predictor that is the chosen metric has no line of its own. `intervals`: whether there are any to say it of.
    """
    lines = []
    for name, one in performance.items():
        if name == chosen:
            continue
        label = f"{METRICS[chosen].label} (chosen)" if name == BEST else METRICS[name].label
        if one.recall is None or one.level is None:
            lines.append(f"{label}: not known")
            continue
        held = f"{one.coverage:.0%} of languages ({one.least_coverage:.0%} at worst)"
        by_interval = f"; {one.level:.0%} interval holds for {held}" if intervals else ""
        lines.append(f"{label}: {one.recall:.0%} of the worst quarter found{by_interval}")
    chance = performance[BEST].chance
    return tuple(lines if chance is None else [*lines, f"drawn by lot: {chance:.0%} of the worst quarter found"])
