"""The sparsity class of a model: from its weights, from ablation, and how firm it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenbits.estimates import Finding, Verdict
from evenbits.observe.weights.statistics import TensorSummary, WeightStatistics
from evenbits.statistics import crossed_bootstrap, stability
from evenbits.statistics.disparity import over_all
from evenbits.studies.h037.ablation import SHARES, Ablation, FloatArray
from evenbits.text.languages import families_of

__all__ = ["SIGMA", "class_by_ablation", "class_by_weights", "clear_pattern"]

SIGMA = 5
NO_OUTLIERS_BELOW = 1e-5
DENSE_ABOVE = 1e-3
"""Cut-offs of the share of weights beyond five standard deviations of their tensor. A normal distribution has 5.7e-7;
twenty times that is the least that is called outliers. The programme contrasts super weights (.01 %) with general
outliers (1 %): their geometric mean, .1 %, divides sparse from dense."""

HOLDS = 0.95
"""Share of resamples in which a class has to come out to be one."""
BOTH_SIDES = 2 * HOLDS - 1
"""Confidence of the interval that leaves as much on either side as `HOLDS` does on one."""
RESAMPLES = 1000

CONCENTRATED = 2.0
"""By ablation the largest weights are outliers where zeroing them costs at least twice what a normal distribution's
larger energy at its tails explains."""


def class_by_weights(tensors: Sequence[TensorSummary]) -> str:
    """Return `sparse`, `dense` or `no outliers` from the pooled share of weights beyond five standard deviations."""
    count = sum(c.count for tensor in tensors for c in tensor.beyond if c.sigma == SIGMA)
    share = count / sum(tensor.n for tensor in tensors)
    if share < NO_OUTLIERS_BELOW:
        return "no outliers"
    return "dense" if share > DENSE_ABOVE else "sparse"


def class_by_ablation(ablations: Mapping[float, Ablation]) -> str:
    """Return the class by what the largest weights carry beyond a normal distribution's tails."""
    few, many = (ablations[share].concentration or 0.0 for share in SHARES)
    return str(_classes(few, many))


def _classes(few: ArrayLike, many: ArrayLike) -> NDArray[np.str_]:
    """Return the classes by the concentrations of the few largest weights and of the many; NaN is no damage at all."""
    dense = np.where(np.asarray(many) >= CONCENTRATED, "dense", "no outliers")
    return np.asarray(np.where(np.asarray(few) >= CONCENTRATED, "sparse", dense))


def clear_pattern(
    statistics: WeightStatistics, ablations: Mapping[float, Ablation], *, rng: np.random.Generator
) -> Finding:
    """Whether the sparsity class survives resampling of tensors and agrees with ablation.

    The estimate is the share of bootstrap resamples of the linear tensors that give the class of all. The class by
    ablation is resampled too, over segments and languages: the two agree, or disagree, where they do so in 95 % of
    resamples. No outliers by either way leaves no pattern to be clear.
    """
    held = stability(class_by_weights, statistics.tensors, rng=rng)
    ablated = class_by_ablation(ablations)
    agrees = ablated == held.label
    share = held.estimate.value or 0.0
    stable = ablation_stability(ablations, held.label, rng=rng)
    verdict, why = _agreement(held.label, ablated, stable)
    return Finding(
        estimate=held.estimate,
        verdict=verdict,
        shown=True,
        because=f"{why}By weights the class is {held.label} ({statistics.beyond(SIGMA).share:.2g} beyond "
        f"{SIGMA} sigma), by ablation {ablated} ({_concentrations(ablations)}).",
        summary=f"{held.label} by weights, in {share:.0%} of resamples, "
        f"{'and by ablation' if agrees else f'but {ablated} by ablation: both must agree'}; "
        f"kurtosis {statistics.kurtosis_class or 'undefined'}",
        action=_advice(held.label, agrees=agrees, shown=verdict is None and share >= HOLDS),
        data={
            "class": held.label,
            "class_by_ablation": ablated,
            "kurtosis_class": None if statistics.kurtosis_class is None else str(statistics.kurtosis_class),
            "largest_kurtosis": statistics.largest_kurtosis,
            "shares_of_resamples": dict(held.shares),
            "sigma_shares": {str(sigma): statistics.beyond(sigma).share for sigma in (3, 5, 10)},
            "concentration_ratio": statistics.weighted("concentration"),
            "gini": statistics.weighted("gini"),
            "hoyer": statistics.weighted("hoyer"),
            "ablation": [one.to_json() for one in ablations.values()],
            "tensors": [tensor.to_json() for tensor in statistics.tensors],
        },
    )


