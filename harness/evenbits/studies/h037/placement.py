"""Q3, second half: do the outliers sit in few layers and kinds of matrices, or are they distributed?

Counts say where outlier weights lie. What they do there is measured: the largest weights of one layer, or of one kind
of matrix in all layers, are zeroed alone, and the damage of each is compared.

Legend: U units (layers, or kinds such as `q_proj`), L languages, S segments, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from evenbits.cells import Subject, measure
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.models.anatomy import Linear
from evenbits.observe.weights.statistics import TensorSummary, WeightStatistics
from evenbits.records import Corpus
from evenbits.statistics import crossed_bootstrap
from evenbits.studies.h037.ablation import SHARES, Ablation, FloatArray, ablation_sample
from evenbits.studies.h037.classes import SIGMA
from evenbits.text.languages import families_of
from evenbits.variants.variant import Variant
from evenbits.variants.zeroing import without_largest

__all__ = ["Placement", "members_of", "outliers_in_few_layers", "place_outliers", "placed"]

Level = Literal["layer", "kind"]
LEVELS: tuple[Level, ...] = ("layer", "kind")
SUPER, GENERAL = SHARES


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Excess bits [U, L, S] of zeroing the largest `share` of every tensor of one unit, for each unit of a level."""

    level: Level
    share: float
    units: tuple[str, ...]
    languages: tuple[str, ...]
    excess: FloatArray

    @property
    def bits(self) -> FloatArray:
        """Mean damage of each unit [U]; a gain counts as no damage."""
        return np.asarray(np.maximum(self.excess.mean(axis=(1, 2)), 0.0))

    def effective(self, *, rng: np.random.Generator) -> Estimate:
        """Return the effective share of units, (sum d)^2 / (U sum d^2) over their damages d, with its interval.

        1 / U where one unit does all the damage, 1 where all do the same: the inverse of the Herfindahl index, per
        unit (the participation ratio). The interval is over segments and languages.
        """
        damage = {tag: self.excess[:, place] for place, tag in enumerate(self.languages)}
        drawn = crossed_bootstrap(
            damage,
            lambda means_BLU: effective_share(np.asarray(means_BLU.mean(axis=1))),
            rng=rng,
            families=families_of(self.languages),
        )
        return drawn.estimate(what=f"effective share of {len(self.units)} {self.level}s by ablation damage")


def effective_share(damage_BU: FloatArray) -> FloatArray:
    """Return (sum d)^2 / (U sum d^2) of each row [B], negative damages counted as none; NaN where there is none."""
    d = np.maximum(damage_BU, 0.0)
    squares = (d * d).sum(axis=1)
    share: FloatArray = np.full(len(d), np.nan)
    np.divide(d.sum(axis=1) ** 2, d.shape[1] * squares, out=share, where=squares > 0)
    return share


def place_outliers(model: Subject, corpus: Corpus) -> tuple[Placement, ...]:
    """Zero the largest weights of one layer, and of one kind of matrix, at a time, at both shares of `SHARES`.

    Layers share what stands before them, so that a deep model costs half of its layers.
    """
    sample = ablation_sample(corpus)
    members = members_of(model.weight_statistics().tensors)
    found: list[Placement] = []
    for share in SHARES:
        by_level = placed(members, share)
        for level, variants in by_level.items():
            damage = measure(model, variants, sample)
            excess = np.stack([damage.excess_bits(name) for name in variants])
            found.append(
                Placement(level=level, share=share, units=tuple(variants), languages=damage.languages, excess=excess)
            )
    return tuple(found)


def placed(members: Mapping[Level, Mapping[str, Sequence[str]]], share: float) -> dict[Level, dict[str, Variant]]:
    """Return the variants of one share by level and unit: the largest weights of that unit alone are zeroed."""
    layers = {
        name: without_largest(share, where=f"layer {name}", modules=modules, layer=int(name))
        for name, modules in members["layer"].items()
    }
    kinds = {name: without_largest(share, where=name, modules=modules) for name, modules in members["kind"].items()}
    return {"layer": layers, "kind": kinds}


def members_of(tensors: Iterable[Linear | TensorSummary]) -> dict[Level, dict[str, list[str]]]:
    """Return the module names of every layer and of every kind of matrix, in the model's order."""
    members: dict[Level, dict[str, list[str]]] = {"layer": {}, "kind": {}}
    for tensor in tensors:
        members["layer"].setdefault(str(tensor.layer), []).append(tensor.name)
        members["kind"].setdefault(tensor.role, []).append(tensor.name)
    return members


