"""What of each model the established findings look at: its weights, its damage by language, its attention heads.

Shapes: L languages, P decoder layers, H heads of a layer. Floats are float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject, measure_damage
from evenbits.errors import NotApplicableError
from evenbits.models.blueprint import blueprint
from evenbits.observe.activations.lookup import activations
from evenbits.observe.runs import training_run
from evenbits.observe.weights.statistics import TensorSummary, WeightSummary
from evenbits.records import Corpus
from evenbits.studies.h035 import kurtosis_overlap
from evenbits.text.languages import tiers
from evenbits.variants.quantization.spec import QuantSpec

__all__ = [
    "ModelDamage",
    "ModelHeads",
    "ModelWeights",
    "largest_tail",
    "measure_damages",
    "measure_heads",
    "originals_first",
]

Float64 = NDArray[np.float64]

SINK_LANGUAGES = 8
"""Attention to the first token hardly differs between languages: so many of them, spread evenly, are enough."""


def largest_tail(tensors: Sequence[TensorSummary]) -> float | None:
    """Return the largest excess kurtosis of a tensor, at least what chance gives; None where no tensor has spread.

    A normal sample of n values has an excess kurtosis with standard error sqrt(24 / n): below that there is nothing to
    take the logarithm of, or to grow from.
    """
    tails = [max(t.kurtosis, math.sqrt(24 / t.n)) for t in tensors if t.kurtosis is not None]
    return max(tails, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelWeights:
    """Weight statistics of one model.

    `run`: its training run; checkpoints and changed copies of one training are one unit. `trained_bytes`: of all
    languages together, None where it is not known.
    """

    model: str
    run: str
    statistics: WeightSummary
    trained_bytes: int | None = None

    @classmethod
    def of(cls, model: Subject) -> ModelWeights:
        exposure = model.local.exposure
        return cls(
            model=model.local.text,
            run=training_run(model.local.text),
            statistics=model.weight_statistics(),
            trained_bytes=None if exposure is None else sum(exposure.values()),
        )


def originals_first(models: Sequence[ModelWeights]) -> list[ModelWeights]:
    """Return the models in their order, but those their run is named after before changed copies of them."""
    return sorted(models, key=lambda one: training_run(one.model) != one.run)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDamage:
    """Damage of one model under one spec by language, and what may go with it.

    `tail`: largest excess kurtosis of a tensor. `tier`: `low` or `high` by language. `tokens` [L]: on the same
    segments, so that their ratios are token parity. `damage`: degradation metric -> [L]. `floor`: what a mean damage
    must exceed to enter a ratio, in excess bits. `outliers` [L]: share of a language's activation energy that enters
    heavy-tailed weights.
    """

    model: str
    run: str
    tail: float | None
    languages: tuple[str, ...]
    tier: Mapping[str, str]
    tokens: Float64
    damage: Mapping[str, Float64]
    floor: float
    outliers: Float64


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelHeads:
    """Attention heads of one model.

    `sink` [P, H]: mean attention mass on the first token. `output_kurtosis` [P, H]: mean kurtosis of the columns of the
    attention output product that read the head. `query_kurtosis`: the same of the head's rows of the query product,
    None where queries have no product of their own.
    """

    model: str
    run: str
    sink: Float64
    output_kurtosis: Float64
    query_kurtosis: Float64 | None


def measure_damages(model: Subject, spec: QuantSpec, corpus: Corpus, probe: Corpus) -> ModelDamage:
    """Measure damage on `corpus`, and on `probe` where the languages' activations go."""
    base = spec.base
    table = measure_damage(model, [base], corpus)
    column = table.columns[str(base)]
    by_metric = {name: values.mean(axis=1) for name, values in table.degradation(str(base)).items()}
    statistics = model.weight_statistics()
    used = activations(model.on_demand(), probe, store=model.store, progress=model.progress)
    overlap = kurtosis_overlap(used, statistics)
    return ModelDamage(
        model=model.local.text,
        run=training_run(model.local.text),
        tail=largest_tail(statistics.tensors),
        languages=table.languages,
        tier=tiers(table.languages, exposure=model.local.exposure),
        tokens=np.array([float(column.full[tag].tokens.sum()) for tag in table.languages]),
        damage=by_metric,
        floor=column.floor,
        outliers=overlap.quantile_form,
    )


def measure_heads(model: Subject, probe: Corpus) -> ModelHeads:
    """Measure each head's attention to the first token on `probe`, and how heavy the tails of its weights are.

    `NotApplicableError` where a layer gives no attention weights.
    """
    statistics = model.weight_statistics()
    places = np.unique(np.linspace(0, len(probe.languages) - 1, SINK_LANGUAGES).astype(int))
    chosen = [probe.languages[place] for place in places]
    found = activations(model.on_demand(), probe, store=model.store, languages=chosen, progress=model.progress)
    masses = [one.sink_mass for one in found.values() if one.sink_mass is not None]
    if len(masses) < len(found):
        raise NotApplicableError(
            f"some layers of {model.local.text} give no attention weights (a state space, a convolution or linear "
            "attention mixes tokens there, or transformers hands none out), so sinks cannot be measured in every layer"
        )
    sink = np.mean(masses, axis=0)
    heads = sink.shape[1]
    blocks = blueprint(model.local, store=model.store).anatomy.blocks
    outputs = [statistics[block.attention_product] for block in blocks]
    queries = [statistics[t.name] for t in statistics.tensors if t.role == "q_proj"]
    return ModelHeads(
        model=model.local.text,
        run=training_run(model.local.text),
        sink=sink,
        # heads lie side by side in the inputs of the output product, and in the outputs of the query product
        output_kurtosis=np.stack([by_head(t.column_kurtosis, heads) for t in outputs]),
        query_kurtosis=np.stack([by_head(t.row_kurtosis, heads) for t in queries])
        if len(queries) == len(outputs)
        else None,
    )


def by_head(values: Float64, heads: int) -> Float64:
    """Return the mean of each head's share of `values`, which lie head by head."""
    return np.asarray(values.reshape(heads, -1).mean(axis=1))
