"""The criterion of H-039: some k < 1 % brings low- and high-resource languages to parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict, three_way, units_needed
from evenbits.statistics import (
    LOG_PARITY,
    Disparity,
    NoHarm,
    disparities,
    disparity_change,
    holm,
)
from evenbits.studies.h039.recommendation import HARM, harm_of, recommend
from evenbits.studies.h039.study import BELOW, RetentionStudy, brief, too_few

__all__ = ["curves_of", "falls", "harmed", "out_of_reach", "parity", "rows_of", "start_verdict"]


def parity(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether some k < 1 % brings the log disparity ratio inside +-log 1.25 (two one-sided tests, Holm over k).

    Three things have to be shown: a disparity at k = 0 (its interval outside the band), parity at k together with a
    paired change that excludes zero, and that no high-resource language is harmed (non-inferiority within `HARM`).
    Refuted where at every k < 1 % the interval lies outside the band or the change is shown to be too small, or where
    every k with parity is shown to harm. The estimate is the disparity ratio at the k < 1 % with the strongest evidence
    of parity, among those that show all three where there are any; the p-value is that of its tests. Parity at k = 0,
    or a disparity shown to the disadvantage of high-resource languages, is `not_applicable`.
    """
    few = too_few(study)
    if few is not None:
        return few
    percents, specs = list(study.kept), list(study.kept.values())
    found = curves_of(study, specs, rng=rng)
    excess = found["excess_bits"]
    below = [place for place, percent in enumerate(percents) if 0 < percent < BELOW]
    adjusted = list(holm({str(percents[place]): excess[place].parity.p_value for place in below}).values())
    defined = [(p, place) for p, place in zip(adjusted, below, strict=True) if p is not None]
    if not defined:
        reason = excess[0].ratio.reason or excess[below[0]].ratio.reason or "no k < 1 % has a disparity ratio"
        return _undefined(study, reason, data_of(study, found))
    harms = {place: harm_of(study, specs[place], rng=rng) for p, place in defined if p < study.alpha}
    changes = {place: disparity_change(excess[0], excess[place], confidence=study.confidence) for _, place in defined}
    inside = [(p, place) for p, place in defined if place in harms]
    whole = [(p, place) for p, place in inside if harms[place].shown and falls(changes[place])]
    p_value, best = min(whole or [(p, place) for p, place in inside if not harms[place].worse] or defined)
    verdict, because = start_verdict(excess[0]) or (
        (None, None) if whole else _parity_verdict(excess, changes, harms, p_value, best)
    )
    advice = recommend(
        study,
        shown={percents[place] for place in harms} | ({percents[0]} if excess[0].parity.equivalent else set()),
        harms={percents[place]: harm for place, harm in harms.items()},
        rng=rng,
    )
    sentence = study.without_a_family(study.table.excess_bits(study.base))
    return Finding(
        estimate=excess[best].ratio,
        p_value=p_value,
        verdict=verdict,
        shown=excess[0].ratio.value is not None,
        because=" ".join(part for part in (because, sentence) if part) or None,
        also={name: curve[best].ratio for name, curve in found.items() if curve[best].ratio.value is not None},
        summary=f"disparity {brief(excess[0].ratio)} at k 0, {brief(excess[best].ratio)} at k {percents[best]} %",
        action=advice.sentence(),
        data=data_of(study, found)
        | {
            "recommended": advice.to_json(),
            "changes": {str(percents[place]): change.to_json() for place, change in changes.items()},
            "harm": {str(percents[place]): harm.to_json() for place, harm in harms.items()},
        },
    )


def falls(change: Estimate) -> bool:
    """Return whether a paired change of the log disparity ratio is shown to be below zero."""
    return change.high is not None and change.high < 0


def _undefined(study: RetentionStudy, reason: str, data: Mapping[str, Any]) -> Finding:
    return Finding(
        estimate=Estimate.undefined(reason, n=len(study.low) + len(study.high)),
        verdict=Verdict.NOT_APPLICABLE,
        shown=False,
        because=f"The disparity ratio is undefined: {reason}. Measure a coarser spec, where damage is real.",
        data=data,
    )


def curves_of(
    study: RetentionStudy, specs: Sequence[str], *, rng: np.random.Generator
) -> dict[str, tuple[Disparity, ...]]:
    """Return the disparity under each of `specs`, by degradation metric; all share their draws."""
    metrics = [study.table.degradation(spec) for spec in specs]
    chosen = {tag: place for place, tag in enumerate(study.table.languages) if tag in study.tier}
    floors = [study.table.columns[spec].floor for spec in specs]
    families, curves = study.families, {}
    for name in metrics[0]:
        damage = {tag: np.stack([metric[name][place] for metric in metrics]) for tag, place in chosen.items()}
        noise = floors if name == "excess_bits" else 0.0
        curves[name] = disparities(
            damage,
            low=study.low,
            high=study.high,
            rng=rng,
            families=families,
            noise_floor=noise,
            alpha=study.alpha,
            confidence=study.confidence,
        )
    return curves


