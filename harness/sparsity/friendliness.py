"""Sparsity across models: does it go with damage, and with how much of the damage a fixed k recovers?

The unit is the training run: checkpoints of one run are averaged, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.damage import ModelUnderTest, measure_damage
from harness.damage_table import FLOORS_NEEDED
from harness.estimates import Estimate, Finding, Verdict
from harness.quantization.spec import QuantSpec
from harness.records import Corpus
from harness.sparsity.ablation import ablation_sample
from harness.sparsity.runs import training_run
from harness.statistics import cluster_means, spearman

__all__ = ["MIN_MODELS", "RECOVERED_PERCENT", "ModelPoint", "across_models", "measure_point"]

MIN_MODELS = 8
RECOVERED_PERCENT = "0.1"
"""k at which models are compared by the share of damage it recovers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPoint:
    """One model of the cross-model correlation.

    `cluster`: the training run; checkpoints of one run are one unit. `sparsity`: concentration ratio of its weights.
    `damage`: mean excess bits with nothing kept. `recovered`: share of it that keeping a fixed k takes away; None where
    it was not measured, or there is no damage to recover.
    """

    model: str
    cluster: str
    sparsity: float
    damage: float | None = None
    recovered: float | None = None


def measure_point(model: ModelUnderTest, base: QuantSpec, corpus: Corpus, *, models: int) -> ModelPoint:
    """Return a model's point; damage is measured only where there are `models` enough for a correlation."""
    text = model.local.text
    sparsity = model.weight_statistics().weighted("concentration")
    if models < MIN_MODELS:
        return ModelPoint(model=text, cluster=training_run(text), sparsity=sparsity)
    bare = base.base
    kept = bare.with_keep(RECOVERED_PERCENT, "magnitude")
    table = measure_damage(model, [bare, kept], ablation_sample(corpus))
    before, after = (float(table.excess_bits(str(spec)).mean()) for spec in (bare, kept))
    floor = FLOORS_NEEDED * (table.columns[str(bare)].floor_bits.value or 0.0)
    return ModelPoint(
        model=text,
        cluster=training_run(text),
        sparsity=sparsity,
        damage=before,
        recovered=1 - after / before if before > floor else None,
    )


def across_models(points: Sequence[ModelPoint], *, rng: np.random.Generator) -> Finding:
    """Whether models with sparser outliers recover more of their damage at the same k (Spearman; unit = training run).

    Below eight training runs the verdict is `underpowered`, and no coefficient is given.
    """
    usable = [point for point in points if point.recovered is not None]
    given = len({point.cluster for point in points})
    clusters = len({point.cluster for point in usable})
    if clusters < MIN_MODELS:
        few = given < MIN_MODELS
        shown = given if few else clusters
        runs = f"{shown} training run{'' if shown == 1 else 's'}"
        reason = f"{runs}{'' if few else ' with damage above the floor'}, needed {MIN_MODELS}"
        return Finding(
            estimate=Estimate.undefined(reason, n=clusters, method="Spearman's rho over models"),
            verdict=Verdict.UNDERPOWERED,
            because=f"{reason}. Add models with more --model options.",
            summary=reason,
            data={"points": [_point_row(point) for point in points]},
        )
    labels = [point.cluster for point in usable]
    _, sparsity = cluster_means([point.sparsity for point in usable], labels)
    _, recovered = cluster_means([float(point.recovered or 0.0) for point in usable], labels)
    _, damage = cluster_means([float(point.damage or 0.0) for point in usable], labels)
    outcome = spearman(sparsity, recovered, rng=rng, alternative="greater")
    with_damage = spearman(sparsity, damage, rng=rng)
    if outcome.estimate.value is None or outcome.p_value is None:
        return Finding(
            estimate=outcome.estimate,
            verdict=Verdict.NOT_APPLICABLE,
            because=f"There is no correlation to speak of: {outcome.estimate.reason or outcome.p_method}.",
            data={"points": [_point_row(point) for point in points]},
        )
    return Finding(
        estimate=outcome.estimate,
        p_value=outcome.p_value,
        verdict=None if outcome.p_value < 0.05 else Verdict.NOT_SUPPORTED,
        because=f"Permutation p {outcome.p_value:.3g}; against damage itself rho "
        + ("undefined" if with_damage.estimate.value is None else f"{with_damage.estimate.value:.2f}")
        + ".",
        also={"sparsity_against_damage": with_damage.estimate},
        summary=f"sparsity against recovered damage over {clusters} models",
        data={"points": [_point_row(point) for point in points]},
    )


def _point_row(point: ModelPoint) -> dict[str, Any]:
    return {
        "model": point.model, "cluster": point.cluster, "sparsity": point.sparsity, "damage": point.damage,
        "recovered": point.recovered,
    }  # fmt: skip
