"""H-037: are a model's outlier weights sparse, dense, or absent, and does it matter?

The class comes twice: from the weights (how many lie beyond five standard deviations) and from ablation (how much more
the largest weights carry than random ones). Super weights are searched through activation spikes and confirmed by
zeroing them. Across models, sparsity is correlated with how much of the damage a fixed k recovers.

Legend: L languages, S segments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.damage import FULL_PRECISION, ModelUnderTest, Variant, measure_damage
from harness.damage_table import FLOORS_NEEDED
from harness.estimates import Estimate, Finding, Verdict
from harness.quantization.spec import QuantSpec
from harness.records import Corpus
from harness.statistics import CrossedBootstrap, cluster_means, crossed_bootstrap, spearman, stability
from harness.weights import SuperWeightCandidate, TensorStatistics, WeightStatistics

if TYPE_CHECKING:
    from harness.models import LoadedModel

__all__ = [
    "Ablation",
    "ModelPoint",
    "SuperWeight",
    "ablate",
    "across_models",
    "class_by_ablation",
    "class_by_weights",
    "clear_pattern",
    "find_super_weights",
    "measure_point",
    "outliers_by_size",
    "super_weights",
    "training_run",
]

SIGMA = 5
NO_OUTLIERS_BELOW = 1e-5
DENSE_ABOVE = 1e-3
"""Cut-offs of the share of weights beyond five standard deviations of their tensor. A normal distribution has 5.7e-7;
twenty times that is the least that is called outliers. The programme contrasts super weights (.01 %) with general
outliers (1 %): their geometric mean, .1 %, divides sparse from dense."""

SHARES = (1e-4, 1e-2)
"""Zeroed by ablation: super-weight scale and general-outlier scale."""
CONCENTRATED = 2.0
"""By ablation the largest weights are outliers where zeroing them costs at least twice what a normal distribution's
larger energy at its tails explains."""
RANDOM_DRAWS = 3
SUPER_FACTOR = 2.0
CANDIDATES = 5
MIN_MODELS = 8
RECOVERED_PERCENT = "0.1"
"""k at which models are compared by the share of damage it recovers."""

ABLATION_LANGUAGES = 10
ABLATION_SEGMENTS = 8
"""Ablations compare means over everything, so a sample of the corpus is enough: 80 segments, spread evenly."""

FloatArray = NDArray[np.float64]
Places = Mapping[str, NDArray[np.int64]]


def class_by_weights(tensors: Sequence[TensorStatistics]) -> str:
    """Return `sparse`, `dense` or `no outliers` from the pooled share of weights beyond five standard deviations."""
    count = sum(c.count for tensor in tensors for c in tensor.beyond if c.sigma == SIGMA)
    share = count / sum(tensor.n for tensor in tensors)
    if share < NO_OUTLIERS_BELOW:
        return "no outliers"
    return "dense" if share > DENSE_ABOVE else "sparse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Excess bits [L, S] after zeroing a `share` of every linear tensor: the largest, and random ones.

    `random` is the mean of several draws; `floor_bits` the standard deviation of their means.
    """

    share: float
    top: FloatArray
    random: FloatArray
    floor_bits: float

    @property
    def concentration(self) -> float | None:
        """Damage of the largest over damage of random weights, over what a normal distribution would give.

        Damage of zeroing goes with the energy removed. The largest share p of a normal distribution holds
        2 (z phi(z) + p / 2) of its energy, z its quantile at 1 - p / 2; random weights hold p. 1 is normal. Random
        damage counts as at least the noise floor; None where the largest weights do no measurable damage.
        """
        top = float(self.top.mean())
        if top <= self.floor_bits:
            return None
        return top / max(float(self.random.mean()), self.floor_bits) / normal_energy_ratio(self.share)


def normal_energy_ratio(share: float) -> float:
    """Return energy of the largest `share` of a normal distribution over energy of a random `share`: 17.0 at .01 %."""
    z = -NormalDist().inv_cdf(share / 2)
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return 2 * (z * density + share / 2) / share


def ablate(model: ModelUnderTest, corpus: Corpus) -> dict[float, Ablation]:
    """Zero the largest and, in three draws, random weights of every linear tensor, and measure what it costs."""
    sample = ablation_sample(corpus)
    full = _stacked(model, FULL_PRECISION, sample)
    return {share: _ablation(model, sample, full, share) for share in SHARES}


def ablation_sample(corpus: Corpus) -> Corpus:
    """Return languages and segments spread evenly over the corpus."""
    languages = np.unique(np.linspace(0, len(corpus.languages) - 1, ABLATION_LANGUAGES).astype(int))
    segments = np.unique(np.linspace(0, len(corpus) - 1, ABLATION_SEGMENTS).astype(int))
    return corpus.select(
        languages=tuple(corpus.languages[i] for i in languages), indices=tuple(int(i) for i in segments)
    )