def ablation_stability(ablations: Mapping[float, Ablation], label: str, *, rng: np.random.Generator) -> float | None:
    """Return the share of resamples of segments, families and languages in which the class by ablation is `label`.

    Resampled concentrations are moved to the spread that few languages or families call for, on the scale of the log.
    None of a single segment, which has no spread.
    """
    if ablations[SHARES[0]].top.shape[1] == 1:
        return None
    languages = ablations[SHARES[0]].languages
    both = [table for share in SHARES for table in (ablations[share].top, ablations[share].random)]
    families = families_of(languages)
    drawn = crossed_bootstrap(
        {tag: np.stack([table[place] for table in both]) for place, tag in enumerate(languages)},
        lambda means_BLK: np.concatenate([means_BLK, means_BLK.mean(axis=1, keepdims=True)], axis=1),
        rng=rng,
        families=families,
        confidence=BOTH_SIDES,
        resamples=RESAMPLES,
    )
    design = over_all(languages, families)

    def found(share: float, place: int) -> FloatArray:
        one, columns = ablations[share], slice(place, place + 2)
        value, means_B = (
            one.concentrations(*means[..., columns].T) for means in (drawn.value[-1], drawn.replicates[:, -1])
        )
        if not value > 0:
            return means_B
        top, random = drawn.value[-1, columns]
        own_L2 = drawn.value[:-1, columns]
        # below its floor the random damage takes no part in the concentration, whatever it is in a language
        relative = own_L2[:, 0] / top - (own_L2[:, 1] / random if random > one.floor_bits else 0.0)
        # a resample without measurable damage of the largest weights has no log, and stays what it is
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = design.widened(float(np.log(value)), np.log(means_B), relative, confidence=BOTH_SIDES)
        return np.exp(moved)

    few_B, many_B = (found(share, place) for share, place in zip(SHARES, (0, 2), strict=True))
    return float((_classes(few_B, many_B) == label).mean())


def _agreement(label: str, ablated: str, share: float | None) -> tuple[Verdict | None, str]:
    if share is None:
        return Verdict.UNDERPOWERED, "Ablation of one segment tells nothing of others: add segments. "
    if label == ablated == "no outliers" and share >= HOLDS:
        return Verdict.NOT_APPLICABLE, "There are no outliers by either way, so none to be sparse or dense. "
    if share >= HOLDS:
        return None, ""
    if share <= 1 - HOLDS:
        return Verdict.NOT_SUPPORTED, "Weights and ablation give different classes. "
    return Verdict.UNDERPOWERED, (
        f"Ablation gives the class of the weights in {share:.0%} of resamples of its segments: add segments. "
    )


def _advice(label: str, *, agrees: bool, shown: bool) -> str:
    if not agrees:
        return "Weights and ablation disagree on the outliers; measure retention (H-039) before relying on either."
    if not shown:
        return f"Not shown yet, a first look: {label}. Measure more segments, or retention (H-039), to rely on it."
    if label == "sparse":
        return "A few weights carry the outliers: keep them in FP16 (H-039 gives k)."
    if label == "dense":
        return "Outliers are spread out: smaller groups or protected layers serve better than single kept weights."
    return "No outliers to keep: spend bits on smaller groups."


def _concentrations(ablations: Mapping[float, Ablation]) -> str:
    def one(ablation: Ablation) -> str:
        value = ablation.concentration
        return f"largest {ablation.share:.2%}: " + ("no damage" if value is None else f"{value:.2g} x normal")

    return ", ".join(one(ablation) for ablation in ablations.values())
