"""E-2: outliers sit in attention projections. Which matrix has the heaviest tail, and where are outlier weights?

The unit is the training run, by its last checkpoint; changed copies of it are none of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.runs import step_of
from evenbits.observe.weights.statistics import KurtosisClass, WeightSummary
from evenbits.statistics import mean_interval, wilson
from evenbits.studies.established.records import ModelWeights, originals_first
from evenbits.studies.h037 import SIGMA

__all__ = ["outliers_sit_in_attention"]

FEWEST_HEAVY = 3
"""The finding rests on three of three HEAVY models; fewer say less than it does."""

ATTENTION = "attention"


def outliers_sit_in_attention(models: Sequence[ModelWeights], *, rng: np.random.Generator) -> Finding:
    """Whether the heaviest matrix of HEAVY models is a projection of the attention, in more than half of them.

    The estimate is the share of HEAVY training runs of which it is true, with Wilson's interval; the p-value is
    binomial, against the share of matrices that belong to attention. Also over all models, and by the share of weights
    beyond five standard deviations that lie in attention.
    """
    chosen = last_of_each_run(models)
    heavy = [one for one in chosen if one.statistics.kurtosis_class is KurtosisClass.HEAVY]
    data: dict[str, Any] = {"models": [_row(one) for one in chosen], "fewest_heavy": FEWEST_HEAVY}
    worst = max(chosen, key=lambda one: one.statistics.largest_kurtosis or 0.0)
    data["tensors"] = [tensor.to_json() for tensor in worst.statistics.tensors]
    also = {"over_all_runs": wilson(sum(map(_in_attention, chosen)), len(chosen))}
    shares = [share for one in chosen if (share := attention_share(one.statistics)) is not None]
    if shares:
        also["share_of_outlier_weights"] = mean_interval(shares, rng=rng)
    because = _because(chosen, shares)
    found = sum(map(_in_attention, heavy))
    of_all = sum(map(_in_attention, chosen))
    summary = f"heaviest matrix in attention: {found} of {len(heavy)} HEAVY runs, {of_all} of all {len(chosen)}"
    if len(heavy) < FEWEST_HEAVY:
        few = f"{len(heavy)} HEAVY training run{'' if len(heavy) == 1 else 's'} (largest excess kurtosis above 50)"
        few += f", needed {FEWEST_HEAVY}"
        estimate = wilson(found, len(heavy)) if heavy else Estimate.undefined(few, n=0, method="share of HEAVY runs")
        return Finding(
            estimate=estimate,
            verdict=Verdict.UNDERPOWERED,
            because=f"{few}. {because}",
            also=also,
            summary=summary,
            data=data,
        )
    p_value = _against_chance(found, heavy)
    if 2 * found > len(heavy) and p_value >= 0.05:
        because = f"As many are to be expected by chance (p {p_value:.2g}): add HEAVY models. {because}"
    return Finding(
        estimate=wilson(found, len(heavy)),
        p_value=p_value,
        shown=p_value < 0.05,
        because=because,
        also=also,
        summary=summary,
        data=data,
    )


def last_of_each_run(models: Sequence[ModelWeights]) -> list[ModelWeights]:
    """Return the last checkpoint of every run; of a model and its changed copies, the one the run is named after."""
    last: dict[str, ModelWeights] = {}
    for one in originals_first(models):
        if one.run not in last or step_of(one.model) > step_of(last[one.run].model):
            last[one.run] = one
    return list(last.values())


def attention_share(statistics: WeightSummary) -> float | None:
    """Return the share of weights beyond five standard deviations that lie in attention; None where there are none."""
    counts = [(t.part, sum(c.count for c in t.beyond if c.sigma == SIGMA)) for t in statistics.tensors]
    total = sum(count for _, count in counts)
    return sum(count for part, count in counts if part == ATTENTION) / total if total else None


def _in_attention(one: ModelWeights) -> bool:
    heaviest = one.statistics.heaviest
    return heaviest is not None and heaviest.part == ATTENTION


def _against_chance(found: int, heavy: Sequence[ModelWeights]) -> float:
    """Return P(at least `found`) if any matrix were as likely to be the heaviest as any other."""
    from scipy.stats import binomtest

    shares = [np.mean([t.part == ATTENTION for t in one.statistics.tensors]) for one in heavy]
    return float(binomtest(found, len(heavy), float(np.mean(shares)), alternative="greater").pvalue)


def _because(chosen: Sequence[ModelWeights], shares: Sequence[float]) -> str:
    heaviest = [one.statistics.heaviest for one in chosen]
    roles = [tensor.role for tensor in heaviest if tensor is not None]
    counted = sorted({role: roles.count(role) for role in roles}.items(), key=lambda pair: (-pair[1], pair[0]))
    own = np.mean(
        [sum(t.n for t in one.statistics.tensors if t.part == ATTENTION) / one.statistics.n for one in chosen]
    )
    parts = [f"The heaviest matrix is {', '.join(f'{role} in {count}' for role, count in counted)} of {len(chosen)}."]
    if shares:
        parts.append(
            f"Attention holds {np.mean(shares):.0%} of the weights beyond {SIGMA} sigma and {own:.0%} of all weights."
        )
    return " ".join(parts)


def _row(one: ModelWeights) -> dict[str, Any]:
    heaviest = one.statistics.heaviest
    return {
        "model": one.model,
        "class": None if one.statistics.kurtosis_class is None else str(one.statistics.kurtosis_class),
        "largest_kurtosis": one.statistics.largest_kurtosis,
        "heaviest": None if heaviest is None else heaviest.name,
        "attention_share_of_outliers": attention_share(one.statistics),
    }
