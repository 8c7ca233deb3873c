"""Recommendation: which k to use, and how sure that is.

The rule: the smallest k (0 included, below 1 %) with parity and no harm to a high-resource language shown; where there
is none, the k up to 1 % that leaves the least mean damage.

Its interval: the rule is applied again to resamples of segments and languages. A resample has its own log ratio and
mean damage at each k; the two one-sided tests inside it take the bootstrap distribution of the data, moved to the
resample's log ratio, and are adjusted by Holm like those of the data. At which k no high-resource language is harmed
is judged once, on all data.

Shapes: B resamples, K values of k, L languages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate
from evenbits.numbers import percent
from evenbits.statistics import (
    LOG_PARITY,
    RESAMPLES,
    CrossedBootstrap,
    NoHarm,
    crossed_bootstrap,
    no_harm,
    percentile_interval,
)
from evenbits.statistics.crossed import Design
from evenbits.studies.h039.study import BELOW, CRITERION, RetentionStudy

__all__ = ["HARM", "Recommendation", "harm_of", "recommend", "retention_recipe"]

Float64 = NDArray[np.float64]
HARM = 0.25
"""A high-resource language is harmed where it loses more than at k = 0 by this share of the high-resource mean there:
the factor of 1.25 that parity allows."""

Reason = Literal["parity", "parity_at_0", "least_damage", "no_gain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The k to use. `percent`: k in percent, with its interval over resamples.

    `because`: `parity` is reached there, or is there without keeping anything (`parity_at_0`); else `least_damage`, or
    `no_gain` where retention lowers no mean damage. `extra_bits`: cost in bits per weight. `saved`: share of the mean
    damage at k = 0 that k takes away, None where there is none. `shares`: of resamples that recommend each k.
    `harmful`: whether some k reaches parity without being shown to harm no high-resource language.
    """

    percent: Estimate
    spec: str
    because: Reason
    extra_bits: float
    saved: float | None
    shares: Mapping[Decimal, float]
    harmful: bool

    def sentence(self) -> str:
        """Return what to do, naming the spec and the interval of k."""
        k = _interval(self.percent)
        match self.because:
            case "parity":
                return f"Keep {k} % by {CRITERION} ({self.spec}, +{self.extra_bits:.2f} bits per weight)."
            case "parity_at_0":
                return f"Keep nothing for the sake of parity: it is there at k = 0 (recommended k {k} %)."
            case "no_gain":
                return "Keep nothing: retention does not lower the mean damage."
            case "least_damage":
                return (
                    f"No k < 1 % is shown to give parity{' without harm' if self.harmful else ''}; "
                    f"k {k} % lowers the mean damage most, by {self.saved or 0.0:.0%} ({self.spec})."
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "percent": self.percent.to_json(),
            "spec": self.spec,
            "because": self.because,
            "extra_bits_per_weight": self.extra_bits,
            "damage_saved": self.saved,
            "shares": {f"{k:f}": share for k, share in self.shares.items()},
        }


def _interval(percent: Estimate) -> str:
    text = f"{percent.value:g}"
    return text if percent.low is None or percent.high is None else f"{text} [{percent.low:g}, {percent.high:g}]"


