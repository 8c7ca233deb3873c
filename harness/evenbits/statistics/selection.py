"""Selection: a feature chosen and judged on different languages, with a null distribution of the whole choice.

Shapes: M labellings, K features, N units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics.bootstrap import RESAMPLES
from evenbits.statistics.effects import cliffs_delta
from evenbits.statistics.permutation import permutation_p, rearrangements
from evenbits.statistics.samples import FloatArray, IntArray, columns, spread_of

__all__ = ["Selection", "nested_selection_auc"]

BLOCK = 4_000_000  # numbers held at once while labellings are judged: 32 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection(Row):
    """Nested leave-one-out AUC of a selected feature, and the p-value of the whole selection.

    `frequencies`: share of folds that chose each feature, most frequent first; features never chosen have 0.
    `scores`: held-out score per unit, higher = more likely labelled true; None where the AUC is undefined.
    """

    estimate: Estimate
    p_value: float | None
    p_method: str
    frequencies: Mapping[str, float]
    scores: tuple[float, ...] | None


def nested_selection_auc(
    features: Mapping[str, ArrayLike],
    labels: Sequence[bool],
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = 999,
) -> Selection:
    """Return the AUC with which a selected feature tells two groups of units apart, on units it was not chosen on.

    Signs are fixed in advance: features are given so that more of them is expected where the label is true. For each
    unit left out: the feature with the largest AUC on the others is chosen; the unit's score is its value standardised
    by mean and SD of the others. A feature that goes the other way is never turned. The AUC is over the pooled held-out
    scores; leaving
    one out biases it downwards under the null, which the p-value takes into account: labels are permuted (within
    `strata`) and the whole selection is repeated, (b + 1) / (m + 1), exact where there are few labellings.
    Interval: BCa over units, or over `clusters` and their units, with the held-out scores as they are.
    """
    truth = np.asarray(labels)
    if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be a vector of booleans")
    truth = truth.astype(bool)
    n, positives = len(truth), int(truth.sum())
    names, table = columns(features, n, "features")
    what = f"nested leave-one-out AUC of the best of {len(names)} features"
    reason = None
    if min(positives, n - positives) < 2:
        reason = f"groups of {positives} and {n - positives}: leaving one out needs at least 2 in each"
    elif not names:
        reason = "no features"
    elif all(spread_of(column) == 0 for column in table.T):
        reason = "every feature is constant"
    if reason:
        return Selection(
            estimate=Estimate.undefined(reason, n=n, method=what),
            p_value=None,
            p_method=f"none: {reason}",
            frequencies=dict.fromkeys(names, 0.0),
            scores=None,
        )
    signs, standard = np.sign(table.T[:, :, None] - table.T[:, None, :]), _standardised_left_out(table)
    scores, chosen = _judge(signs, standard, truth[None])
    auc = float(_auc(scores, truth[None])[0])
    order = np.concatenate([np.flatnonzero(truth), np.flatnonzero(~truth)])
    spread = cliffs_delta(
        scores[0][truth],
        scores[0][~truth],
        rng=rng,
        clusters=None if clusters is None else [clusters[place] for place in order],
        confidence=confidence,
        resamples=resamples,
        permutations=1,
    ).estimate
    estimate = Estimate(
        value=auc,
        low=None if spread.low is None else (spread.low + 1) / 2,
        high=None if spread.high is None else (spread.high + 1) / 2,
        n=n,
        method=spread.method.replace("Cliff's delta", what),
        reason=spread.reason,
    )
    p, p_method = _whole_selection_p(auc, signs, standard, truth, rng=rng, strata=strata, permutations=permutations)
    counts = np.bincount(chosen[0], minlength=len(names)) / n
    frequent = sorted(range(len(names)), key=lambda k: (-counts[k], k))
    return Selection(
        estimate=estimate,
        p_value=p,
        p_method=p_method,
        frequencies={names[k]: float(counts[k]) for k in frequent},
        scores=tuple(float(score) for score in scores[0]),
    )


def _standardised_left_out(table_NK: FloatArray) -> FloatArray:
    """Return each value standardised by mean and SD of the other units: [K, N]; 0 where the others are constant."""
    n = len(table_NK)
    centred = table_NK - table_NK.mean(axis=0)
    others = (centred.sum(axis=0) - centred) / (n - 1)
    squares = ((centred**2).sum(axis=0) - centred**2) / (n - 1) - others**2
    known = squares > 1e-20 * np.maximum(1e-300, np.abs(table_NK).max(axis=0)) ** 2
    return np.where(known, (centred - others) / np.sqrt(np.where(known, squares, 1)), 0.0).T


def _judge(signs_KNN: FloatArray, standard_KN: FloatArray, labels_MN: np.ndarray) -> tuple[FloatArray, IntArray]:
    """Return held-out scores and chosen features, [M, N] each, for every labelling."""
    true = labels_MN.astype(np.float64)
    wins_over_true = np.einsum("kij,mj->kmi", signs_KNN, true, optimize=True)  # [K, M, N]
    wins_over_false = signs_KNN.sum(axis=2)[:, None, :] - wins_over_true
    total = (wins_over_false * true).sum(axis=2, keepdims=True)
    # dropping unit i drops its own comparisons: wins over false ones if it is true, losses to true ones if false
    left = np.where(labels_MN, total - wins_over_false, total + wins_over_true)
    # sizes of the groups are the same for all features of a fold: the largest sum is the largest AUC.
    # Sums of signs are whole numbers, so ties are exact and the first feature wins them
    chosen = left.argmax(axis=0)
    _, i = np.indices(chosen.shape)
    return standard_KN[chosen, i], chosen


def _auc(scores_MN: FloatArray, labels_MN: np.ndarray) -> FloatArray:
    """Return P(score of a true unit > score of a false one) + half the ties, per row."""
    differences = np.sign(scores_MN[:, :, None] - scores_MN[:, None, :])
    pairs = labels_MN[:, :, None] & ~labels_MN[:, None, :]
    return np.asarray(((differences * pairs).sum(axis=(1, 2)) / pairs.sum(axis=(1, 2)) + 1) / 2)


def _whole_selection_p(
    auc: float,
    signs: FloatArray,
    standard: FloatArray,
    truth: np.ndarray,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None,
    permutations: int,
) -> tuple[float | None, str]:
    n, positives = len(truth), int(truth.sum())
    total = math.comb(n, positives)
    if strata is None and total <= permutations:
        labellings = np.zeros((total, n), dtype=bool)
        for row, places in zip(labellings, itertools.combinations(range(n), positives), strict=True):
            row[list(places)] = True
        exact, method = True, f"exact permutation of the whole selection, {total} labellings"
    else:
        orders = rearrangements(n, rng=rng, strata=strata, permutations=permutations)
        if orders is None:
            return None, "none: every stratum holds a single unit"
        labellings, exact = truth[orders.rows], orders.exact
        method = orders.method.replace("permutation", "permutation of the whole selection")
    parts = max(1, len(labellings) * n * max(n, 3 * len(signs)) // BLOCK)
    null = np.concatenate([_auc(_judge(signs, standard, part)[0], part) for part in np.array_split(labellings, parts)])
    return permutation_p(auc, null, exact=exact, alternative="greater"), method
