"""Findings of H-035: does overlap predict damage, beyond what is known anyway, and is it the layers' own kurtosis?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import (
    Outcome,
    added_r2,
    at_least_jackknife,
    bootstrap_estimate,
    holm,
    leave_group_out,
    partial_correlation,
    pearson,
    permutation_p,
    rearrangements,
    spearman,
    wilson,
)
from evenbits.statistics.correlation import rowwise_pearson, standardised
from evenbits.statistics.samples import FloatArray, IntArray, spread_of
from evenbits.studies.h035.comparators import comparator_table, usable
from evenbits.studies.h035.predictors import METRICS
from evenbits.studies.h035.study import ALPHA, NEEDED, PredictionStudy, cannot_tell

__all__ = ["adds_held_out", "beyond_what_is_known", "overlap_predicts", "own_layers"]

NAME = "kurtosis_overlap"
WANTED_R = 0.5
POWER_DRAWS, POWER_ORDERS = 200, 199
"""Draws of damage, and orders of languages in the test of each, from which power is known to about .04."""
KNOWN = ("token_parity", "nll_full", "resource")
"""Held constant by the partial correlation: known of any model without looking at its weights."""
COMPARATORS = (*KNOWN, "script", "stream_norm", "quantization_error", "gradient_error")
"""What overlap has to add to. The first-order change was not known to predict before this; `also` has it."""


def overlap_predicts(study: PredictionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether languages with more overlap lose more excess bits (Pearson r, permuted within family x script).

    The interval draws families before languages; its upper limit below .5 refutes. `data["power"]`: the chance of
    `supported` at a true r of .5, .6 and .7, simulated with the strata and the overlap of these languages.

    `also`: the same on relative increase and KL, Spearman's rho, the continuous form, and overlap with columns alone.
    `data["comparators"]` holds every other metric on the same footing.
    """
    silent = cannot_tell(study, what="Pearson r")
    if silent is not None:
        return silent
    values = study.predictors.values
    found = _against(study, values[NAME], "excess_bits", rng)
    forms = {"energy_weighted_kurtosis": values["weighted_kurtosis"], "columns_alone": study.predictors.columns}
    also = {metric: _against(study, values[NAME], metric, rng).estimate for metric in ("relative_increase", "kl")}
    also |= {name: _against(study, form, "excess_bits", rng).estimate for name, form in forms.items()}
    ranked = spearman(values[NAME], study.excess_bits, rng=rng, strata=study.predictors.strata, alternative="greater")
    table = comparator_table(study, rng=rng)
    chances = {str(r): _power(study, r, rng=rng).value or 0.0 for r in (0.5, 0.6, 0.7)}
    verdict, shown, why = _verdict(found, len(study.languages), chances)
    best = _best(table)
    return Finding(
        estimate=found.estimate,
        p_value=found.p_value,
        verdict=verdict,
        shown=shown,
        because=f"{why} {_value_alone(found, shown=shown)}{_without_a_family(study)}"
        f"Spearman {_brief(ranked.estimate)}. {_beside(table)}",
        summary=f"r {_brief(found.estimate)}, needed > {WANTED_R:g}; best held out: {_standing(best)}",
        action=_advice(best, table),
        also={name: one for name, one in also.items() if one.value is not None} | {"spearman": ranked.estimate},
        data={
            "comparators": table,
            "power": chances,
            "resource_kind": study.predictors.resource_kind,
            "regions": dict(study.predictors.facts),
            "languages": list(study.languages),
            "damage": {name: column.tolist() for name, column in study.damage.items()},
            "metrics": {name: column.tolist() for name, column in values.items()},
        },
    )


def _against(study: PredictionStudy, values: Any, metric: str, rng: np.random.Generator) -> Outcome:
    damage = study.damage[metric]
    return pearson(
        values,
        damage,
        rng=rng,
        strata=study.predictors.strata,
        clusters=study.predictors.families,
        alternative="greater",
    )


def _power(study: PredictionStudy, r: float, *, rng: np.random.Generator) -> Estimate:
    """Return how often the criterion is met where damage correlates with this overlap by `r`, and is normal beside it.

    What is drawn is decided as the criterion is: r above .5, and p below .05 among orders within family x script.
    """
    n = len(study.languages)
    x = standardised(study.predictors.values[NAME])
    orders = rearrangements(n, rng=rng, strata=study.predictors.strata, permutations=POWER_ORDERS)
    if orders is None:
        return Estimate.undefined("every stratum holds a single language", n=n)

    y_DN = r * x + np.sqrt(1 - r**2) * rng.standard_normal((POWER_DRAWS, n))
    y_DN = standardised(y_DN.T).T
    found_D, null_DM = y_DN @ x / n, y_DN[:, orders.rows] @ x / n
    met = [
        found > WANTED_R and permutation_p(float(found), null, exact=orders.exact, alternative="greater") < ALPHA
        for found, null in zip(found_D, null_DM, strict=True)
    ]
    return wilson(sum(met), POWER_DRAWS)


