"""Comparison of paired measurements: the same segments under two conditions, or against a stored baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES
from evenbits.statistics.flips import joint_flips
from evenbits.statistics.means import mean_interval
from evenbits.statistics.outcomes import Alternative, Outcome, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS
from evenbits.statistics.samples import paired

__all__ = ["paired_differences"]


def paired_differences(
    after: Mapping[str, ArrayLike],
    before: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Outcome]:
    """Return the paired difference of each name, with p of joint sign flips; `adjusted_p` is family-wise.

    Entry i is the same unit (segment, language) under every name: see `joint_flips`. `least_p` says what can be
    reached. `ValueError` where the two differ in their names.
    """
    checked_alternative(alternative)
    if set(after) != set(before):
        only = sorted(set(after) ^ set(before))
        raise ValueError(f"after and before differ in {', '.join(only)}: compare the languages that both have")
    differences = {}
    for name in after:
        first, second = paired(after[name], before[name], "after", "before")
        differences[name] = first - second
    if not differences or any(not len(values) for values in differences.values()):
        return {name: Outcome.undefined("no pairs", method="mean paired difference") for name in differences}
    tested = joint_flips(differences, rng=rng, alternative=alternative, permutations=permutations)
    return {
        name: Outcome(
            estimate=_named(mean_interval(values, rng=rng, confidence=confidence, resamples=resamples)),
            p_value=tested.p[name],
            adjusted_p=tested.adjusted[name],
            p_method=tested.method,
            least_p=tested.least,
        )
        for name, values in differences.items()
    }


def _named(mean: Estimate) -> Estimate:
    return replace(mean, method=f"paired difference, {mean.method}")