def _ablation(model: ModelUnderTest, sample: Corpus, full: FloatArray, share: float) -> Ablation:
    def excess(kind: str, draw: int) -> FloatArray:
        key: dict[str, Any] = {"zeroed": kind, "share": share}
        if kind == "random":
            key |= {"seed": model.seed, "draw": draw}
        apply = partial(_zeroing, share=share, kind=kind, seed=[model.seed, draw])
        label = f"{share:.2%} {'largest' if kind == 'top' else 'random'} weights zeroed"
        return _stacked(model, Variant(label=label, key=key, apply=apply, divergence=False), sample) - full

    random = [excess("random", draw) for draw in range(RANDOM_DRAWS)]
    # What one draw moves against another is the noise below which a difference means nothing.
    noise = float(np.std([draw.mean() for draw in random], ddof=1))
    return Ablation(share=share, top=excess("top", 0), random=np.mean(random, axis=0), floor_bits=max(noise, 1e-3))


def _zeroing(loaded: LoadedModel, *, share: float, kind: str, seed: Sequence[int]) -> AbstractContextManager[None]:
    import torch

    from harness.quantization import zeroed
    from harness.quantization.patching import checkpoint_source
    from harness.weights.outliers import random_positions, top_positions

    source = checkpoint_source(loaded)
    places = {}
    for number, linear in enumerate(loaded.anatomy.linears):
        weight = source(linear.name).numpy()
        top = top_positions(weight, share, name=linear.name)
        rng = np.random.default_rng([*seed, number])
        chosen = top if kind == "top" else random_positions(weight.size, top, rng=rng)
        places[linear.name] = torch.from_numpy(chosen)
    return zeroed(loaded, places)


def _stacked(model: ModelUnderTest, variant: Variant, corpus: Corpus) -> FloatArray:
    losses = model.losses(variant, corpus)
    return np.stack([losses[tag].nll for tag in corpus.languages]) / math.log(2)


def class_by_ablation(ablations: Mapping[float, Ablation]) -> str:
    """Return the class by what the largest weights carry beyond a normal distribution's tails."""
    few, many = (ablations[share].concentration for share in SHARES)
    if few is not None and few >= CONCENTRATED:
        return "sparse"
    return "dense" if many is not None and many >= CONCENTRATED else "no outliers"


def clear_pattern(
    statistics: WeightStatistics, ablations: Mapping[float, Ablation], *, rng: np.random.Generator
) -> Finding:
    """Whether the sparsity class survives resampling of tensors and agrees with ablation.

    The estimate is the share of bootstrap resamples of the linear tensors that give the class of all.
    """
    held = stability(class_by_weights, statistics.tensors, rng=rng)
    ablated = class_by_ablation(ablations)
    agrees = ablated == held.label
    share = held.estimate.value or 0.0
    return Finding(
        estimate=held.estimate,
        verdict=None if agrees else Verdict.NOT_SUPPORTED,
        because=f"By weights the class is {held.label} ({statistics.beyond(SIGMA).share:.2g} beyond {SIGMA} sigma), "
        f"by ablation {ablated} ({_concentrations(ablations)}).",
        summary=f"{held.label}; same class in {share:.0%} of resamples, "
        f"{'agrees with' if agrees else f'but {ablated} by'} ablation; {statistics.kurtosis_class or 'no spread'}",
        action=_advice(held.label, agrees=agrees),
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
            "ablation": [_ablation_row(one) for one in ablations.values()],
            "tensors": [tensor.to_json() for tensor in statistics.tensors],
        },
    )


def _advice(label: str, *, agrees: bool) -> str:
    if not agrees:
        return "Weights and ablation disagree on the outliers; measure retention (H-039) before relying on either."
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


def _ablation_row(ablation: Ablation) -> dict[str, Any]:
    return {
        "share": ablation.share,
        "top_bits": float(ablation.top.mean()),
        "random_bits": float(ablation.random.mean()),
        "floor_bits": ablation.floor_bits,
        "concentration": ablation.concentration,
    }


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
    damage = {str(place): np.stack([few.top[place], many.top[place]]) for place in range(len(few.top))}
    ratio = _ratio(damage, rng)
    layers = _layers_holding_half(statistics)
    total = len({tensor.layer for tensor in statistics.tensors})
    return Finding(
        estimate=ratio.estimate(what="ratio of mean damages"),
        because=_where(layers, total),
        summary=f"largest .01 % cost {float(few.top.mean()):.1f} bits per segment, "
        f"largest 1 % {float(many.top.mean()):.1f}"
        + (f"; half of the outliers sit in {layers} of {total} layers" if layers else "; no weight beyond 5 sigma"),
        data={"ablation": [_ablation_row(few), _ablation_row(many)], "layers_holding_half": layers, "layers": total},
    )


