"""The study of H-035: metrics known before quantizing beside the damage measured after it, language by language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.damage import FLOORS_NEEDED, Damage
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.printable import capital
from evenbits.statistics.samples import spread_of
from evenbits.studies.h035.predictors import Predictors

__all__ = ["ALPHA", "FEWEST", "NEEDED", "PredictionStudy", "cannot_tell", "study_prediction"]

Float64 = NDArray[np.float64]

ALPHA = 0.05
FEWEST = 10
"""Languages below which no number is given: a correlation of fewer is read whatever is written beside it."""
NEEDED = 30
"""Languages below which the verdict is `underpowered`: a true r of .5 is found with 91 % chance at 30 (one-sided)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionStudy:
    """Metrics of a model, taken on one half of the segments, and its damage on the other half.

    `damage`: mean by language [L] of each degradation metric: excess bits, relative increase, kl. `floor`: noise floor
    of a language's mean excess bits.
    """

    predictors: Predictors
    damage: Mapping[str, Float64]
    floor: float

    @property
    def languages(self) -> tuple[str, ...]:
        return self.predictors.languages

    @property
    def excess_bits(self) -> Float64:
        return self.damage["excess_bits"]


def study_prediction(predictors: Predictors, table: Damage, spec: str) -> PredictionStudy:
    """Put metrics and damage of one model and spec together; `ValueError` where their languages differ."""
    if predictors.languages != table.languages:
        raise ValueError(f"metrics of {predictors.languages} and damage of {table.languages} do not belong together")
    return PredictionStudy(
        predictors=predictors,
        damage={name: values.mean(axis=1) for name, values in table.degradation(spec).items()},
        floor=table.columns[spec].floor_bits.value or 0.0,
    )


def cannot_tell(study: PredictionStudy, *, what: str) -> Finding | None:
    """Return the finding of a study that can give no number at all, else None; `what` names the number."""
    n = len(study.languages)
    families = sorted(set(study.predictors.families))
    if n < FEWEST:
        return _without_number(
            Verdict.UNDERPOWERED,
            f"{n} languages, needed {FEWEST} for any correlation and {NEEDED} for a verdict",
            "Add languages with --languages.",
            n,
            what,
        )
    if len(families) < 2:
        return _without_number(
            Verdict.UNDERPOWERED,
            f"all {n} languages are of one family, {families[0]}: they are hardly independent",
            "Add languages of other families with --languages.",
            n,
            what,
        )
    if spread_of(study.excess_bits) == 0:
        return _without_number(
            Verdict.NOT_APPLICABLE,
            "every language loses the same, so there is nothing to predict",
            "Are full precision and the quantized model the same? Measure a coarser spec.",
            n,
            what,
        )
    if not (np.abs(study.excess_bits) >= FLOORS_NEEDED * study.floor).any():
        return _without_number(
            Verdict.NOT_APPLICABLE,
            "no language's damage reaches three noise floors, so there is nothing to predict",
            "Measure a coarser spec.",
            n,
            what,
        )
    overlap = study.predictors.values.get("kurtosis_overlap")
    if overlap is None or spread_of(overlap) == 0:
        return _without_number(
            Verdict.NOT_APPLICABLE,
            "the overlap is the same in every language, so it predicts nothing",
            "The weights have no heavy-tailed regions, or all languages use them alike.",
            n,
            what,
        )
    return None


def _without_number(verdict: Verdict, reason: str, remedy: str, n: int, what: str) -> Finding:
    return Finding(
        estimate=Estimate.undefined(reason, n=n, method=what),
        verdict=verdict,
        because=f"{capital(reason)}. {remedy}",
        summary=reason,
    )
