"""Held-out R2 of least-squares predictions: what a predictor says about languages it has not seen.

Definition: R2 = 1 - sum (y_i - p_i)^2 / sum (y_i - m_i)^2, where p_i is predicted by a fit without unit i (or without
its whole group) and m_i is the mean of y over the same training fold. 0: no better than that mean; below 0: worse.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, bootstrap_estimate
from evenbits.statistics.samples import FloatArray, IntArray, columns, group_codes, spread_of, vector

__all__ = ["added_r2", "held_out_predictions", "held_out_r2"]


class _UndefinedFitError(Exception):
    """A training fold on which the coefficients are not determined; the message says which and why."""


def held_out_predictions(
    y: ArrayLike, predictors: Mapping[str, ArrayLike], *, groups: Sequence[Hashable] | None = None
) -> tuple[FloatArray, FloatArray] | str:
    """Return predictions and training-fold means, [n] each, by ordinary least squares with a constant.

    One fold per unit, or per group where `groups` gives a label per unit. No predictors: the training mean predicts.
    Returns the reason, a sentence, where a fold cannot be fitted.
    """
    target = vector(y, "y")
    names, design = columns(predictors, len(target), "predictors")
    folds = np.arange(len(target)) if groups is None else group_codes(groups, len(target), "groups")
    try:
        return _held_out(target, names, design, folds)
    except _UndefinedFitError as problem:
        return str(problem)


def _held_out(
    y: FloatArray, names: tuple[str, ...], design: FloatArray, folds: IntArray
) -> tuple[FloatArray, FloatArray]:
    if len(set(folds.tolist())) < 2:
        raise _UndefinedFitError("all units are in one group: nothing is left to train on")
    if spread_of(y) == 0:
        raise _UndefinedFitError(f"y is constant over the {len(y)} units")
    for name, column in zip(names, design.T, strict=True):
        if spread_of(column) == 0:
            raise _UndefinedFitError(f"predictor {name} is constant over the {len(y)} units")
    scaled = (design - design.mean(axis=0)) / design.std(axis=0)  # the fit is the same, its rank is decided safely
    predicted, means = np.empty_like(y), np.empty_like(y)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        kept = ~out
        if kept.sum() < len(names) + 2:
            raise _UndefinedFitError(
                f"without one fold {int(kept.sum())} units are left: {len(names)} predictors need {len(names) + 2}"
            )
        full = np.column_stack([np.ones(len(y)), scaled])
        coefficients, _, rank, _ = np.linalg.lstsq(full[kept], y[kept], rcond=1e-10)
        if rank < full.shape[1]:
            raise _UndefinedFitError(f"without one fold {', '.join(names)} are constant or collinear")
        predicted[out] = full[out] @ coefficients
        means[out] = y[kept].mean()
    return predicted, means


def held_out_r2(
    y: ArrayLike,
    predictors: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return held-out R2 (definition above) with a BCa interval over units, or over groups where these are held out.

    `clusters`: of the units, drawn before them where units are left out singly.
    The interval resamples held-out errors with the fits as they are: it is conditional on the predictions.
    """
    return _compared(
        y, {}, predictors, rng=rng, groups=groups, clusters=clusters, confidence=confidence, resamples=resamples
    )


def added_r2(
    y: ArrayLike,
    comparators: Mapping[str, ArrayLike],
    added: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return held-out R2 of comparators + added minus that of the comparators alone, with its interval.

    A predictor of its own adds more than 0; below 0 it only adds noise.
    """
    shared = sorted(set(comparators) & set(added))
    if shared:
        raise ValueError(f"added repeats the comparators {', '.join(shared)}")
    if not added:
        raise ValueError("added is empty: name at least one predictor")
    return _compared(
        y, comparators, added, rng=rng, groups=groups, clusters=clusters, confidence=confidence, resamples=resamples
    )


def _compared(
    y: ArrayLike,
    base: Mapping[str, ArrayLike],
    extra: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None,
    clusters: Sequence[str] | None,
    confidence: float,
    resamples: int,
) -> Estimate:
    target = vector(y, "y")
    left_out = "one unit" if groups is None else "one group"
    what = f"held-out R2 of {', '.join(extra) or 'nothing'}, {left_out} left out"
    if base:
        what += f", beyond {', '.join(base)}"
    larger = held_out_predictions(target, {**base, **extra}, groups=groups)
    smaller = held_out_predictions(target, base, groups=groups)
    for fitted in (larger, smaller):
        if isinstance(fitted, str):
            return Estimate.undefined(fitted, n=len(target), method=what)
    assert not isinstance(larger, str)  # noqa: S101 - tells mypy what the loop above has settled
    assert not isinstance(smaller, str)  # noqa: S101 - same
    codes = np.arange(len(target)) if groups is None else group_codes(groups, len(target), "groups")
    gain = np.bincount(codes, (target - smaller[0]) ** 2 - (target - larger[0]) ** 2)
    deviation = np.bincount(codes, (target - larger[1]) ** 2)
    if groups is not None:
        what += f" ({len(gain)} groups)"
    if len(gain) < 3:
        reason = f"no interval: {len(gain)} groups, 3 needed"
        return Estimate(value=gain.sum() / deviation.sum(), n=len(target), method=what, reason=reason)

    def statistic(rows: IntArray) -> FloatArray:
        below = deviation[rows].sum(axis=1)
        return np.asarray(np.divide(gain[rows].sum(axis=1), below, out=np.full(len(rows), np.nan), where=below > 0))

    found = bootstrap_estimate(
        statistic,
        len(gain),
        what=what,
        rng=rng,
        confidence=confidence,
        resamples=resamples,
        width=2,
        clusters=clusters if groups is None else None,
    )
    return Estimate(
        value=found.value, low=found.low, high=found.high, n=len(target), method=found.method, reason=found.reason
    )
