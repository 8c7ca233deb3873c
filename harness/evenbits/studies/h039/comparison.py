"""Robustness of H-039: other choices of the weights to keep, and layer protection instead of keeping weights.

All comparisons are at equal k and equal bits per weight, on the same segments, and adjusted for their number.

Shapes: L languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import LOG_PARITY, Disparity, Outcome, disparity_change, holm, joint_flips, pareto
from evenbits.studies.h039.comparators import AWARE, PERCENT, ComparatorStudy
from evenbits.studies.h039.controls import at_equal_bits, saved_bits
from evenbits.studies.h039.parity import curves_of, falls, harmed, out_of_reach, rows_of, start_verdict
from evenbits.studies.h039.recommendation import harm_of
from evenbits.studies.h039.study import brief, too_few
from evenbits.variants.quantization.spec import parse_spec

__all__ = ["against_protection", "better_choice", "language_awareness", "parity_elsewhere"]

Float64 = NDArray[np.float64]


def parity_elsewhere(study: ComparatorStudy, *, rng: np.random.Generator) -> Finding:
    """Whether some other choice of as many weights reaches parity where the largest magnitudes do not.

    The estimate is the disparity ratio of the comparator with the strongest evidence of parity (two one-sided tests,
    Holm over comparators). `data`: every measured spec, and which are on the Pareto front of disparity, mean damage and
    bits per weight.
    """
    few = too_few(study.retention)
    if few is not None:
        return few
    specs = list(study.named())
    curves = curves_of(study.retention, specs, rng=rng)
    excess = dict(zip(specs, curves["excess_bits"], strict=True))
    data = _front(study, curves) | {"changes": _changes(study, excess)}
    if study.settled is not None:
        return replace(study.settled, data=data)
    reference = excess[study.reference]
    adjusted = holm({name: excess[spec].parity.p_value for name, spec in study.specs.items()})
    tested = {name: p for name, p in adjusted.items() if p is not None}
    if not tested:
        reason = "no other choice has a disparity ratio"
        return Finding(
            estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.", data=data
        )
    best = min(tested, key=lambda name: (tested[name], abs(excess[study.specs[name]].log_ratio.value or 0.0)))
    spec, p_value = study.specs[best], tested[best]
    start = excess[study.retention.base]
    confidence = study.retention.confidence
    fall = {name: disparity_change(start, excess[study.specs[name]], confidence=confidence) for name in tested}
    ruled_out = all(out_of_reach(start, excess[study.specs[name]], change) for name, change in fall.items())
    parity = p_value < study.retention.alpha
    verdict, because = _elsewhere_verdict(start, reference, best, p_value, parity=parity, ruled_out=ruled_out)
    if verdict is None and not falls(fall[best]):
        verdict = Verdict.UNDERPOWERED
        because = f"Parity is shown, that the disparity falls from k = 0 is not: change {brief(fall[best])}."
    if verdict is None:
        verdict, because = harmed(harm_of(study.retention, spec, rng=rng)) or (None, None)
    place = specs.index(spec)
    family = study.retention.without_a_family(study.retention.table.excess_bits(spec))
    return Finding(
        estimate=excess[spec].ratio,
        p_value=p_value,
        verdict=verdict,
        shown=True,
        because=" ".join(part for part in (because, family) if part) or None,
        also={name: curve[place].ratio for name, curve in curves.items() if curve[place].ratio.value is not None},
        summary=f"k {PERCENT} %: disparity {brief(excess[spec].ratio)} by {best}, magnitude {brief(reference.ratio)}",
        action=f"Keep {PERCENT} % by {best} ({spec})." if verdict is None else None,
        data=data,
    )


def _elsewhere_verdict(
    start: Disparity, reference: Disparity, best: str, p_value: float, *, parity: bool, ruled_out: bool
) -> tuple[Verdict | None, str | None]:
    settled = start_verdict(start)
    if settled is not None:
        return settled
    if reference.parity.equivalent:
        return Verdict.NOT_APPLICABLE, f"Keeping the {PERCENT} % largest is at parity itself: {brief(reference.ratio)}."
    if ruled_out:
        return Verdict.NOT_SUPPORTED, f"Parity is ruled out for every other choice of {PERCENT} %."
    if not parity:
        return Verdict.UNDERPOWERED, (
            f"No other choice of {PERCENT} % is shown to be inside a factor of 1.25: "
            f"the smallest p, Holm over choices, is {p_value:.2g} ({best}); nor is parity ruled out. Add languages."
        )
    return None, None


def _front(study: ComparatorStudy, curves: Mapping[str, tuple[Disparity, ...]]) -> dict[str, Any]:
    """Return a row for every measured spec, and the specs on the Pareto front.

    A disparity below 1 counts as 1: it leaves no disadvantage to remove.
    """
    names = study.named()
    keeps = {spec: parse_spec(spec).keep for spec in names}
    percents = {spec: Decimal(0) if keep is None else keep.percent for spec, keep in keeps.items()}
    rows = rows_of(study.retention, percents, curves)
    points: list[tuple[float, ...] | None] = []
    for row, found in zip(rows, curves["excess_bits"], strict=True):
        row["label"] = names[row["spec"]]
        known = found.ratio.value is not None
        points.append(
            (max(found.ratio.value or 1.0, 1.0), row["mean_excess_bits"], row["bits_per_weight"]) if known else None
        )
    front = pareto(points)
    for place, row in enumerate(rows):
        row["on_front"] = place in front
    return {"rows": rows, "front": [rows[place]["spec"] for place in sorted(front)], "margin": LOG_PARITY}


def _changes(study: ComparatorStudy, excess: Mapping[str, Disparity]) -> list[dict[str, Any]]:
    """Return what each comparator changes in the log disparity ratio against the reference, paired."""
    return [
        {
            "name": name,
            "spec": spec,
            "log_disparity_change": disparity_change(
                excess[study.reference], excess[spec], confidence=study.retention.confidence
            ),
        }
        for name, spec in study.specs.items()
    ]


def better_choice(study: ComparatorStudy, *, rng: np.random.Generator) -> Finding:
    """Whether another choice of as many weights leaves less damage than the largest magnitudes.

    The estimate is what the comparator with the strongest evidence saves, in bits per segment: mean over languages; p
    by random signs of families, in all comparators at once.
    """
    if study.settled is not None:
        return study.settled
    pairs = {name: (study.reference, spec) for name, spec in study.specs.items()}
    found, best = _strongest(study, pairs, study.retention.table.languages, rng=rng)
    spec = study.specs[best]
    supported = _below(found[best].adjusted_p, study.retention.alpha)
    return Finding(
        estimate=found[best].estimate,
        p_value=found[best].adjusted_p,
        shown=supported,
        because=f"Strongest: {best}; {_evidence(found[best], len(found), study.retention.alpha)}.",
        also=_on_metrics(study, study.reference, spec, study.retention.table.languages, rng),
        summary=f"k {PERCENT} %: {best} saves {brief(found[best].estimate)} bits per segment against magnitude",
        action=f"Choose the {PERCENT} % by {best} ({spec}): less damage for the same bits." if supported else None,
        data={"comparators": [_row(study, name, one) for name, one in found.items()]},
    )


def language_awareness(study: ComparatorStudy, *, rng: np.random.Generator) -> Finding:
    """Whether statistics of the low-resource languages help these languages more than statistics of all languages.

    The estimate is what the language-aware choice saves low-resource languages against its language-blind partner, in
    bits per segment, for the statistic with the strongest evidence (family-wise over statistics). `data` has what it
    costs the high-resource ones.
    """
    if study.settled is not None:
        return study.settled
    pairs = {name: pair for name, pair in AWARE.items() if set(pair) <= set(study.specs)}
    if not pairs:
        reason = "there is no probe text to take statistics on"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    low, high = study.retention.low, study.retention.high
    specs = {name: (study.specs[blind], study.specs[aware]) for name, (blind, aware) in pairs.items()}
    found, best = _strongest(study, specs, low, rng=rng)
    supported = _below(found[best].adjusted_p, study.retention.alpha)
    blind, aware = (study.retention.table.excess_bits(spec) for spec in specs[best])
    rows = [
        {
            "name": name,
            "blind": specs[name][0],
            "aware": specs[name][1],
            "low": _outcome(outcome),
            "high_saved_bits": saved_bits(study.retention, *specs[name], rng=rng, languages=high),
        }
        for name, outcome in found.items()
    ]
    return Finding(
        estimate=found[best].estimate,
        p_value=found[best].adjusted_p,
        shown=supported,
        because=f"Strongest: {best}; {_evidence(found[best], len(found), study.retention.alpha)}. "
        + study.retention.without_a_family(blind - aware, low_alone=True),
        also=_on_metrics(study, *specs[best], low, rng),
        summary=f"{best} on low-resource languages saves them {brief(found[best].estimate)} bits per segment",
        action=f"Take statistics on the low-resource languages: {specs[best][1]}." if supported else None,
        data={"statistics": rows},
    )


def against_protection(study: ComparatorStudy, *, rng: np.random.Generator) -> Finding:
    """Whether retention leaves less disparity than layers, or parts of them, in high precision at the same bits."""
    if study.settled is not None:
        return study.settled
    if study.protected is None or study.matched is None:
        reason = "the bits of keeping 1 % buy no matrix of this model in high precision"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    return at_equal_bits(
        study.retention, comparator=study.protected, matched=study.matched, what="layer protection", rng=rng
    )


def _strongest(
    study: ComparatorStudy, pairs: Mapping[str, tuple[str, str]], languages: Sequence[str], *, rng: np.random.Generator
) -> tuple[dict[str, Outcome], str]:
    """Return the tests of what each pair (worse, better) saves, and the name of the one with the strongest evidence.

    Languages of one family move together: their savings are added, and signs are those of families.
    """
    table, families = study.retention.table, study.retention.families
    places = [table.languages.index(tag) for tag in languages]
    names = sorted({families[tag] for tag in languages})
    codes = np.array([names.index(families[tag]) for tag in languages])

    def by_family(worse: str, better: str) -> Float64:
        saved_L = (table.excess_bits(worse) - table.excess_bits(better)).mean(axis=1)[places]
        return np.bincount(codes, weights=saved_L).astype(np.float64)

    tested = joint_flips({name: by_family(*pair) for name, pair in pairs.items()}, rng=rng, alternative="greater")
    found = {
        name: Outcome(
            estimate=saved_bits(study.retention, *pair, rng=rng, languages=languages),
            p_value=tested.p[name],
            adjusted_p=tested.adjusted[name],
            p_method=tested.method.replace("segments", "families"),
            least_p=tested.least,
        )
        for name, pair in pairs.items()
    }
    order = {name: (one.adjusted_p or 0.0, -(one.estimate.value or 0.0)) for name, one in found.items()}
    return found, min(order, key=lambda name: order[name])


def _below(p_value: float | None, alpha: float) -> bool:
    return p_value is not None and p_value < alpha


def _evidence(outcome: Outcome, count: int, alpha: float) -> str:
    p = "undefined" if outcome.adjusted_p is None else f"{outcome.adjusted_p:.2g}"
    reachable = outcome.least_p is None or outcome.least_p < alpha
    least = "" if reachable else f", the least possible is {outcome.least_p:.2g}"
    return f"p {p}, family-wise over {count}{least}"


def _on_metrics(
    study: ComparatorStudy, worse: str, better: str, languages: Sequence[str], rng: np.random.Generator
) -> dict[str, Estimate]:
    return {
        name: saved_bits(study.retention, worse, better, name, rng=rng, languages=languages)
        for name in study.retention.table.degradation(worse)
    }


def _row(study: ComparatorStudy, name: str, outcome: Outcome) -> dict[str, Any]:
    table, spec = study.retention.table, study.specs[name]
    return {
        "name": name,
        "spec": spec,
        "bits_per_weight": table.columns[spec].bits_per_weight,
        "mean_excess_bits": float(table.excess_bits(spec).mean()),
    } | _outcome(outcome)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"saved_bits": outcome.estimate, "p_value": outcome.p_value, "adjusted_p": outcome.adjusted_p}
