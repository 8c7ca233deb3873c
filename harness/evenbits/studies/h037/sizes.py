"""Q3, first half: do the largest .01 % of the weights matter more than the largest 1 %?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.weights.statistics import WeightStatistics
from evenbits.statistics import crossed_bootstrap, over_all
from evenbits.studies.h037.ablation import SHARES, Ablation, FloatArray
from evenbits.studies.h037.classes import SIGMA
from evenbits.text.languages import families_of

__all__ = ["outliers_by_size"]


def outliers_by_size(
    statistics: WeightStatistics, ablations: Mapping[float, Ablation], *, rng: np.random.Generator
) -> Finding:
    """Q3: of what zeroing the largest 1 % costs, how much does the largest .01 % cost alone? And in how many layers?

    The estimate is the ratio of the two mean damages; its interval is over segments and languages.
    """
    few, many = (ablations[share] for share in SHARES)
    if float(many.top.mean()) <= many.floor_bits:
        reason = "zeroing the largest 1 % does no measurable damage"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    layers = _layers_holding_half(statistics)
    total = len({tensor.layer for tensor in statistics.tensors})
    return Finding(
        estimate=_ratio(few, many, rng),
        because=_where(layers, total),
        summary=f"largest .01 % cost {float(few.top.mean()):.1f} bits per segment, "
        f"largest 1 % {float(many.top.mean()):.1f}"
        + (f"; half of the outliers sit in {layers} of {total} layers" if layers else "; no weight beyond 5 sigma"),
        data={"ablation": [few.to_json(), many.to_json()], "layers_holding_half": layers, "layers": total},
    )


def _where(layers: int, total: int) -> str:
    if layers == 0:
        return f"No weight lies beyond {SIGMA} sigma."
    return f"Half of all weights beyond {SIGMA} sigma sit in {layers} of {total} layers."


def _ratio(few: Ablation, many: Ablation, rng: np.random.Generator) -> Estimate:
    def of_means(means_BLK: FloatArray) -> FloatArray:
        both = means_BLK.mean(axis=1)
        return np.asarray(np.divide(both[:, 0], both[:, 1], out=np.full(len(both), np.nan), where=both[:, 1] > 0))

    damage = {tag: np.stack([few.top[place], many.top[place]]) for place, tag in enumerate(few.languages)}
    families = families_of(damage)
    drawn = crossed_bootstrap(damage, of_means, rng=rng, families=families)
    few_L, many_L = few.top.mean(axis=1), many.top.mean(axis=1)
    moved_L = (few_L - float(drawn.value) * many_L) / many_L.mean()  # what each language moves it by, to first order
    return drawn.widened((), over_all(few.languages, families), moved_L, what="ratio of mean damages")


def _layers_holding_half(statistics: WeightStatistics) -> int:
    by_layer: dict[int | None, int] = {}
    for tensor in statistics.tensors:
        beyond = sum(count.count for count in tensor.beyond if count.sigma == SIGMA)
        by_layer[tensor.layer] = by_layer.get(tensor.layer, 0) + beyond
    ordered = np.sort(np.array(list(by_layer.values())))[::-1]
    if ordered.sum() == 0:
        return 0
    return int(np.searchsorted(np.cumsum(ordered), ordered.sum() / 2) + 1)
