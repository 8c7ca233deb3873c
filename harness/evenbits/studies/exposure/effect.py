"""The same language where it was shown little, and where it was shown much.

Legend: L languages, S segments, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject, measure
from evenbits.cells.damage import Damage
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Corpus
from evenbits.statistics import MeansStatistic, language_mean, paired_disparity
from evenbits.studies.exposure.wants import SPECS, compared, specs_of
from evenbits.studies.families import without_a_family
from evenbits.text.languages import families_of, tiers
from evenbits.variants.registry import variant_of

__all__ = ["ExposedModel", "ExposureEffect", "exposed_tables", "exposure_effect", "exposure_findings"]

FloatArray = NDArray[np.float64]

Tiers = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposedModel:
    """Damage of one model under the specs, each language's level of exposure in it, and why a spec is not there."""

    table: Damage
    tier: Mapping[str, str]
    unable: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposureEffect:
    """Low against high exposure of the same language; intervals over families, languages and segments.

    `excess_bits`: mean over languages of low minus high, bits per segment. `excess_ratio`: mean over languages at low
    over mean at high exposure, so that a language that loses nothing counts as well.
    `relative_increase`: low minus high, in percentage points. `kl_bits`: low minus high, bits per segment. `family`:
    a sentence on what is left of the difference in bits without each family.
    """

    excess_bits: Estimate
    excess_ratio: Estimate
    relative_increase: Estimate
    kl_bits: Estimate
    family: str


def exposed_tables(subject: Subject, corpus: Corpus) -> ExposedModel:
    """Measure one model in the languages of which it was shown little or much; others are compared with nothing."""
    able, unable = specs_of(subject)
    tier = tiers(corpus.languages, exposure=subject.local.exposure)
    variants = {str(spec): variant_of(spec, subject) for spec in able}
    table = measure(subject, variants, corpus.select(languages=compared(tier)))
    return ExposedModel(table=table, tier=tier, unable=unable)


def exposure_findings(models: Mapping[str, ExposedModel], *, seed: int) -> dict[str, Finding]:
    """Return by spec whether languages lose more where they were shown less.

    The estimate is the difference in bits; `also` has the ratio and the other metrics. Not applicable where no language
    is low in one of the models and high in another.
    """
    tables = {name: one.table for name, one in models.items()}
    tier = {name: one.tier for name, one in models.items()}
    exchanged = {tag for one in tier.values() for tag, level in one.items() if level == "low"}
    exchanged &= {tag for one in tier.values() for tag, level in one.items() if level == "high"}
    if not exchanged:
        reason = "no language is low in exposure in one model of this run and high in another"
        return {SPECS[0]: _nothing(f"{reason}. `--model reference` has models in which it is.", reason)}
    unable = {text: why for one in models.values() for text, why in one.unable.items()}
    found = {}
    for spec in SPECS:
        if spec in unable:
            found[spec] = _nothing(unable[spec], "the spec cannot be measured here")
            continue
        effect = exposure_effect(tables, spec, tier, rng=np.random.default_rng(seed))
        ratio = effect.excess_ratio
        said = "" if ratio.value is None else f", {ratio.value:.2f} times as much"
        found[spec] = Finding(
            estimate=effect.excess_bits,
            also={"low_over_high": ratio, "relative_increase": effect.relative_increase, "kl": effect.kl_bits},
            summary=f"low against high exposure of {effect.excess_bits.n} languages in {len(models)} models{said}",
            because="The interval is over families, languages and segments, and speaks of these training runs."
            + (f" {effect.family}" if effect.family else ""),
        )
    return found


def _nothing(because: str, reason: str) -> Finding:
    return Finding(
        estimate=Estimate.undefined(reason, method="low minus high exposure of the same language"),
        verdict=Verdict.NOT_APPLICABLE,
        because=because,
        summary=reason,
    )


def exposure_effect(
    tables: Mapping[str, Damage], spec: str, tier: Tiers, *, rng: np.random.Generator
) -> ExposureEffect:
    """Compare each language with itself: mean over the models in which it is low, minus that in which it is high.

    Only languages that are low in one model and high in another take part. Raises `ValueError` where there is none.
    """
    cubes = {
        name: dict(zip(table.languages, _measures(table, spec).swapaxes(0, 1), strict=True))
        for name, table in tables.items()
        if table.languages
    }
    paired: dict[str, FloatArray] = {}
    for tag in sorted({tag for table in tables.values() for tag in table.languages}):
        sides = [
            [cube[tag] for name, cube in cubes.items() if tag in cube and tier[name].get(tag) == level]
            for level in ("low", "high")
        ]
        if all(sides):
            paired[tag] = np.concatenate([np.mean(side, axis=0) for side in sides])  # [6, S]
    if not paired:
        raise ValueError("no language is low in one of these models and high in another")
    families = families_of(paired)
    bits, relative, kl = (
        language_mean(paired, rng=rng, what=f"{what}, low minus high", families=families, change=change)
        for what, change in CONTRASTS.items()
    )
    log_ratio = paired_disparity(
        {tag: one[[0, 3]] for tag, one in paired.items()},
        rng=rng,
        families=families,
        noise_floor=max(table.columns[spec].floor for table in tables.values()),
    )
    differences = {tag: float(one[0].mean() - one[3].mean()) for tag, one in paired.items()}
    return ExposureEffect(
        excess_bits=bits,
        excess_ratio=_exponential(log_ratio),
        relative_increase=relative,
        kl_bits=kl,
        family=without_a_family(differences, low=list(paired), families=families, unit=" bits"),
    )


def _measures(table: Damage, spec: str) -> FloatArray:
    """Excess bits, full-precision bits and KL bits by language and segment: [3, L, S]."""
    return np.stack([table.excess_bits(spec), table.nll_full(spec) / np.log(2), table.kl_bits(spec)])


def _relative(means_BLK: FloatArray) -> FloatArray:
    return 100 * np.asarray(means_BLK[..., 0] / means_BLK[..., 1] - means_BLK[..., 3] / means_BLK[..., 4])


CONTRASTS: Mapping[str, MeansStatistic] = {
    "excess bits": lambda means_BLK: np.asarray(means_BLK[..., 0] - means_BLK[..., 3]),
    "relative increase": _relative,
    "KL bits": lambda means_BLK: np.asarray(means_BLK[..., 2] - means_BLK[..., 5]),
}
"""One number per language, [B, L], from means of (excess, full, KL) at low and then at high exposure, [B, L, 6]."""


def _exponential(log: Estimate) -> Estimate:
    value, low, high = (None if one is None else math.exp(one) for one in (log.value, log.low, log.high))
    return replace(log, value=value, low=low, high=high, method=log.method.removeprefix("log "))
