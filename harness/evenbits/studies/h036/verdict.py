"""What the measured plans come to: a finding, a sentence for Q6, and a recipe.

Shapes: B resamples, K protections, L languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import CrossedBootstrap, Design, crossed_bootstrap, over_all
from evenbits.studies.h036.depth import where_damage_lies
from evenbits.studies.h036.protection import Protection, ProtectionStudy
from evenbits.studies.h036.study import LayerStudy
from evenbits.text.languages import families_of

__all__ = ["best_plan", "plan_beats_comparators", "protection_recipe", "protection_table"]

Float64 = NDArray[np.float64]
PLAN = "plan:worst"

DEAR = 1.0
"""Extra bits per weight above which an advice is about another format, not about protecting parts of this one."""


def plan_beats_comparators(study: LayerStudy, measured: ProtectionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether the plan for the worst language leaves it better off than the best comparator within the same budget.

    The estimate is damage of the worst language under the best comparator minus that under the plan, bits per segment;
    random layers count by the mean of their draws. The interval is over segments: languages are those of the user, and
    the worst of resampled languages would not be one of them. `also` holds the same on relative increase.
    """
    place = where_damage_lies(study)
    if PLAN not in {one.name for one in measured.protections}:
        reason = (
            f"a budget of {measured.budget:.3g} bits per weight buys nothing: the cheapest unit costs "
            f"{measured.cheapest:.3g}"
        )
        return Finding(
            estimate=Estimate.undefined(reason),
            verdict=Verdict.NOT_APPLICABLE,
            because=f"{reason}. Raise the budget or protect parts of layers. {place.sentence}",
            summary=reason,
        )
    names = _comparators(measured)
    bits = _advantage(measured, measured.excess_bits, names, rng)
    relative = _advantage(measured, measured.excess_bits / measured.nll_bits[None, :, None], names, rng)
    best = names[int(_worst_by_name(measured, measured.excess_bits.mean(axis=2)[None], names)[0].argmin())]
    rows = protection_table(measured, rng=rng)
    own = _row(rows, PLAN)
    return Finding(
        estimate=bits,
        because=f"Best comparator within {measured.budget:.3g} extra bits per weight: {best}. "
        f"{_sentence(own)} {_beyond(rows)}{place.sentence}",
        summary=f"protect {', '.join(own['protects'])} (+{own['extra_bits_per_weight']:.2g} bits per weight): "
        f"{_changes(own)}",
        action=_action(recommended(measured), rows, shown=bits.low is not None and bits.low > 0),
        also={"relative_increase": relative},
        data={
            "plans": rows,
            "budget": measured.budget,
            "best_comparator": best,
            "depth": place.to_json(),
            "predicted": {
                objective: {
                    "units": list(choice.units),
                    "mean_bits": float(choice.predicted.mean()),
                    "worst_bits": float(choice.predicted.max()),
                }
                for objective, choice in measured.choices.items()
            },
        },
    )


