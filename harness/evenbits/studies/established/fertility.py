"""E-5: fertility is not degradation. Within a model: do languages that need more tokens lose more?

Shapes: L languages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.studies.established.pooled import Sample, family_codes, pooled_correlation, smallness
from evenbits.studies.established.records import ModelDamage
from evenbits.text.languages import describe

__all__ = ["parity_is_not_degradation"]

Float64 = NDArray[np.float64]

FEWEST_LANGUAGES = 10
REFERENCE = "en"


def parity_is_not_degradation(models: Sequence[ModelDamage], *, margin: float, rng: np.random.Generator) -> Finding:
    """Whether the correlation of token parity with excess bits over languages is small.

    The estimate is the mean over training runs of Pearson's r within a model, with the 90 % interval of two one-sided
    tests against +-`margin`; families, the same in all models, are drawn once for all. Parity is tokens relative to
    English on the same segments; a common factor changes no correlation, so it needs no English.
    """
    languages = models[0].languages
    if len(languages) < FEWEST_LANGUAGES:
        reason = f"{len(languages)} languages, needed {FEWEST_LANGUAGES}"
        return Finding(
            estimate=Estimate.undefined(reason, n=len(languages), method="mean Pearson r within models"),
            verdict=Verdict.UNDERPOWERED,
            because=f"{reason}. Add languages with --languages.",
            summary=reason,
        )

    def within(metric: str, *, members: Sequence[str] = languages) -> list[Sample]:
        places = np.array([languages.index(tag) for tag in members])
        return [
            Sample(run=one.run, x=one.tokens[places], y=one.damage[metric][places], clusters=family_codes(members))
            for one in models
        ]

    found = pooled_correlation(within("excess_bits"), shared=True, margin=margin, rng=rng)
    verdict, because = smallness(found, units="families of languages")
    also = {
        metric: pooled_correlation(within(metric), shared=True, margin=margin, rng=rng).estimate
        for metric in ("relative_increase", "kl")
    }
    latin = [tag for tag in languages if describe(tag).script == "Latn"]
    if len(latin) >= FEWEST_LANGUAGES:
        members = within("excess_bits", members=latin)
        also["latin_script_alone"] = pooled_correlation(members, shared=True, margin=margin, rng=rng).estimate
    single = [_r(one.tokens, one.damage["excess_bits"]) for one in models]
    known = [r for r in single if r is not None]
    spread = f" Single models: {min(known):.2f} to {max(known):.2f}." if len(known) > 1 else ""
    return Finding(
        estimate=found.estimate,
        p_value=found.p_value,
        verdict=verdict,
        shown=True,
        because=because + spread,
        also=also,
        summary=f"token parity against excess bits within {len(models)} model{'' if len(models) == 1 else 's'}",
        action=None
        if verdict is not Verdict.NOT_SUPPORTED
        else "Use token parity as a first, free predictor of damage; `evenbits diagnose` shows what beats it.",
        data={
            "scatter": _scatter(models),
            "models": [{"model": one.model, "r": r} for one, r in zip(models, single, strict=True)],
        },
    )


def _r(x: Float64, y: Float64) -> float | None:
    if min(float(np.ptp(x)), float(np.ptp(y))) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _scatter(models: Sequence[ModelDamage]) -> dict[str, object]:
    languages = models[0].languages
    tokens = np.mean([one.tokens for one in models], axis=0)
    base = tokens[languages.index(REFERENCE)] if REFERENCE in languages else tokens.mean()
    return {
        "x": tokens / base,
        "y": np.mean([one.damage["excess_bits"] for one in models], axis=0),
        "labels": list(languages),
        "x_name": "tokens relative to English" if REFERENCE in languages else "tokens relative to the mean language",
        "y_name": "excess bits per segment" + (", mean over models" if len(models) > 1 else ""),
    }
