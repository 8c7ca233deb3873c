"""E-1: outliers explain disparity. Over training runs: do models with heavier tails have another disparity?

Shapes: L languages, R training runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict, three_way
from evenbits.statistics import Outcome, cluster_means, leave_group_out, pearson
from evenbits.studies.established.pooled import Sample, family_codes, pooled_correlation
from evenbits.studies.established.records import ModelDamage
from evenbits.studies.h037 import MIN_RUNS

__all__ = ["log_disparity", "outliers_explain_disparity"]

Float64 = NDArray[np.float64]

METRICS = ("excess_bits", "relative_increase", "kl")


def log_disparity(one: ModelDamage, metric: str = "excess_bits") -> float | str:
    """Return the log of mean damage of low- over high-resource languages, or why there is none."""
    low, high = (
        [place for place, tag in enumerate(one.languages) if one.tier.get(tag) == name] for name in ("low", "high")
    )
    if not low or not high:
        return f"no {'low' if not low else 'high'}-resource language"
    damage = one.damage[metric]
    below, above = float(damage[low].mean()), float(damage[high].mean())
    if float(one.damage["excess_bits"][high].mean()) <= one.floor or above <= 0:
        return "the damage of high-resource languages is not above its noise floor"
    return math.log(below / above) if below > 0 else "low-resource languages lose nothing"


def outliers_explain_disparity(models: Sequence[ModelDamage], *, rng: np.random.Generator) -> Finding:
    """Whether models with heavier tails have less disparity, as the finding says (r < 0).

    The estimate is Pearson's r over training runs between the log of the largest excess kurtosis of a tensor and the
    log disparity ratio; checkpoints of one run are averaged. The p-value is one-sided, in the direction of the claim.
    `also`: the same on other metrics, on the difference in bits, and r within models over languages.
    """
    ratio = {one.model: log_disparity(one) for one in models}
    usable = [one for one in models if one.tail is not None and isinstance(ratio[one.model], float)]
    runs = len({one.run for one in usable})
    within = within_models(models, rng=rng)
    also = {} if within.value is None else {"within_models": within}
    data = {"models": [_row(one, ratio[one.model]) for one in models]}
    if runs < MIN_RUNS:
        given = len({one.run for one in models})
        reason = f"{runs if given >= MIN_RUNS else given} training run{'' if given == 1 else 's'}"
        reason += f"{' with a disparity' if given >= MIN_RUNS else ''}, needed {MIN_RUNS}"
        return Finding(
            estimate=Estimate.undefined(reason, n=runs, method="Pearson's r over training runs"),
            verdict=Verdict.UNDERPOWERED,
            because=f"{reason}. Add models with more --model options. {_within_sentence(within)}",
            also=also,
            summary=reason,
            data=data,
        )
    outcome = _over_runs(usable, rng=rng)
    if outcome.estimate.value is None or outcome.p_value is None:
        return Finding(
            estimate=outcome.estimate,
            verdict=Verdict.NOT_APPLICABLE,
            also=also,
            data=data,
            because=f"There is no correlation to speak of: {outcome.estimate.reason or outcome.p_method}.",
        )
    for metric in METRICS[1:]:
        known = [one for one in usable if isinstance(log_disparity(one, metric), float)]
        if len({one.run for one in known}) >= MIN_RUNS:
            also[metric] = _over_runs(known, metric, rng=rng).estimate
    also["difference_in_bits"] = _difference(usable, rng=rng)
    return Finding(
        estimate=outcome.estimate,
        p_value=outcome.p_value,
        shown=outcome.p_value < 0.05 and _below_zero(outcome.estimate),
        because=_because(outcome, usable, within),
        also=also,
        summary=f"largest kurtosis against disparity over {runs} training runs",
        data=data,
    )


def within_models(models: Sequence[ModelDamage], *, rng: np.random.Generator) -> Estimate:
    """Return the mean over models of r between a language's energy in heavy-tailed weights and its damage.

    The interval is over families of languages, drawn once for all models, and over training runs.
    """
    samples = [
        Sample(run=one.run, x=one.outliers, y=one.damage["excess_bits"], clusters=family_codes(one.languages))
        for one in models
    ]
    return pooled_correlation(samples, shared=True, margin=1.0, rng=rng).estimate


def _values(usable: Sequence[ModelDamage], metric: str) -> tuple[Float64, Float64]:
    labels = [one.run for one in usable]
    tails = cluster_means([math.log(one.tail or math.nan) for one in usable], labels)[1]
    ratios = cluster_means([float(log_disparity(one, metric)) for one in usable], labels)[1]
    return tails, ratios


def _over_runs(usable: Sequence[ModelDamage], metric: str = "excess_bits", *, rng: np.random.Generator) -> Outcome:
    tails, ratios = _values(usable, metric)
    return pearson(tails, ratios, rng=rng, alternative="less")


def _difference(usable: Sequence[ModelDamage], *, rng: np.random.Generator) -> Estimate:
    """Return r with the difference of the two means in bits in place of their log ratio."""
    labels = [one.run for one in usable]

    def difference(one: ModelDamage) -> float:
        damage = one.damage["excess_bits"]
        low, high = (np.array([one.tier.get(tag) == name for tag in one.languages]) for name in ("low", "high"))
        return float(damage[low].mean() - damage[high].mean())

    tails = cluster_means([math.log(one.tail or math.nan) for one in usable], labels)[1]
    return pearson(tails, cluster_means([difference(one) for one in usable], labels)[1], rng=rng).estimate


def _below_zero(estimate: Estimate) -> bool:
    """Whether the whole interval has the sign of the claim: a p makes no verdict that the interval beside it denies."""
    return three_way(estimate, below=0.0) is Verdict.SUPPORTED


def _because(outcome: Outcome, usable: Sequence[ModelDamage], within: Estimate) -> str:
    tails, ratios = _values(usable, "excess_bits")
    runs = sorted({one.run for one in usable})
    left = [one.value for one in leave_group_out(tails, ratios, runs).values()]
    known = [value for value in left if value is not None]
    parts = [f"One-sided permutation p {outcome.p_value:.3g}, in the direction of the claim."]
    if (outcome.estimate.value or 0.0) > 0:
        parts.append("The sign is the other one: models with heavier tails have more disparity, as H-035 would expect.")
    elif outcome.p_value is not None and outcome.p_value < 0.05 and not _below_zero(outcome.estimate):
        parts.append("The interval does not exclude 0: more training runs would.")
    if known:
        parts.append(f"Leaving one run out gives {min(known):.2f} to {max(known):.2f}.")
    return " ".join([*parts, _within_sentence(within)])


def _within_sentence(within: Estimate) -> str:
    if within.value is None:
        return f"Within models there is no correlation over languages: {within.reason}."
    bounds = "" if within.low is None or within.high is None else f" [{within.low:.2f}, {within.high:.2f}]"
    return (
        f"Within models, over {within.n} families of languages, energy in outlier weights against damage: "
        f"r {within.value:.2f}{bounds}."
    )


def _row(one: ModelDamage, ratio: float | str) -> dict[str, Any]:
    defined = isinstance(ratio, float)
    return {
        "model": one.model,
        "run": one.run,
        "largest_kurtosis": one.tail,
        "log_disparity": ratio if defined else None,
        "reason": None if defined else ratio,
        "mean_excess_bits": float(one.damage["excess_bits"].mean()),
    }