def _value_alone(found: Outcome, *, shown: bool) -> str:
    """Return a sentence where a correlation is shown, and only its value exceeds what the criterion asks for."""
    r, low = found.estimate.value, found.estimate.low
    if not shown or r is None or r <= WANTED_R or (low is not None and low > WANTED_R):
        return ""
    return f"Shown is that r is above 0; that it is above {WANTED_R:g} is its value alone, the interval holds less. "


def _without_a_family(study: PredictionStudy) -> str:
    """Return how r moves when one family is left out, and whether one carries it."""
    left = leave_group_out(study.predictors.values[NAME], study.excess_bits, study.predictors.families)
    known = {name: one.value for name, one in left.items() if one.value is not None}
    if len(known) < 2:
        return ""
    least = min(known, key=lambda name: known[name])
    return f"Leaving one family out gives r {known[least]:.2f} (without {least}) to {max(known.values()):.2f}. "


def _verdict(found: Outcome, n: int, chances: Mapping[str, float] | None = None) -> tuple[Verdict | None, bool, str]:
    """Return the verdict that too few languages impose, whether the test shows a correlation, and a sentence."""
    power = "" if not chances else f" A true r of .5 / .6 / .7 would be supported with {_percents(chances)} chance."
    if n < NEEDED:
        why = f"{n} languages, needed {NEEDED}.{power} Add languages with --languages."
        return Verdict.UNDERPOWERED, False, why
    if found.p_value is None:
        return Verdict.UNDERPOWERED, False, f"No test is possible ({found.p_method})."
    if found.p_value >= ALPHA:
        return None, False, f"p {found.p_value:.2g}, needed below {ALPHA:g} ({found.p_method}).{power}"
    return None, True, f"p {found.p_value:.2g} ({found.p_method}).{power}"


def _percents(chances: Mapping[str, float]) -> str:
    return " / ".join(f"{chance:.0%}" for chance in chances.values())


