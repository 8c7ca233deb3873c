"""The criterion of H-039: some k < 1 % brings low- and high-resource languages to parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import LOG_PARITY, Disparity, disparities, holm
from evenbits.studies.h039.recommendation import made_worse, recommend
from evenbits.studies.h039.study import ALPHA, BELOW, RetentionStudy, brief, too_few

__all__ = ["curves_of", "parity", "rows_of", "start_verdict"]


def parity(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether some k < 1 % brings the log disparity ratio inside +-log 1.25 (two one-sided tests, Holm over k).

    The estimate is the disparity ratio at the k < 1 % with the strongest evidence of parity, among those that harm no
    high-resource language where there are any; the p-value is that of its tests. No disparity at k = 0, or one to the
    disadvantage of high-resource languages, is `not_applicable`.
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
    worse = {place: made_worse(study, specs[place], rng=rng) for p, place in defined if p < ALPHA}
    p_value, best = min([(p, place) for p, place in defined if worse.get(place) == []] or defined)
    verdict, because = start_verdict(excess[0]) or _parity_verdict(p_value, worse.get(best, []))
    advice = recommend(
        study,
        shown={percents[place] for place in worse} | ({percents[0]} if excess[0].parity.equivalent else set()),
        worse={percents[place]: tags for place, tags in worse.items()},
        rng=rng,
    )
    return Finding(
        estimate=excess[best].ratio,
        p_value=p_value,
        verdict=verdict,
        because=because,
        also={name: curve[best].ratio for name, curve in found.items() if curve[best].ratio.value is not None},
        summary=f"disparity {brief(excess[0].ratio)} at k 0, {brief(excess[best].ratio)} at k {percents[best]} %",
        action=advice.sentence(),
        data=data_of(study, found) | {"recommended": advice.to_json()},
    )


def _undefined(study: RetentionStudy, reason: str, data: Mapping[str, Any]) -> Finding:
    return Finding(
        estimate=Estimate.undefined(reason, n=len(study.low) + len(study.high)),
        verdict=Verdict.NOT_APPLICABLE,
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
    curves = {}
    for name in metrics[0]:
        damage = {tag: np.stack([metric[name][place] for metric in metrics]) for tag, place in chosen.items()}
        noise = floors if name == "excess_bits" else 0.0
        curves[name] = disparities(damage, low=study.low, high=study.high, rng=rng, noise_floor=noise)
    return curves


def start_verdict(start: Disparity) -> tuple[Verdict, str] | None:
    """Return the verdict that the disparity at k = 0 imposes, with the sentence that says why.

    None where low-resource languages are shown to be at a disadvantage.
    """
    if start.ratio.value is None:
        return Verdict.NOT_APPLICABLE, f"At k = 0 the disparity ratio is undefined: {start.ratio.reason}."
    if start.ratio.value < 1 / 1.25:
        return Verdict.NOT_APPLICABLE, (
            f"At k = 0 low-resource languages lose less than high-resource ones (ratio {brief(start.ratio)}): "
            "there is no disadvantage of theirs to remove."
        )
    if start.parity.equivalent or start.ratio.value <= 1.25:
        return (
            Verdict.NOT_APPLICABLE,
            f"At k = 0 the disparity {brief(start.ratio)} is within a factor of 1.25: nothing to remove.",
        )
    if start.log_ratio.low is None or start.log_ratio.low <= 0:
        return Verdict.UNDERPOWERED, (
            f"At k = 0 the disparity {brief(start.ratio)} is not distinguishable from none; add segments or languages."
        )
    return None


def _parity_verdict(p_value: float, worse: Sequence[str]) -> tuple[Verdict | None, str | None]:
    if worse:
        return Verdict.NOT_SUPPORTED, f"Retention makes high-resource languages worse: {', '.join(worse)}."
    if p_value >= ALPHA:
        return Verdict.NOT_SUPPORTED, (
            f"No k < 1 % is shown to be inside a factor of 1.25: "
            f"the smallest p of two one-sided tests, Holm over k, is {p_value:.2g}."
        )
    return None, None


def data_of(study: RetentionStudy, curves: Mapping[str, Sequence[Disparity]]) -> dict[str, Any]:
    """Return the table behind the verdict: a row per k, with disparity on every metric and the cost in bits."""
    specs = {spec: percent for percent, spec in study.kept.items()}
    return {
        "rows": rows_of(study, specs, curves), "low": list(study.low), "high": list(study.high), "margin": LOG_PARITY,
    }  # fmt: skip


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