def outliers_in_few_layers(
    statistics: WeightStatistics,
    ablations: Mapping[float, Ablation],
    placements: Sequence[Placement],
    *,
    rng: np.random.Generator,
) -> Finding:
    """Whether the damage of zeroing the largest 1 % comes from few layers (Q3); the sentence says from which.

    The estimate is the effective share of layers at 1 %. `also`: the same at .01 %, and for kinds of matrices.
    """
    whole = ablations[GENERAL]
    if float(whole.top.mean()) <= whole.floor_bits:
        reason = "zeroing the largest 1 % does no measurable damage, so it lies nowhere"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    by_place = {(one.level, one.share): one for one in placements}
    shares = {place: one.effective(rng=rng) for place, one in by_place.items()}
    main = shares["layer", GENERAL]
    sentences = [_damage_sentence(by_place, shares, share) for share in (GENERAL, SUPER)]
    sentences.append(_weights_sentence(statistics))
    return Finding(
        estimate=main,
        because=" ".join(sentences),
        also={
            "layers_at_super_weights": shares["layer", SUPER],
            "kinds_at_general_outliers": shares["kind", GENERAL],
            "kinds_at_super_weights": shares["kind", SUPER],
        },
        summary=_summary(by_place["layer", GENERAL], by_place["kind", GENERAL]),
        data={
            "placements": [_row(one, shares[place]) for place, one in by_place.items()],
            "weights_beyond_5_sigma": {level: counts_of(statistics, level) for level in LEVELS},
        },
    )


def counts_of(statistics: WeightStatistics, level: Level) -> dict[str, int]:
    """Return how many weights beyond five standard deviations lie in each unit."""
    counts: dict[str, int] = {}
    for tensor in statistics.tensors:
        name = str(tensor.layer) if level == "layer" else tensor.role
        counts[name] = counts.get(name, 0) + sum(c.count for c in tensor.beyond if c.sigma == SIGMA)
    return counts


def holding_half(amounts: Mapping[str, float]) -> tuple[str, ...]:
    """Return the fewest units that hold at least half of the sum, largest first; none where the sum is 0."""
    total = sum(amounts.values())
    chosen: list[str] = []
    held = 0.0
    for name in sorted(amounts, key=lambda name: -amounts[name]):
        if 2 * held >= total:
            break
        chosen.append(name)
        held += amounts[name]
    return tuple(chosen) if total > 0 else ()


def _amounts(one: Placement) -> dict[str, float]:
    return dict(zip(one.units, (float(bits) for bits in one.bits), strict=True))


def _damage_sentence(
    by_place: Mapping[tuple[Level, float], Placement], shares: Mapping[tuple[Level, float], Estimate], share: float
) -> str:
    parts = []
    for level in LEVELS:
        one, effective = by_place[level, share], shares[level, share]
        if effective.value is None:
            return f"Of the largest {share:.2%} no {level} alone does damage."
        amounts = _amounts(one)
        where = _held(amounts, level)
        parts.append(f"{where} (as if spread evenly over {_of(effective, len(one.units))} {level}s)")
    return f"Of the damage of the largest {share:.2%}, {' and '.join(parts)}."


def _weights_sentence(statistics: WeightStatistics) -> str:
    counts = {level: counts_of(statistics, level) for level in LEVELS}
    if not sum(counts["layer"].values()):
        return f"No weight lies beyond {SIGMA} sigma."
    where = " and ".join(_held(counts[level], level) for level in LEVELS)
    return f"Of the {sum(counts['layer'].values())} weights beyond {SIGMA} sigma, {where}."


def _held(amounts: Mapping[str, float], level: str) -> str:
    names = holding_half(amounts)
    total = sum(amounts.values())
    listed = ", ".join(f"{name} {amounts[name] / total:.0%}" for name in names[:4])
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"half lies in {len(names)} of {len(amounts)} {level}s ({listed}{rest})"


def _of(effective: Estimate, units: int) -> str:
    value = f"{(effective.value or 0.0) * units:.1f}"
    if effective.low is None or effective.high is None:
        return f"{value} of {units}"
    return f"{value} [{effective.low * units:.1f}, {effective.high * units:.1f}] of {units}"


def _summary(layers: Placement, kinds: Placement) -> str:
    return "; ".join(_held(_amounts(one), one.level) for one in (layers, kinds))


def _row(one: Placement, effective: Estimate) -> dict[str, Any]:
    return {
        "level": one.level,
        "share": one.share,
        "units": list(one.units),
        "bits": [float(bits) for bits in one.excess.mean(axis=(1, 2))],
        "effective_share": effective.to_json(),
    }