def protection_table(measured: ProtectionStudy, *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the rows of `ProtectionStudy.table` with intervals of worst, mean and gap.

    Mean and gap: over segments, families and languages, as wide as few of them call for. Worst: over segments alone.
    `mean_beyond` and `gap_beyond`: what the protection leaves more than the recommended one, paired over the same
    segments and languages.
    """
    worst = _bootstrap(measured, _worst_mean, rng, languages=False)
    best = measured.protections.index(recommended(measured))
    means, gaps = _means(measured, best, rng), _gaps(measured, best, rng)
    rows = measured.table()
    for number, row in enumerate(rows):
        row["worst"] = worst.estimate((number,), what="damage of the worst language").to_json()
        for what, found in (("mean", means), ("gap", gaps)):
            own, beyond = found[number]
            itself = Estimate.undefined("the recommended one itself")
            row |= {what: own.to_json(), f"{what}_beyond": (itself if number == best else beyond).to_json()}
    return rows


def protection_recipe(measured: ProtectionStudy, *, dear: float = DEAR) -> dict[str, Any]:
    """Return the recipe of the protection within budget that leaves the worst language best off, as measured.

    `dear`: extra bits per weight from which on it is shown and not advised.
    """
    one = recommended(measured)
    row = next(row for row in measured.table() if row["name"] == one.name)
    return {
        "title": _title(one, dear),
        "hypothesis": "H-036",
        "kind": "protect",
        "model": measured.model,
        "base_spec": measured.spec,
        "spec": one.spec,
        "protect": list(one.units),
        "bits_per_weight": one.bits_per_weight,
        "extra_bits_per_weight": one.extra_bits,
        "budget": measured.budget,
        "worst_language": row["worst_language"],
        "worst_bits": row["worst_bits"],
        "worst_change": row["worst_change"],
        "mean_change": row["mean_change"],
        "gap_change": row["gap_change"],
        "command": f"evenbits quantize {measured.model} --spec {one.spec}",
    }


def best_plan(measured: ProtectionStudy) -> Protection | None:
    """Return the plan, of those that protect parts, with the least damage of its worst language; None without one."""
    worst = measured.excess_bits.mean(axis=2).max(axis=1)
    plans = [(float(worst[number]), number) for number, one in enumerate(measured.protections) if one.kind == "plan"]
    return measured.protections[min(plans)[1]] if plans else None


def recommended(measured: ProtectionStudy) -> Protection:
    """Return the protection within budget with the least damage of its worst language; random ones do not count."""
    worst = measured.excess_bits.mean(axis=2).max(axis=1)
    allowed = [
        number
        for number, one in enumerate(measured.protections)
        if one.within_budget and not one.name.startswith("random")
    ]
    # Among equals a plan goes before a rule that happens to be the same.
    best = min(allowed, key=lambda number: (float(worst[number]), measured.protections[number].kind != "plan"))
    return measured.protections[best]


def _comparators(measured: ProtectionStudy) -> list[str]:
    """Return the names of comparators within budget, `random` for all of its draws together."""
    names = [one.name for one in measured.protections if one.kind == "comparator" and one.within_budget]
    return list(dict.fromkeys("random" if name.startswith("random") else name for name in names))


def _worst_by_name(measured: ProtectionStudy, means_BKL: Float64, names: Sequence[str]) -> Float64:
    """Return damage of the worst language for each name, [B, names]."""
    worst_BK = means_BKL.max(axis=2)
    columns = []
    for name in names:
        places = [
            number
            for number, one in enumerate(measured.protections)
            if one.name == name or (name == "random" and one.name.startswith("random"))
        ]
        columns.append(worst_BK[:, places].mean(axis=1))
    return np.stack(columns, axis=1)


def _advantage(
    measured: ProtectionStudy, damage_KLS: Float64, names: Sequence[str], rng: np.random.Generator
) -> Estimate:
    """Return the best comparator's worst-language damage minus the plan's; which is best is settled on all data."""
    best = names[int(_worst_by_name(measured, damage_KLS.mean(axis=2)[None], names)[0].argmin())]

    def saved(means_BLK: Float64) -> Float64:
        worst = _worst_by_name(measured, means_BLK.transpose(0, 2, 1), [best, PLAN])
        return np.asarray(worst[:, :1] - worst[:, 1:])

    drawn = _bootstrap(measured, saved, rng, languages=False, damage=damage_KLS)
    found = drawn.estimate((0,), what=f"damage of the worst language: {best} minus plan")
    return Estimate(
        value=found.value,
        low=found.low,
        high=found.high,
        n=damage_KLS.shape[2],
        method=found.method,
        reason=found.reason,
    )


def _bootstrap(
    measured: ProtectionStudy,
    statistic: Any,
    rng: np.random.Generator,
    *,
    languages: bool,
    groups: Mapping[str, str] | None = None,
    damage: Float64 | None = None,
) -> CrossedBootstrap:
    table = measured.excess_bits if damage is None else damage
    by_language = {tag: table[:, place] for place, tag in enumerate(measured.languages)}
    families = families_of(measured.languages)
    return crossed_bootstrap(
        by_language, statistic, rng=rng, groups=groups, families=families, resample_languages=languages
    )


def _worst_mean(means_BLK: Float64) -> Float64:
    return np.asarray(means_BLK.max(axis=1))


def _means(measured: ProtectionStudy, best: int, rng: np.random.Generator) -> list[tuple[Estimate, Estimate]]:
    """Return for each protection the mean over languages, and what it is beyond that of `best`."""
    design = over_all(measured.languages, families_of(measured.languages))
    return _contrasted(measured, best, rng, design, what="mean damage")


def _gaps(measured: ProtectionStudy, best: int, rng: np.random.Generator) -> list[tuple[Estimate, Estimate]]:
    """Return for each protection low- minus high-resource languages, and what it is beyond that of `best`."""
    tiers = tuple(measured.tier.get(tag, "middle") for tag in measured.languages)
    low, high = (np.array([one == tier for one in tiers]) for tier in ("low", "high"))
    if not (low.any() and high.any()):
        nothing = Estimate.undefined("no language in one of the tiers")
        return [(nothing, nothing)] * len(measured.protections)
    design = Design(
        contrast=tuple(low / low.sum() - high / high.sum()),
        groups=tiers,
        clusters=tuple(families_of(measured.languages).values()),
    )
    found = _contrasted(measured, best, rng, design, what="mean of low-resource minus mean of high-resource languages")
    if low.sum() + high.sum() > 2:
        return found
    reason = "no interval: one language in each tier does not show how languages differ"
    return [
        (replace(own, low=None, high=None, reason=reason), replace(beyond, low=None, high=None, reason=reason))
        for own, beyond in found
    ]


def _contrasted(
    measured: ProtectionStudy, best: int, rng: np.random.Generator, design: Design, *, what: str
) -> list[tuple[Estimate, Estimate]]:
    """Return for each protection the contrast of its languages' means, and the same less that of `best`, paired."""

    def contrasts(means_BLK: Float64) -> Float64:
        found_BK = np.einsum("blk,l->bk", means_BLK, np.array(design.contrast))
        return np.stack([found_BK, found_BK - found_BK[:, best : best + 1]], axis=2)

    groups = dict(zip(measured.languages, design.groups, strict=True))
    drawn = _bootstrap(measured, contrasts, rng, languages=True, groups=groups)
    means_KL = measured.excess_bits.mean(axis=2)
    against = f"{what} beyond that of {measured.protections[best].name}"
    return [
        (
            drawn.widened((number, 0), design, means_L, what=what),
            drawn.widened((number, 1), design, means_L - means_KL[best], what=against),
        )
        for number, means_L in enumerate(means_KL)
    ]


def _row(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["name"] == name)


def _changes(row: Mapping[str, Any]) -> str:
    parts = [("worst language", row["worst_change"]), ("mean", row["mean_change"]), ("gap", row["gap_change"])]
    return ", ".join(f"{name} {change:+.0%}" for name, change in parts if change is not None) or "no damage to protect"


def _sentence(row: Mapping[str, Any]) -> str:
    return (
        f"The plan protects {', '.join(row['protects'])} for {row['extra_bits_per_weight']:.3g} bits per weight: "
        f"{_changes(row)}." + (f" Of the gap that is left: {row['gap_family']}" if row["gap_family"] else "")
    )


def _beyond(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on protections that cost more than the budget and were no comparators."""
    dear = [f"{row['name']} (+{row['extra_bits_per_weight']:.3g})" for row in rows if not row["within_budget"]]
    return f"Dearer than the budget, shown without competing: {', '.join(dear)}. " if dear else ""


def _title(one: Protection, dear: float) -> str:
    if one.extra_bits > dear * (1 + 1e-6):
        return f"Shown, not advised: +{one.extra_bits:.2g} bits per weight"
    return "Spend bits on protection" if one.kind == "plan" else f"Spend bits by rule: {one.name}"


def _action(one: Protection, rows: Sequence[Mapping[str, Any]], *, shown: bool) -> str:
    """Return what to do. `shown`: whether the plan is shown to leave the worst language better off than others do."""
    row = _row(rows, one.name)
    if one.name == "none":
        return "Spend no bits here: nothing within the budget helps the worst language."
    if one.extra_bits > DEAR:
        return (
            f"Spend no bits on protection here: in so small a model the best of it costs {one.extra_bits:.2g} bits per "
            "weight, as much as another format. Compare formats with `evenbits damage`."
        )
    plan = f"{one.spec} (+{one.extra_bits:.2g} bits per weight): {_changes(row)}"
    if not shown:
        return f"Not shown yet, a first look: {plan}. More segments decide whether that is better than a rule of thumb."
    return f"Quantize with {plan}."
