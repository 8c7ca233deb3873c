"""Sparsity across models: does it go with damage, and with how much of the damage a fixed k recovers?

The unit is the training run: checkpoints of one run are averaged, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evenbits.cells import Subject, measure_damage
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.runs import training_run
from evenbits.records import Corpus
from evenbits.rows import Row
from evenbits.statistics import cluster_means, leave_group_out, spearman
from evenbits.variants.quantization.spec import QuantSpec

__all__ = [
    "MIN_RUNS",
    "RECOVERED_PERCENT",
    "ModelPoint",
    "across_models",
    "against_damage",
    "measure_point",
    "point_specs",
]

MIN_RUNS = 8
RECOVERED_PERCENT = "0.1"
"""k at which models are compared by the share of damage it recovers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPoint(Row):
    """One model of the cross-model correlations.

    `run`: the training run; checkpoints of one run are one unit. `sparsity`: concentration ratio of its weights.
    `damage`: mean excess bits with nothing kept, None where it was not measured or is not above its floor.
    `relative`: the same as a share of the full-precision NLL. `recovered`: share of the damage that keeping a fixed k
    takes away; None where there is no damage to recover.
    """

    KEYS: ClassVar = {"run": "cluster", "relative": "relative_increase"}

    model: str
    run: str
    sparsity: float
    damage: float | None = None
    relative: float | None = None
    recovered: float | None = None


def point_specs(base: QuantSpec) -> tuple[QuantSpec, QuantSpec]:
    """Return the grid with nothing kept, and with the k at which models are compared."""
    return base.base, base.base.with_keep(RECOVERED_PERCENT, "magnitude")


def measure_point(model: Subject, base: QuantSpec, corpus: Corpus) -> ModelPoint:
    """Return a model's point; its training run is what the name says.

    Damage is measured on the whole of `corpus`: a study of retention has left these scores in the store. It is measured
    however few the models are, because they may be the shard of a run over more.
    """
    text = model.local.text
    run = training_run(text)
    sparsity = model.weight_statistics().weighted("concentration")
    bare, kept = point_specs(base)
    table = measure_damage(model, [bare, kept], corpus)
    before, after = (float(table.excess_bits(str(spec)).mean()) for spec in (bare, kept))
    floor = table.columns[str(bare)].floor
    if before <= floor:
        return ModelPoint(model=text, run=run, sparsity=sparsity)
    return ModelPoint(
        model=text,
        run=run,
        sparsity=sparsity,
        damage=before,
        relative=float(table.relative_increase(str(bare)).mean()),
        recovered=1 - after / before,
    )


def across_models(points: Sequence[ModelPoint], *, rng: np.random.Generator) -> Finding:
    """Whether models with sparser outliers recover more of their damage at the same k (Spearman over training runs).

    Below eight training runs the verdict is `underpowered`, and no coefficient is given.
    """
    return _correlated(points, lambda point: point.recovered, "sparsity against recovered damage", rng=rng)


def against_damage(points: Sequence[ModelPoint], *, rng: np.random.Generator) -> Finding:
    """Whether models with sparser outliers lose more while nothing is kept (Spearman over training runs)."""
    return _correlated(
        points,
        lambda point: point.damage,
        "sparsity against damage",
        rng=rng,
        other=("relative_increase", lambda point: point.relative),
    )


Value = Callable[[ModelPoint], float | None]


def _correlated(
    points: Sequence[ModelPoint],
    value: Value,
    what: str,
    *,
    rng: np.random.Generator,
    other: tuple[str, Value] | None = None,
) -> Finding:
    """Return the one-sided Spearman correlation of sparsity with `value` over training runs."""
    usable = [point for point in points if value(point) is not None]
    few = _too_few(points, usable)
    if few is not None:
        return few
    data = {"points": [point.to_json() for point in points]}
    runs, sparsity, values = _by_run(usable, value)
    outcome = spearman(sparsity, values, rng=rng, alternative="greater")
    if outcome.estimate.value is None or outcome.p_value is None:
        return Finding(
            estimate=outcome.estimate,
            verdict=Verdict.NOT_APPLICABLE,
            because=f"There is no correlation to speak of: {outcome.estimate.reason or outcome.p_method}.",
            data=data,
        )
    also = {}
    if other is not None:
        name, second = other
        _, _, seconds = _by_run(usable, second)
        also[name] = spearman(sparsity, seconds, rng=rng, alternative="greater").estimate
    return Finding(
        estimate=outcome.estimate,
        p_value=outcome.p_value,
        shown=outcome.p_value < 0.05,
        because=f"One-sided permutation p {outcome.p_value:.3g}. {_without_one(sparsity, values, runs)}",
        also=also,
        summary=f"{what} over {len(runs)} training runs",
        data=data,
    )


def _by_run(usable: Sequence[ModelPoint], value: Value) -> tuple[tuple[str, ...], Any, Any]:
    labels = [point.run for point in usable]
    runs, sparsity = cluster_means([point.sparsity for point in usable], labels)
    return runs, sparsity, cluster_means([float(value(point) or 0.0) for point in usable], labels)[1]


def _without_one(sparsity: Any, values: Any, runs: Sequence[str]) -> str:
    """Return how far the coefficient moves when one training run is left out: few models can hang on one."""
    left = [one.value for one in leave_group_out(sparsity, values, runs, kind="spearman").values()]
    known = [value for value in left if value is not None]
    return f"Leaving one run out gives {min(known):.2f} to {max(known):.2f}." if known else ""


def _too_few(points: Sequence[ModelPoint], usable: Sequence[ModelPoint]) -> Finding | None:
    given = len({point.run for point in points})
    clusters = len({point.run for point in usable})
    if clusters >= MIN_RUNS:
        return None
    few = given < MIN_RUNS
    shown = given if few else clusters
    runs = f"{shown} training run{'' if shown == 1 else 's'}"
    reason = f"{runs}{'' if few else ' with damage above the floor'}, needed {MIN_RUNS}"
    return Finding(
        estimate=Estimate.undefined(reason, n=clusters, method="Spearman's rho over training runs"),
        verdict=Verdict.UNDERPOWERED,
        because=f"{reason}. Add models with more --model options.",
        summary=reason,
        data={"points": [point.to_json() for point in points]},
    )
