"""Additivity: how much of full-model damage the sum of single-layer damages explains.

A plan that protects layers counts on it. Literature (arXiv 2607.12266): 85 to 93 % of the variance of loss change is
additive over layers.

Shapes: L languages, S segments, B resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import crossed_bootstrap
from evenbits.studies.h036.study import LayerStudy

__all__ = ["additivity"]

Float64 = NDArray[np.float64]
MIN_LANGUAGES = 5


def additivity(study: LayerStudy, *, rng: np.random.Generator) -> Finding:
    """Share of the variance of full-model damage over languages that the sum over layers explains.

    1 - sum (full - sum of singles)^2 / sum (full - mean full)^2 over language means, on the identity line: a sum of
    the right order but the wrong size does not count as explained. Interval over segments and languages. `also`:
    `ratio` of the sum to the full damage (1 is additive, above 1 the layers' damages cover each other up), and
    `r_squared`, which forgives a constant factor.
    """
    sums_LS = study.excess_bits.sum(axis=0)
    means = np.stack([sums_LS.mean(axis=1), study.full_bits.mean(axis=1)], axis=1)
    count = len(study.languages)
    if count < MIN_LANGUAGES:
        lacking = f"{count} languages, needed {MIN_LANGUAGES} to speak of variance over languages"
        return Finding(
            estimate=Estimate.undefined(lacking, n=count),
            verdict=Verdict.UNDERPOWERED,
            because=f"{lacking}. Add languages with --languages.",
            summary=lacking,
        )
    pairs = {tag: np.stack([sums_LS[place], study.full_bits[place]]) for place, tag in enumerate(study.languages)}
    families = dict(zip(study.languages, study.families, strict=True))
    drawn = crossed_bootstrap(pairs, _explained, rng=rng, families=families, confidence=study.confidence)
    explained, ratio, r_squared = (
        drawn.estimate((place,), what=what)
        for place, what in enumerate(
            (
                "share of variance explained by the sum of single layers",
                "sum of single-layer damage over full damage",
                "squared correlation of sum and full damage",
            )
        )
    )
    return Finding(
        estimate=explained,
        because=_sentence(ratio),
        summary=f"sum of single layers explains {_percent(explained)} of the variance, {_percent(ratio)} of the size",
        also={"ratio": ratio, "r_squared": r_squared},
        data={
            "languages": list(study.languages),
            "sum_of_singles": means[:, 0].tolist(),
            "full_model": means[:, 1].tolist(),
        },
    )


def _explained(means_BL2: Float64) -> Float64:
    """Return [B, 3]: share explained on the identity line, ratio of sums, squared correlation."""
    total, full = means_BL2[:, :, 0], means_BL2[:, :, 1]
    centred_full = full - full.mean(axis=1, keepdims=True)
    centred_sum = total - total.mean(axis=1, keepdims=True)
    spread, spread_sum = (centred_full**2).sum(axis=1), (centred_sum**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        identity = 1 - ((full - total) ** 2).sum(axis=1) / spread
        ratio = total.sum(axis=1) / full.sum(axis=1)
        correlation = (centred_full * centred_sum).sum(axis=1) ** 2 / (spread * spread_sum)
    found = np.stack([identity, ratio, correlation], axis=1)
    return np.where(np.isfinite(found), found, np.nan)


def _sentence(ratio: Estimate) -> str:
    if ratio.value is None:
        return f"The ratio to full damage is undefined: {ratio.reason}."
    if ratio.value > 1:
        return f"Single layers add up to {ratio.value:.0%} of the full damage: together they cost less than apart."
    return f"Single layers add up to {ratio.value:.0%} of the full damage: the rest comes from layers together."


def _percent(estimate: Estimate) -> str:
    return "an undefined share" if estimate.value is None else f"{estimate.value:.0%}"