def beyond_what_is_known(study: PredictionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether overlap and excess bits go together beyond token parity, full-precision NLL and resource level."""
    silent = cannot_tell(study, what="partial Pearson r")
    if silent is not None:
        return silent
    known = usable(study, KNOWN)
    overlap = study.predictors.values[NAME]

    def partial(metric: str) -> Outcome:
        return partial_correlation(
            overlap,
            study.damage[metric],
            known,
            rng=rng,
            strata=study.predictors.strata,
            clusters=study.predictors.families,
            alternative="greater",
        )

    found = partial("excess_bits")
    others = {metric: partial(metric).estimate for metric in ("relative_increase", "kl")}
    left_out = [METRICS[name].label for name in KNOWN if name not in known]
    if found.estimate.value is None:
        return Finding(
            estimate=found.estimate, verdict=Verdict.NOT_APPLICABLE, because=f"Undefined: {found.estimate.reason}."
        )
    verdict, shown, why = _verdict(found, len(study.languages))
    return Finding(
        estimate=found.estimate,
        p_value=found.p_value,
        verdict=verdict,
        shown=shown,
        because=why
        + (f" Not held constant, undefined or the same everywhere: {', '.join(left_out)}." * bool(left_out)),
        summary=f"partial r {_brief(found.estimate)} given {', '.join(METRICS[name].label for name in known)}",
        also={name: one for name, one in others.items() if one.value is not None},
        data={"given": list(known), "left_out": left_out},
    )


def adds_held_out(study: PredictionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether overlap adds R2 on left-out languages beyond all comparators together (ordinary least squares)."""
    silent = cannot_tell(study, what="added held-out R2")
    if silent is not None:
        return silent
    base = usable(study, COMPARATORS)
    added = {NAME: study.predictors.values[NAME]}
    families = study.predictors.families
    found = {
        metric: added_r2(damage, base, added, rng=rng, clusters=families) for metric, damage in study.damage.items()
    }
    by_family = added_r2(study.excess_bits, base, added, rng=rng, groups=families)
    signed = usable(study, ("first_order",))
    beyond_signed = added_r2(study.excess_bits, base | signed, added, rng=rng, clusters=families)
    estimate = found.pop("excess_bits")
    if estimate.value is None:
        return Finding(estimate=estimate, verdict=Verdict.NOT_APPLICABLE, because=f"Undefined: {estimate.reason}.")
    verdict, why = None, ""
    if len(study.languages) < NEEDED:
        verdict, why = Verdict.UNDERPOWERED, f"{len(study.languages)} languages, needed {NEEDED}."
    return Finding(
        estimate=estimate,
        verdict=verdict,
        because=f"{why} Beyond {', '.join(METRICS[name].label for name in base)}; a whole family left out: "
        f"{_brief(by_family)}.".strip(),
        summary=f"overlap adds {_brief(estimate)} to held-out R2",
        also={name: one for name, one in found.items() if one.value is not None}
        | {"family_left_out": by_family, "beyond_first_order_too": beyond_signed},
        data={"beyond": list(base)},
    )


def own_layers(study: PredictionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether overlap with each layer's own kurtosis correlates more than with that of other layers.

    The estimate is r minus the median r over orders of the layers, with an interval over families and languages; p is
    the share of orders that reach r.
    """
    silent = cannot_tell(study, what="r minus median r of permuted layers")
    if silent is not None:
        return silent
    orders = [row for row in study.predictors.permuted if spread_of(row) > 0]
    if not orders:
        reason = "no other order of the layers exists or changes the overlap"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    n = len(study.languages)
    own = float(np.corrcoef(study.predictors.values[NAME], study.excess_bits)[0, 1])
    null = np.array([float(np.corrcoef(row, study.excess_bits)[0, 1]) for row in orders])
    p_value = permutation_p(own, null, exact=False, alternative="greater")
    middle = float(np.median(null))
    x, y, others = study.predictors.values[NAME], study.excess_bits, np.array(orders)

    def advantage(rows: IntArray) -> FloatArray:
        damage = y[rows]
        moved = np.stack([rowwise_pearson(one[rows], damage) for one in others])
        known = np.isfinite(moved).all(axis=0)
        return np.where(known, rowwise_pearson(x[rows], damage) - np.median(moved, axis=0), np.nan)

    estimate = bootstrap_estimate(
        advantage,
        n,
        what=f"r minus median r over {len(orders)} orders of the layers",
        rng=rng,
        clusters=study.predictors.families,
    )
    estimate = at_least_jackknife(estimate, advantage, study.predictors.families, confidence=0.95)
    verdict, why = None, ""
    if n < NEEDED:
        verdict, why = Verdict.UNDERPOWERED, f"{n} languages, needed {NEEDED}. "
    elif p_value >= ALPHA:
        why = f"p {p_value:.2g}, needed below {ALPHA:g}. "
    return Finding(
        estimate=estimate,
        p_value=p_value,
        verdict=verdict,
        shown=p_value < ALPHA,
        because=f"{why}r {own:.2f} with the layers' own kurtosis; with that of other layers {middle:.2f} "
        f"({null.min():.2f} to {null.max():.2f}).",
        summary=f"r {own:.2f}, other layers' kurtosis {middle:.2f}",
    )


def _best(table: list[dict[str, Any]]) -> dict[str, Any] | None:
    known = [row for row in table if row["metric"] in METRICS and row["r2_language_out"]["value"] is not None]
    return max(known, key=lambda row: row["r2_language_out"]["value"], default=None)


def _standing(row: dict[str, Any] | None) -> str:
    if row is None:
        return "none is defined"
    return f"{row['label']} (R2 {row['r2_language_out']['value']:.2f})"


def _beside(table: list[dict[str, Any]]) -> str:
    """Return `Beside it: token parity r .62, R2 .31; ...` for a person."""
    parts = [
        f"{row['label']} r {row['r']['value']:.2f}"
        + (
            f", held-out R2 {row['r2_language_out']['value']:.2f}"
            if row["r2_language_out"]["value"] is not None
            else ""
        )
        for row in table
        if row["r"]["value"] is not None and row["metric"] != NAME
    ]
    return f"Beside it: {'; '.join(parts)}." if parts else ""


def _advice(best: dict[str, Any] | None, table: list[dict[str, Any]]) -> str:
    """Return what to do: rank by the best of the metrics where its correlation is shown, over all of them."""
    if best is None or best["r2_language_out"]["value"] <= 0:
        return "No metric known before quantizing predicts this damage: measure it with `evenbits damage`."
    p = holm({row["metric"]: row["p_value"] for row in table if row["metric"] in METRICS})[best["metric"]]
    held = f"{best['label']} held up best on left-out languages (R2 {best['r2_language_out']['value']:.2f}"
    if p is None or p >= ALPHA:
        return (
            f"Not shown yet, a first look: {held}). Until more languages decide, measure the damage with "
            "`evenbits damage`."
        )
    return f"Rank languages before quantizing with `evenbits diagnose`; here {held}, Holm p {p:.2g})."


def _brief(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