def recommend(
    study: RetentionStudy,
    *,
    shown: Collection[Decimal],
    harms: Mapping[Decimal, NoHarm],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Recommendation:
    """Return the k that the rule gives on the data, with the interval of k over resamples.

    `shown`: the k at which the tests of the criterion show parity. `harms`: whether a k harms a high-resource
    language, where that is known already.
    """
    percents = [k for k in study.kept if k <= BELOW]
    found = {k: harms[k] if k in harms else harm_of(study, study.kept[k], rng=rng) for k in percents if 0 < k < BELOW}
    harmful = {k for k, harm in found.items() if not harm.shown}
    drawn = _resampled(study, percents, rng, resamples)
    logs_K, damage_K, high_K = drawn.value.T
    floor = study.table.columns[study.base].floor
    allowed_K = np.array([k < BELOW and k not in harmful for k in percents])
    tested_K = allowed_K & np.isfinite(logs_K) & (high_K > floor)
    shown_BK = _shown(drawn.drawn[:, :, 0], logs_K, tested=tested_K, alpha=study.alpha)
    chosen_B = _first_or_least(shown_BK, drawn.drawn[:, :, 1])
    shown_K = allowed_K & np.array([k in shown for k in percents])
    best, because = _decided(shown_K, damage_K)
    k_K = np.array([float(k) for k in percents])
    low, high = percentile_interval(k_K[chosen_B], study.confidence)
    method = f"the rule applied again to each resample; {drawn.method}; {percent(study.confidence)} percentile interval"
    columns, spec = study.table.columns, study.kept[percents[best]]
    return Recommendation(
        percent=Estimate(value=k_K[best], low=low, high=high, n=len(study.table.languages), method=method),
        spec=spec,
        because=because,
        extra_bits=(columns[spec].bits_per_weight or 0.0) - (columns[study.base].bits_per_weight or 0.0),
        saved=float(1 - damage_K[best] / damage_K[0]) if damage_K[0] > 0 else None,
        shares={k: float((chosen_B == place).mean()) for place, k in enumerate(percents)},
        harmful=bool(set(shown) & set(harmful)),
    )


def harm_of(study: RetentionStudy, spec: str, *, rng: np.random.Generator) -> NoHarm:
    """Return which high-resource languages `spec` harms, and which it is not shown to leave unharmed.

    Changes from k = 0, in bits per segment; a change below `HARM` of the high-resource mean at k = 0 is no harm, nor is
    one below three noise floors.
    """
    before, after = study.table.excess_bits(study.base), study.table.excess_bits(spec)
    places = {tag: study.table.languages.index(tag) for tag in study.high}
    floor = study.table.columns[study.base].floor
    margin = max(HARM * float(before[list(places.values())].mean()), floor, 1e-9)
    changes = {tag: after[place] - before[place] for tag, place in places.items()}
    return no_harm(changes, margin=margin, rng=rng, alpha=study.alpha)


def _resampled(
    study: RetentionStudy, percents: Sequence[Decimal], rng: np.random.Generator, resamples: int
) -> CrossedBootstrap:
    """Return, at each k, the log ratio (NaN: undefined), the mean damage and that of high-resource languages, [K, 3].

    Languages are drawn within low, high and the rest; log ratios are spread as far as few families demand.
    """
    damage_KLS = np.stack([study.table.excess_bits(study.kept[k]) for k in percents])
    by_language = {tag: damage_KLS[:, place] for place, tag in enumerate(study.table.languages)}
    groups = {tag: study.tier.get(tag, "middle") for tag in by_language}
    labels = np.array(list(groups.values()))

    def statistic(means_BLK: Float64) -> Float64:
        low, high = (means_BLK[:, labels == tier].mean(axis=1) for tier in ("low", "high"))
        defined = (low > 0) & (high > 0)
        logs = np.where(defined, np.log(np.where(defined, low, 1.0) / np.where(defined, high, 1.0)), np.nan)
        return np.stack([logs, means_BLK.mean(axis=1), high], axis=2)

    families = study.families
    drawn = crossed_bootstrap(
        by_language,
        statistic,
        rng=rng,
        groups=groups,
        families=families,
        confidence=study.confidence,
        resamples=resamples,
    )
    means_LK = damage_KLS.mean(axis=2).T
    sides = {tier: labels == tier for tier in ("low", "high")}
    contrast = sides["low"] / sides["low"].sum() - sides["high"] / sides["high"].sum()
    design = Design(contrast=tuple(contrast), groups=tuple(labels), clusters=tuple(families[tag] for tag in groups))
    for place, value in enumerate(drawn.value[:, 0]):
        own = np.where(sides["low"], means_LK[sides["low"], place].mean(), means_LK[sides["high"], place].mean())
        if np.isfinite(value):
            drawn.drawn[:, place, 0] = design.widened(
                float(value), drawn.drawn[:, place, 0], means_LK[:, place] / own, confidence=study.confidence
            )
    return drawn


def _shown(logs_BK: Float64, logs_K: Float64, *, tested: NDArray[np.bool_], alpha: float) -> NDArray[np.bool_]:
    """Return, for each resample, at which k its tests show parity at level `alpha`, [B, K]; only `tested` k can.

    k = 0 (the first) is tested by itself, the others are adjusted by Holm.
    """
    found_BK = np.zeros(logs_BK.shape, dtype=bool)
    places = np.flatnonzero(tested)
    p_BK = np.ones(logs_BK.shape)
    for place in places:
        p_BK[:, place] = _parity_p(logs_BK[:, place], float(logs_K[place]))
    found_BK[:, 0] = tested[0] & (p_BK[:, 0] < alpha)
    several = places[places > 0]
    if len(several):
        order = np.argsort(p_BK[:, several], axis=1, kind="stable")
        stepped = np.take_along_axis(p_BK[:, several], order, axis=1) * np.arange(len(several), 0, -1)
        adjusted = np.empty_like(stepped)
        np.put_along_axis(adjusted, order, np.maximum.accumulate(stepped, axis=1), axis=1)
        found_BK[:, several] = adjusted < alpha
    return found_BK


def _parity_p(logs_B: Float64, value: float) -> Float64:
    """Return p of the two one-sided tests of each resample, [B]: `logs_B`, moved from `value` to the resample's own.

    (b + 1) / (B + 1) as in `statistics.equivalence`; a replicate without a log ratio counts against parity.
    """
    unknown = np.isnan(logs_B)
    down, up = (np.sort(np.where(unknown, bound, logs_B)) for bound in (-np.inf, np.inf))
    moved = value - np.where(unknown, 0.0, logs_B)
    below = np.searchsorted(down, moved - LOG_PARITY, side="right")
    above = len(up) - np.searchsorted(up, moved + LOG_PARITY, side="left")
    p = (np.maximum(below, above) + 1) / (len(logs_B) + 1)
    return np.where(unknown, 1.0, p)


def _decided(shown_K: NDArray[np.bool_], damage_K: Float64) -> tuple[int, Reason]:
    """Return the place that the rule gives on the data, and why; without damage at k = 0 there is nothing to lower."""
    best = int(_first_or_least(shown_K[None], damage_K[None])[0])
    if shown_K[best]:
        return best, "parity" if best else "parity_at_0"
    return (best, "least_damage") if best and damage_K[0] > 0 else (0, "no_gain")


def _first_or_least(shown_BK: NDArray[np.bool_], damage_BK: Float64) -> NDArray[np.int64]:
    """Return the place of the first k with parity, else of the least damage, [B]."""
    return np.asarray(np.where(shown_BK.any(axis=1), shown_BK.argmax(axis=1), damage_BK.argmin(axis=1)))


def retention_recipe(study: RetentionStudy, advice: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a recommendation (`Recommendation.to_json`): spec, k with its interval, cost, command."""
    spec = str(advice["spec"])
    percent = advice["percent"]["value"]
    return {
        "title": f"Keep {percent:g} % of the weights in FP16" if percent else "Keep no weights in FP16",
        "hypothesis": "H-039",
        "kind": "retain",
        "model": study.table.model,
        "base_spec": study.base,
        "spec": spec,
        "recommended": dict(advice),
        "bits_per_weight": study.table.columns[spec].bits_per_weight,
        "command": f"evenbits quantize {study.table.model} --spec {spec} -o FOLDER",
    }