def start_verdict(start: Disparity) -> tuple[Verdict, str] | None:
    """Return the verdict that the disparity at k = 0 imposes, with the sentence that says why.

    None where low-resource languages are shown to be at a disadvantage: the interval lies outside the band.
    """
    if start.ratio.value is None:
        return Verdict.NOT_APPLICABLE, f"At k = 0 the disparity ratio is undefined: {start.ratio.reason}."
    if start.parity.equivalent:
        return (
            Verdict.NOT_APPLICABLE,
            f"At k = 0 the disparity {brief(start.ratio)} is shown to be within a factor of 1.25: nothing to remove.",
        )
    where = three_way(start.log_ratio, above=LOG_PARITY)
    if where is Verdict.SUPPORTED:
        return None
    if three_way(start.log_ratio, below=-LOG_PARITY) is Verdict.SUPPORTED:
        return Verdict.NOT_APPLICABLE, (
            f"At k = 0 low-resource languages lose less than high-resource ones (ratio {brief(start.ratio)}): "
            "there is no disadvantage of theirs to remove."
        )
    needed = units_needed(start.log_ratio, above=LOG_PARITY)
    return Verdict.UNDERPOWERED, (
        f"At k = 0 the disparity {brief(start.ratio)} is neither shown to be beyond a factor of 1.25 nor within it"
        + ("." if needed is None else f"; about {needed} languages would decide, if it is what it seems.")
        + " Add languages, of several families in each tier, or segments."
    )


def out_of_reach(start: Disparity, after: Disparity, change: Estimate) -> bool:
    """Return whether parity is ruled out: the interval lies outside the band, or the change is shown too small."""
    if three_way(after.log_ratio, above=-LOG_PARITY, below=LOG_PARITY) is Verdict.NOT_SUPPORTED:
        return True
    needed = None if start.log_ratio.low is None else LOG_PARITY - start.log_ratio.low
    return needed is not None and change.low is not None and change.low > needed


def harmed(harm: NoHarm) -> tuple[Verdict, str] | None:
    """Return the verdict where a high-resource language is harmed or not shown to be unharmed, else None."""
    if harm.worse:
        return Verdict.NOT_SUPPORTED, f"Retention makes high-resource languages worse: {', '.join(harm.worse)}."
    if harm.open:
        return Verdict.UNDERPOWERED, (
            f"That no high-resource language is harmed by more than {HARM:.0%} of their mean damage "
            f"({harm.margin:.3g} bits) is not shown for {', '.join(harm.open)}; add segments."
        )
    return None


def _parity_verdict(
    excess: Sequence[Disparity], changes: Mapping[int, Estimate], harms: Mapping[int, NoHarm], p_value: float, best: int
) -> tuple[Verdict, str]:
    """Return the verdict where no k shows all that is asked; `best` has the strongest evidence."""
    if not harms:
        if all(out_of_reach(excess[0], excess[place], change) for place, change in changes.items()):
            return Verdict.NOT_SUPPORTED, "At every k < 1 % parity is ruled out: the disparity stays beyond 1.25."
        needed = units_needed(excess[best].log_ratio, above=-LOG_PARITY, below=LOG_PARITY)
        return Verdict.UNDERPOWERED, (
            f"No k < 1 % is shown to be inside a factor of 1.25 (smallest p of two one-sided tests, Holm over k: "
            f"{p_value:.2g}), nor is parity ruled out at all of them"
            + ("." if needed is None else f"; about {needed} languages would decide at the best k.")
        )
    if all(harm.worse for harm in harms.values()) or falls(changes[best]):
        found = harmed(harms[best])
        if found is not None:
            return found
    return Verdict.UNDERPOWERED, (
        f"Parity is shown at k, that the disparity falls from k = 0 is not: change {brief(changes[best])}."
    )


def data_of(study: RetentionStudy, curves: Mapping[str, Sequence[Disparity]]) -> dict[str, Any]:
    """Return the table behind the verdict: a row per k, with disparity on every metric and the cost in bits."""
    specs = {spec: percent for percent, spec in study.kept.items()}
    return {
        "rows": rows_of(study, specs, curves),
        "low": list(study.low),
        "high": list(study.high),
        "margin": LOG_PARITY,
    }


def rows_of(
    study: RetentionStudy, specs: Mapping[str, Decimal], curves: Mapping[str, Sequence[Disparity]]
) -> list[dict[str, Any]]:
    """Return a row for each spec, in the order of `curves`: k in percent, cost in bits, mean damage, disparity."""
    return [
        {
            "percent": float(percent),
            "spec": spec,
            "bits_per_weight": study.table.columns[spec].bits_per_weight,
            "mean_excess_bits": float(study.table.excess_bits(spec).mean()),
            "disparity": {
                name: {
                    "ratio": curve[place].ratio.to_json(),
                    "difference": curve[place].difference.to_json(),
                    "parity_p": curve[place].parity.p_value,
                }
                for name, curve in curves.items()
            },
        }
        for place, (spec, percent) in enumerate(specs.items())
    ]
