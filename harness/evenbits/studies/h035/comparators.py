"""Every metric against damage on the same footing: correlation, and what it says of languages it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate
from evenbits.statistics import held_out_predictions, held_out_r2, pearson, spearman
from evenbits.statistics.samples import spread_of
from evenbits.studies.h035.predictors import METRICS, TAYLOR
from evenbits.studies.h035.study import PredictionStudy

__all__ = ["comparator_table", "usable"]

Float64 = NDArray[np.float64]

RESAMPLES = 1000
PERMUTED = "kurtosis_permuted"


def usable(study: PredictionStudy, names: tuple[str, ...]) -> dict[str, Float64]:
    """Return those of the metrics `names` that are defined and differ between languages."""
    values = study.predictors.values
    return {name: values[name] for name in names if name in values and spread_of(values[name]) > 0}


def comparator_table(study: PredictionStudy, *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return a row per metric: r and rho with p, held-out R2 by language and by family; the permuted null last.

    The unit is the language. p permutes languages within family x script, two-sided: for a comparator no sign was fixed
    in advance. Metrics that are undefined have their reason in every number.
    """
    rows = [_row(study, name, rng) for name in METRICS if name != TAYLOR]
    rows.append(_null(study))
    return rows


def _row(study: PredictionStudy, name: str, rng: np.random.Generator) -> dict[str, Any]:
    values = study.predictors.values.get(name)
    label = METRICS[name].label
    if values is None:
        nothing = Estimate.undefined(study.predictors.missing[name], n=len(study.languages)).to_json()
        numbers: dict[str, Any] = dict.fromkeys(("r", "rho", "r2_language_out", "r2_family_out"), nothing)
        return {"metric": name, "label": label, **numbers, "p_value": None}
    strata, y = study.predictors.strata, study.excess_bits
    families = study.predictors.families
    straight = pearson(values, y, rng=rng, strata=strata, clusters=families, resamples=RESAMPLES)
    ranked = spearman(values, y, rng=rng, strata=strata, clusters=families, resamples=RESAMPLES)
    return {
        "metric": name,
        "label": label,
        "r": straight.estimate.to_json(),
        "p_value": straight.p_value,
        "rho": ranked.estimate.to_json(),
        "r2_language_out": held_out_r2(y, {name: values}, rng=rng, clusters=families, resamples=RESAMPLES).to_json(),
        "r2_family_out": held_out_r2(y, {name: values}, rng=rng, groups=families, resamples=RESAMPLES).to_json(),
    }


def _null(study: PredictionStudy) -> dict[str, Any]:
    """Return the row of kurtosis with its layers permuted: the middle of all orders, and where 95 % of them lie."""
    y, orders = study.excess_bits, study.predictors.permuted
    moving = [row for row in orders if spread_of(row) > 0]
    found: Mapping[str, list[float]] = {
        "r": [float(np.corrcoef(row, y)[0, 1]) for row in moving],
        "rho": [float(np.corrcoef(_ranks(row), _ranks(y))[0, 1]) for row in moving],
        "r2_language_out": [value for row in moving if (value := _r2(y, row, None)) is not None],
        "r2_family_out": [value for row in moving if (value := _r2(y, row, study.predictors.families)) is not None],
    }
    row: dict[str, Any] = {"metric": PERMUTED, "label": "kurtosis of other layers (null)", "p_value": None}
    return row | {name: _middle(values, len(study.languages)).to_json() for name, values in found.items()}


def _middle(values: list[float], n: int) -> Estimate:
    if not values:
        return Estimate.undefined("no other order of the layers changes the overlap", n=n)
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return Estimate(
        value=middle, low=low, high=high, n=n, method=f"median and central 95 % of {len(values)} orders of the layers"
    )


def _ranks(values: Float64) -> Float64:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _r2(y: Float64, values: Float64, groups: tuple[str, ...] | None) -> float | None:
    found = held_out_predictions(y, {"permuted": values}, groups=groups)
    if isinstance(found, str):
        return None
    predicted, mean = found
    return float(1 - ((y - predicted) ** 2).sum() / ((y - mean) ** 2).sum())
