"""Which of several models to quantize: an order with its reasons.

Measured, models are ordered by what they lose: the text is the same for all of them, so bits per segment compare.
Without measuring, by how heavy the tails of their weights are; the reference models say what that is worth.

Shapes: M models, L languages, S segments, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject, measure_damage
from evenbits.estimates import Estimate
from evenbits.numbers import counted
from evenbits.observe.runs import training_run
from evenbits.records import Corpus
from evenbits.statistics import (
    CrossedBootstrap,
    Design,
    Outcome,
    cluster_means,
    crossed_bootstrap,
    over_all,
    percentile_interval,
    pooled_means,
    spearman,
)
from evenbits.studies.h037.classes import SIGMA, class_by_weights
from evenbits.studies.h037.friendliness import MIN_RUNS, RECOVERED_PERCENT
from evenbits.text.languages import families_of
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["Candidate", "Ranked", "Ranking", "measure_candidate", "rank_models", "weigh_candidate", "worth_of_weights"]

Float64 = NDArray[np.float64]

BARE, KEPT = 0, 1

FEWEST_SEGMENTS = 3
"""Segments below which there are no intervals, and models cannot be told apart: drawing from two tells two extremes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model with what speaks for and against quantizing it.

    `run`: its training run. `sparsity_class`, `kurtosis_class`, `largest_kurtosis`, `heaviest` (the matrix that has
    it), `beyond` (share of weights beyond five standard deviations) and `concentration` come from its weights.
    `languages`, `excess` [2, L, S] (excess bits with nothing kept, and with the largest .1 % kept), `floor` and
    `bits_per_weight` of the bare grid: None where damage was not measured.
    """

    model: str
    run: str
    sparsity_class: str
    kurtosis_class: str | None
    largest_kurtosis: float | None
    heaviest: str | None
    beyond: float
    concentration: float
    languages: tuple[str, ...] = ()
    excess: Float64 | None = None
    floor: float | None = None
    bits_per_weight: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A candidate at its place: models that cannot be told apart share a `rank`. `reasons`: phrases, the first decides.

    `damage`: mean excess bits per segment; `pooled`: the same of pooled languages, by which models are ordered.
    `recovered`: share of it that keeping the largest .1 % takes away.
    """

    rank: int
    candidate: Candidate
    damage: Estimate
    pooled: Estimate
    recovered: Estimate
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        one = self.candidate
        return {
            "rank": self.rank,
            "model": one.model,
            "sparsity_class": one.sparsity_class,
            "kurtosis_class": one.kurtosis_class,
            "largest_kurtosis": one.largest_kurtosis,
            "heaviest": one.heaviest,
            "share_beyond_5_sigma": one.beyond,
            "concentration_ratio": one.concentration,
            "bits_per_weight": one.bits_per_weight,
            "damage": self.damage.to_json(),
            "pooled": self.pooled.to_json(),
            "recovered": self.recovered.to_json(),
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Models, the best candidate first. `by`: `damage` or `weights`."""

    by: str
    models: tuple[Ranked, ...]


def weigh_candidate(model: Subject, *, run: str | None = None) -> Candidate:
    """Return a candidate from its weights alone; no model is loaded. `run`: where it is not what the name says."""
    statistics = model.weight_statistics()
    heaviest, kurtosis_class = statistics.heaviest, statistics.kurtosis_class
    return Candidate(
        model=model.local.text,
        run=training_run(model.local.text) if run is None else run,
        sparsity_class=class_by_weights(statistics.tensors),
        kurtosis_class=None if kurtosis_class is None else str(kurtosis_class),
        largest_kurtosis=statistics.largest_kurtosis,
        heaviest=None if heaviest is None else heaviest.name,
        beyond=statistics.beyond(SIGMA).share,
        concentration=statistics.weighted("concentration"),
    )


def measure_candidate(model: Subject, spec: QuantSpec, text: Corpus, *, run: str | None = None) -> Candidate:
    """Return a candidate with its damage on `text` under the grid of `spec`, and with the largest .1 % kept."""
    bare = spec.base
    kept = bare.with_keep(RECOVERED_PERCENT, "magnitude")
    table = measure_damage(model, [bare, kept], text)
    column = table.columns[str(bare)]
    return replace(
        weigh_candidate(model, run=run),
        languages=table.languages,
        excess=np.stack([table.excess_bits(str(one)) for one in (bare, kept)]),
        floor=column.floor,
        bits_per_weight=column.bits_per_weight,
    )


def rank_models(candidates: Sequence[Candidate], *, rng: np.random.Generator) -> Ranking:
    """Order candidates: by measured damage where all have it, else by the weight of their tails.

    By damage: by the mean over languages of their pooled damage, drawn towards family and all languages as far as
    segments are few. A model shares the rank of the best one from which it cannot be told: the 95 % interval of their
    difference, over segments, families and languages that are drawn for both at once and as wide as few of these call
    for, holds zero, or there are fewer than `FEWEST_SEGMENTS`, which tell nothing apart. Among equals, the one
    of which keeping .1 % recovers more stands first. By weights, models of one kurtosis class share a rank.
    """
    if not candidates:
        raise ValueError("there is nothing to rank")
    if any(one.excess is None for one in candidates):
        return _by_weights(candidates)
    if len({one.languages for one in candidates}) > 1:
        raise ValueError("candidates must be measured on the same languages")
    drawn, design = _bootstrap(candidates, rng), over_all(candidates[0].languages, families_of(candidates[0].languages))
    means = [_language_means(one) for one in candidates]
    pooled = [_pooled(one) for one in candidates]
    raw = drawn.value[:, BARE].tolist()  # too few languages or segments to pool: as they were measured
    order = sorted(range(len(candidates)), key=lambda place: raw[place] if (v := pooled[place].value) is None else v)
    few = _too_few(candidates[0])
    ranks = _shared_ranks(order, lambda leader, place: bool(few) or _indistinct(drawn, design, means, leader, place))
    recovered = [_recovered(one, drawn, design, place) for place, one in enumerate(candidates)]
    order.sort(key=lambda place: (ranks[place], -(recovered[place].value or 0.0)))
    return Ranking(
        by="damage",
        models=tuple(
            Ranked(
                rank=ranks[place],
                candidate=candidates[place],
                damage=damage,
                pooled=pooled[place],
                recovered=recovered[place],
                reasons=(_damage_reason(candidates[place], damage), *_reasons(candidates[place], recovered[place])),
            )
            for place in order
            for damage in [_damage(candidates[place], drawn, design, place)]
        ),
    )


def worth_of_weights(
    candidates: Sequence[Candidate], *, rng: np.random.Generator, known: Mapping[str, float] | None = None
) -> Outcome:
    """Return how well the order by weights agrees with the order by measured damage: Spearman over training runs.

    `known`: mean damage by model where it was measured elsewhere, by default the candidates' own. Undefined below eight
    runs: so few say nothing about others.
    """
    if known is None:
        known = {one.model: float(one.excess[BARE].mean()) for one in candidates if one.excess is not None}
    measured = [one for one in candidates if one.model in known and one.largest_kurtosis is not None]
    runs = [one.run for one in measured]
    if len(set(runs)) < MIN_RUNS:
        reason = f"{len(set(runs))} measured training runs, needed {MIN_RUNS}"
        return Outcome.undefined(reason, n=len(set(runs)), method="Spearman rho")
    tails = cluster_means([float(one.largest_kurtosis or 0.0) for one in measured], runs)[1]
    damage = cluster_means([known[one.model] for one in measured], runs)[1]
    return spearman(tails, damage, rng=rng, alternative="greater")


def _by_weights(candidates: Sequence[Candidate]) -> Ranking:
    def tail(place: int) -> float:
        kurtosis = candidates[place].largest_kurtosis
        return -math.inf if kurtosis is None else kurtosis

    order = sorted(range(len(candidates)), key=tail)
    ranks = _shared_ranks(
        order, lambda leader, place: candidates[leader].kurtosis_class == candidates[place].kurtosis_class
    )
    nothing = Estimate.undefined("not measured")
    return Ranking(
        by="weights",
        models=tuple(
            Ranked(
                rank=ranks[place],
                candidate=candidates[place],
                damage=nothing,
                pooled=nothing,
                recovered=nothing,
                reasons=_reasons(candidates[place], nothing),
            )
            for place in order
        ),
    )


def _shared_ranks(order: Sequence[int], alike: Callable[[int, int], bool]) -> dict[int, int]:
    """Return the rank of each place: it shares that of its group's leader as long as it is `alike`."""
    ranks: dict[int, int] = {}
    leader = order[0]
    for position, place in enumerate(order, start=1):
        if place != leader and not alike(leader, place):
            leader = place
        ranks[place] = position if place == leader else ranks[leader]
    return ranks


def _bootstrap(candidates: Sequence[Candidate], rng: np.random.Generator) -> CrossedBootstrap:
    """Return mean excess bits [M, 2] with resamples, segments and languages drawn for all models at once."""
    table = np.stack([one.excess for one in candidates if one.excess is not None])  # [M, 2, L, S]
    shape = table.shape[:2]
    damage = {tag: table[:, :, place].reshape(-1, table.shape[-1]) for place, tag in enumerate(candidates[0].languages)}
    return crossed_bootstrap(
        damage,
        lambda means_BLK: np.asarray(means_BLK.mean(axis=1)).reshape(-1, *shape),
        rng=rng,
        families=families_of(candidates[0].languages),
    )


def _pooled(one: Candidate) -> Estimate:
    """Return the mean over languages of their pooled damage."""
    excess_LS = np.empty((0, 0)) if one.excess is None else one.excess[BARE]
    found = pooled_means(dict(zip(one.languages, excess_LS, strict=True)), families_of(one.languages))
    known = [each.value for each in found.values() if each.value is not None]
    if len(known) < len(found):
        return next(iter(found.values()))
    method = "mean over languages of pooled damage"
    return Estimate(value=float(np.mean(known)), n=len(known), method=method, reason="no interval: see `damage`")


def _language_means(one: Candidate) -> Float64:
    """Return mean excess bits of each language with nothing and with the largest .1 % kept, [2, L]."""
    return np.empty((2, 0)) if one.excess is None else one.excess.mean(axis=2)


def _too_few(one: Candidate) -> str:
    """Return why there are no intervals, empty where there are."""
    segments = 0 if one.excess is None else one.excess.shape[-1]
    short = segments < FEWEST_SEGMENTS
    return f"no interval: {counted(segments, 'segment')}, {FEWEST_SEGMENTS} needed" if short else ""


def _damage(one: Candidate, drawn: CrossedBootstrap, design: Design, place: int) -> Estimate:
    what, few = "mean excess bits per segment", _too_few(one)
    if few:
        return Estimate(value=float(drawn.value[place, BARE]), n=len(one.languages), method=what, reason=few)
    return drawn.widened((place, BARE), design, _language_means(one)[BARE], what=what)


def _indistinct(drawn: CrossedBootstrap, design: Design, means: Sequence[Float64], leader: int, place: int) -> bool:
    value = float(drawn.value[place, BARE] - drawn.value[leader, BARE])
    replicates = drawn.replicates[:, place, BARE] - drawn.replicates[:, leader, BARE]
    low, high = percentile_interval(design.widened(value, replicates, means[place][BARE] - means[leader][BARE]))
    return low <= 0 <= high


def _recovered(one: Candidate, drawn: CrossedBootstrap, design: Design, place: int) -> Estimate:
    what = f"share of damage that keeping the largest {RECOVERED_PERCENT} % recovers"
    before, after = (float(value) for value in drawn.value[place])
    if few := _too_few(one):
        return Estimate.undefined(f"damage has {few}", method=what)
    if before <= (one.floor or 0.0):
        return Estimate.undefined("the damage is not above three noise floors: nothing to recover", method=what)
    bare_L, kept_L = _language_means(one)
    bare, kept = drawn.replicates[:, place, BARE], drawn.replicates[:, place, KEPT]
    if percentile_interval(bare)[0] <= 0:  # a share of what may be nothing has no bounds
        return Estimate.undefined("the damage is not clearly above zero: nothing to recover", method=what)
    share = 1 - after / before
    shares = 1 - np.divide(kept, bare, out=np.full(len(bare), -np.inf), where=bare > 0)
    own = (after / before * bare_L - kept_L) / before  # what each language moves the share by, to first order
    low, high = percentile_interval(design.widened(share, shares, own))
    return Estimate(
        value=share,
        low=low,
        high=high,
        n=len(one.languages),
        method=f"{what}; {drawn.method}, 95% percentile interval",
    )


def _damage_reason(one: Candidate, damage: Estimate) -> str:
    if damage.value is not None and damage.value <= (one.floor or 0.0):
        return "no damage above three noise floors"
    value = "undefined" if damage.value is None else f"{damage.value:.3g}"
    return f"loses {value} bits per segment"


def _reasons(one: Candidate, recovered: Estimate) -> tuple[str, ...]:
    """Return what speaks for or against a candidate beside its damage."""
    tails = "weights without spread"
    if one.largest_kurtosis is not None:
        tails = f"{one.kurtosis_class} tails (kurtosis {one.largest_kurtosis:.3g} in {one.heaviest})"
    outliers = {
        "no outliers": "no outliers: nothing to keep, spend bits on smaller groups",
        "sparse": "sparse outliers: keeping few of them is cheap",
        "dense": "dense outliers: smaller groups or protected layers, not single weights",
    }[one.sparsity_class]
    if recovered.value is not None:
        clear = recovered.low is not None and recovered.low > 0
        share = f"recovers {recovered.value:.0%} of the damage"
        outliers += f"; keeping {RECOVERED_PERCENT} % {share if clear else 'does not clearly help'}"
    return tails, outliers
