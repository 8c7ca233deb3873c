"""Does a diagnosis hold? Forecasts from other models against the damage that this model then shows."""

from __future__ import annotations

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.printable import capital
from evenbits.statistics import wilson
from evenbits.studies.h035.calibration import CalibratedModel, Calibration
from evenbits.studies.h035.forecast import CONFIDENCE
from evenbits.studies.h035.performance import BEST, PREDICTORS, LeftOut, forecast_left_out
from evenbits.studies.h035.predictors import METRICS
from evenbits.studies.h035.study import FEWEST, PredictionStudy

__all__ = ["forecasts_hold"]


def forecasts_hold(study: PredictionStudy, calibration: Calibration) -> Finding:
    """Whether the 90 % interval, from models of other training runs, covers the damage of this model's languages.

    `calibration` must not hold the model's own training run. The estimate is the share of languages covered. Languages
    of one family miss together, so its interval counts families as trials. Beside it stand token parity
    alone, full-precision NLL alone, kurtosis overlap.
    """
    spec = study.predictors.spec
    n = len(study.languages)
    what = "share of languages inside the 90 % interval"
    if spec not in calibration.specs:
        reason = f"{calibration.name} knows {', '.join(calibration.specs) or 'no quantization'}, not {spec}"
        return Finding(
            estimate=Estimate.undefined(reason, n=n, method=what),
            verdict=Verdict.NOT_APPLICABLE,
            because=f"{reason}. Calibrate it with `evenbits diagnose --calibrate`.",
            summary=reason,
        )
    if n < FEWEST:
        reason = f"{n} languages, needed {FEWEST}"
        return Finding(
            estimate=Estimate.undefined(reason, n=n, method=what),
            verdict=Verdict.UNDERPOWERED,
            because=f"{reason}. Add languages with --languages.",
            summary=reason,
        )
    held = {name: forecast_left_out(_as_calibrated(study), calibration, spec, name) for name in PREDICTORS}
    best = held[BEST]
    if best is None or best.level < CONFIDENCE:
        reason = f"{len(calibration.runs)} other training runs give no {CONFIDENCE:.0%} interval"
        return Finding(
            estimate=Estimate.undefined(reason, n=n, method=what),
            verdict=Verdict.NOT_APPLICABLE,
            because=f"{reason}. Calibrate on more models.",
            summary=reason,
        )
    share, families = best.inside / n, len(set(study.predictors.families))
    bounds = wilson(round(share * families), families)
    return Finding(
        estimate=Estimate(
            value=share,
            low=min(share, bounds.low or 0.0),
            high=max(share, 1.0 if bounds.high is None else bounds.high),
            n=n,
            method=f"{what}; Wilson 95% interval with {families} families as trials",
        ),
        because=f"Forecast from {METRICS[best.metric].label}, chosen on {len(calibration.runs)} other training runs. "
        + " ".join(_sentence(name, one) for name, one in held.items() if one is not None),
        summary=f"{METRICS[best.metric].label}: interval holds {best.inside} of {n}, worst quarter recalled "
        f"{best.recalled} of {best.quarter}",
        data={name: one.to_json() for name, one in held.items() if one is not None},
    )


def _as_calibrated(study: PredictionStudy) -> CalibratedModel:
    spec = study.predictors.spec
    return CalibratedModel(
        text=study.predictors.model,
        fingerprint="",
        run="",
        model_type="",
        parameters=0,
        resource_kind=study.predictors.resource_kind,
        languages=study.languages,
        metrics={spec: {name: tuple(np.asarray(v).tolist()) for name, v in study.predictors.values.items()}},
        excess_bits={spec: tuple(study.excess_bits.tolist())},
    )


def _sentence(name: str, one: LeftOut) -> str:
    who = "That" if name == BEST else capital(METRICS[name].label)
    found = f"worst quarter recalled {one.recalled} of {one.quarter}"
    return f"{who}: interval holds {one.inside} of {one.languages}, {found}."