def _where(layers: int, total: int) -> str:
    if layers == 0:
        return f"No weight lies beyond {SIGMA} sigma."
    return f"Half of all weights beyond {SIGMA} sigma sit in {layers} of {total} layers."


def _ratio(damage: Mapping[str, FloatArray], rng: np.random.Generator) -> CrossedBootstrap:
    def of_means(means_BLK: FloatArray) -> FloatArray:
        both = means_BLK.mean(axis=1)
        return np.asarray(np.divide(both[:, 0], both[:, 1], out=np.full(len(both), np.nan), where=both[:, 1] > 0))

    return crossed_bootstrap(damage, of_means, rng=rng)


def _layers_holding_half(statistics: WeightStatistics) -> int:
    by_layer: dict[int | None, int] = {}
    for tensor in statistics.tensors:
        beyond = sum(count.count for count in tensor.beyond if count.sigma == SIGMA)
        by_layer[tensor.layer] = by_layer.get(tensor.layer, 0) + beyond
    ordered = np.sort(np.array(list(by_layer.values())))[::-1]
    if ordered.sum() == 0:
        return 0
    return int(np.searchsorted(np.cumsum(ordered), ordered.sum() / 2) + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperWeight:
    """A candidate with what zeroing it does: the factor on perplexity per token, over the sampled text."""

    candidate: SuperWeightCandidate
    factor: float


def find_super_weights(
    model: ModelUnderTest, candidates: Iterable[SuperWeightCandidate], corpus: Corpus
) -> tuple[SuperWeight, ...]:
    """Zero each candidate on its own and return them with their factor on perplexity, largest first."""
    sample = ablation_sample(corpus)
    full = model.losses(FULL_PRECISION, sample)
    tokens = sum(int(losses.tokens.sum()) for losses in full.values())
    before = sum(float(losses.nll.sum()) for losses in full.values())
    found = []
    for candidate in list(candidates)[:CANDIDATES]:
        place = f"{candidate.name}[{candidate.row}, {candidate.column}]"
        apply: Callable[[LoadedModel], AbstractContextManager[None]] = partial(_without, candidate=candidate)
        variant = Variant(label=f"{place} zeroed", key={"zeroed": place}, apply=apply, divergence=False)
        after = sum(float(losses.nll.sum()) for losses in model.losses(variant, sample).values())
        found.append(SuperWeight(candidate=candidate, factor=math.exp((after - before) / tokens)))
    return tuple(sorted(found, key=lambda one: -one.factor))


def _without(loaded: LoadedModel, *, candidate: SuperWeightCandidate) -> AbstractContextManager[None]:
    import torch

    from harness.quantization import zeroed
    from harness.quantization.patching import shapes_of

    width = shapes_of(loaded.model, loaded.anatomy)[candidate.name][1]
    return zeroed(loaded, {candidate.name: torch.tensor([candidate.row * width + candidate.column])})


def super_weights(found: Sequence[SuperWeight]) -> Finding:
    """Whether zeroing a single weight multiplies perplexity at least twofold. The estimate is the largest factor."""
    if not found:
        reason = "no layer has an MLP down projection to look for spikes at"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    best = found[0]
    place = f"{best.candidate.name}[{best.candidate.row}, {best.candidate.column}]"
    many = sum(one.factor >= SUPER_FACTOR for one in found)
    return Finding(
        estimate=Estimate(
            value=best.factor, n=len(found),
            method="factor on perplexity per token when one weight is zeroed, largest of the candidates from spikes",
            reason="no interval: the largest of a few single ablations",
        ),
        because=f"Zeroing {place} multiplies perplexity by {best.factor:.3g}.",
        summary=f"{many or 'no'} super weight{'' if many == 1 else 's'}: {place} x {best.factor:.3g} perplexity",
        action=f"Keep {place} in high precision." if many else None,
        data={
            "candidates": [
                {
                    "name": one.candidate.name, "row": one.candidate.row, "column": one.candidate.column,
                    "weight": one.candidate.weight, "input_peak": one.candidate.input_peak,
                    "output_peak": one.candidate.output_peak, "explained": one.candidate.explained,
                    "factor": one.factor,
                }
                for one in found
            ]
        },
    )  # fmt: skip


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


def training_run(text: str) -> str:
    """Return the training run that a model belongs to: its name without a step, `run-s100` or `id@step100`."""
    return re.sub(r"(-s|@step)\d+$", "", text)


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
