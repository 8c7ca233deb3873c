"""Comparison of paired measurements: the same segments under two conditions, or against a stored baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, mean_interval
from evenbits.statistics.multiplicity import holm
from evenbits.statistics.outcomes import Alternative, Outcome, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, sign_flips
from evenbits.statistics.samples import paired

__all__ = ["paired_difference", "paired_differences"]


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    *,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Outcome:
    """Return the mean of after - before with its BCa interval and the p-value of random signs.

    Null hypothesis: each difference is as likely to have the other sign. Identical measurements give p = 1.
    """
    checked_alternative(alternative)
    first, second = paired(after, before, "after", "before")
    differences = first - second
    n = len(differences)
    if n == 0:
        return Outcome.undefined("no pairs", method="mean paired difference")
    mean = mean_interval(differences, rng=rng, confidence=confidence, resamples=resamples)
    estimate = Estimate(
        value=mean.value, low=mean.low, high=mean.high, n=n, method=f"paired difference, {mean.method}",
        reason=mean.reason,
    )  # fmt: skip
    flips = sign_flips(n, rng=rng, permutations=permutations)
    null = flips.rows @ differences / n
    p = permutation_p(float(differences.mean()), null, exact=flips.exact, alternative=alternative)
    return Outcome(estimate=estimate, p_value=p, p_method=f"{flips.method}, {alternative}")


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
    """Return `paired_difference` per language with `adjusted_p` by Holm over the languages; same languages in both."""
    if set(after) != set(before):
        only = sorted(set(after) ^ set(before))
        raise ValueError(f"after and before differ in {', '.join(only)}: compare the languages that both have")
    found = {
        language: paired_difference(
            after[language], before[language], rng=rng, alternative=alternative, confidence=confidence,
            resamples=resamples, permutations=permutations,
        )
        for language in after
    }  # fmt: skip
    adjusted = holm({language: outcome.p_value for language, outcome in found.items()})
    return {language: replace(outcome, adjusted_p=adjusted[language]) for language, outcome in found.items()}
