"""The same language where it was shown little, and where it was shown much.

Legend: L languages, S segments, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject, measure_damage
from evenbits.cells.damage import Damage
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Corpus
from evenbits.statistics import crossed_bootstrap
from evenbits.studies.exposure.wants import SPECS, specs_of
from evenbits.text.languages import tiers

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
    """Low against high exposure of the same language, mean over languages, intervals over languages and segments.

    `excess_bits`: low minus high, bits per segment. `excess_ratio`: geometric mean over languages of low / high.
    `relative_increase`: low minus high, in percentage points. `kl_bits`: low minus high, bits per segment.
    """

    excess_bits: Estimate
    excess_ratio: Estimate
    relative_increase: Estimate
    kl_bits: Estimate


def exposed_tables(subject: Subject, corpus: Corpus) -> ExposedModel:
    """Measure one model."""
    able, unable = specs_of(subject)
    return ExposedModel(
        table=measure_damage(subject, able, corpus),
        tier=tiers(corpus.languages, exposure=subject.local.exposure),
        unable=unable,
    )


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
            because="The interval is over languages and segments, and speaks of these training runs.",
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
    languages = next(iter(tables.values())).languages
    cubes = {name: _measures(table, spec) for name, table in tables.items()}
    paired: dict[str, FloatArray] = {}
    for at, tag in enumerate(languages):
        sides = [
            [cube[:, at] for name, cube in cubes.items() if tier[name].get(tag) == level] for level in ("low", "high")
        ]
        if all(sides):
            paired[tag] = np.concatenate([np.mean(side, axis=0) for side in sides])  # [6, S]
    if not paired:
        raise ValueError("no language is low in one of these models and high in another")
    drawn = crossed_bootstrap(paired, _contrasts, rng=rng)
    names = (
        "excess bits, low minus high",
        "excess bits, low over high",
        "relative increase, low minus high",
        "KL bits, low minus high",
    )
    bits, ratio, relative, kl = (drawn.estimate((at,), what=what) for at, what in enumerate(names))
    return ExposureEffect(excess_bits=bits, excess_ratio=ratio, relative_increase=relative, kl_bits=kl)


def _measures(table: Damage, spec: str) -> FloatArray:
    """Excess bits, full-precision bits and KL bits by language and segment: [3, L, S]."""
    return np.stack([table.excess_bits(spec), table.nll_full(spec) / np.log(2), table.kl_bits(spec)])


def _contrasts(means_BLK: FloatArray) -> FloatArray:
    """Map means of (excess, full, KL) at low, then at high exposure to the four contrasts: [B, 4]."""
    low, high = means_BLK[..., :3], means_BLK[..., 3:]
    with np.errstate(divide="ignore", invalid="ignore"):  # a resampled mean may fall to zero: then undefined
        log_ratio = np.log(low[..., 0]) - np.log(high[..., 0])
    relative = 100 * (low[..., 0] / low[..., 1] - high[..., 0] / high[..., 1])
    each = [low[..., 0] - high[..., 0], log_ratio, relative, low[..., 2] - high[..., 2]]
    values = np.stack([part.mean(axis=1) for part in each], axis=1)
    values[:, 1] = np.exp(values[:, 1])
    return values
