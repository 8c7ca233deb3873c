"""Protection plans, measured beside what else the same bits could buy.

Plans are chosen on the segments of a layer study (probe text) and measured on others, so that no plan profits from
text it has seen. Every protection may spend up to the budget.

Shapes: K protections, P units, L languages, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject, measure
from evenbits.records import Corpus
from evenbits.studies.families import without_a_family
from evenbits.studies.h036.choice import OBJECTIVES, Choice, additive_savings, choose
from evenbits.studies.h036.comparators import affordable, by_rule, random_units, uniform_spec
from evenbits.studies.h036.study import LayerStudy, Sizes, evenly, sizes_of
from evenbits.text.languages import families_of
from evenbits.variants.quantization.spec import QuantSpec, parse_spec
from evenbits.variants.rounding import rounded

__all__ = [
    "PLAN_SEGMENTS",
    "RANDOM_DRAWS",
    "Protection",
    "ProtectionStudy",
    "planned",
    "protections",
    "rule_budget",
    "study_protection",
]

Float64 = NDArray[np.float64]

PLAN_SEGMENTS = 32
"""Segments per language on which protections are measured, spread evenly over the evaluation text."""

RANDOM_DRAWS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Protection:
    """A way to spend bits. `kind`: plan or comparator; `name`: objective or rule; `units`: what is protected."""

    name: str
    kind: str
    spec: str
    units: tuple[str, ...]
    bits_per_weight: float
    extra_bits: float
    within_budget: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtectionStudy:
    """Protections with what they leave: `excess_bits` [K, L, S] bits per segment, `nll_bits` [L] full-precision means.

    `choices`: the plans by objective, with the damage predicted for each language. `cheapest`: cost of the cheapest
    unit in bits per weight.
    """

    model: str
    spec: str
    budget: float
    cheapest: float
    protections: tuple[Protection, ...]
    languages: tuple[str, ...]
    tier: Mapping[str, str]
    excess_bits: Float64
    nll_bits: Float64
    choices: Mapping[str, Choice]

    def place(self, name: str) -> int:
        """Return the index of a protection; `KeyError` where it does not take part."""
        for number, one in enumerate(self.protections):
            if one.name == name:
                return number
        raise KeyError(name)

    def members(self, tier: str) -> tuple[str, ...]:
        """Languages of a tier."""
        return tuple(tag for tag in self.languages if self.tier.get(tag) == tier)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per protection: cost, worst language, mean and gap in bits per segment, and the change.

        `gap_family`: a sentence on what is left of the gap without each family, empty where there is none.
        """
        return [self._row(number) for number in range(len(self.protections))]

    def _row(self, number: int) -> dict[str, Any]:
        one = self.protections[number]
        means_L = self.excess_bits[number].mean(axis=1)
        none_L = self.excess_bits[self.place("none")].mean(axis=1)
        worst = int(means_L.argmax())
        return {
            "name": one.name,
            "kind": one.kind,
            "spec": one.spec,
            "protects": list(one.units),
            "bits_per_weight": one.bits_per_weight,
            "extra_bits_per_weight": one.extra_bits,
            "within_budget": one.within_budget,
            "worst_language": self.languages[worst],
            "worst_bits": float(means_L[worst]),
            "mean_bits": float(means_L.mean()),
            "gap_bits": self._gap(means_L),
            "gap_family": self._without_a_family(means_L),
            "worst_change": _change(float(means_L.max()), float(none_L.max())),
            "mean_change": _change(float(means_L.mean()), float(none_L.mean())),
            "gap_change": _change(self._gap(means_L), self._gap(none_L)),
        }

    def _gap(self, means_L: Float64) -> float | None:
        low, high = (
            [place for place, tag in enumerate(self.languages) if self.tier.get(tag) == tier]
            for tier in ("low", "high")
        )
        if not low or not high:
            return None
        return float(means_L[low].mean() - means_L[high].mean())

    def _without_a_family(self, means_L: Float64) -> str:
        low, high, means = self.members("low"), self.members("high"), dict(zip(self.languages, means_L, strict=True))
        if not low or not high:
            return ""
        return without_a_family(means, low=low, high=high, families=families_of(means), unit=" bits")


def study_protection(
    model: Subject,
    study: LayerStudy,
    text: Corpus,
    *,
    budget: float,
    kurtosis: Float64,
    rng: np.random.Generator,
    segments: int = PLAN_SEGMENTS,
) -> ProtectionStudy:
    """Plan for each objective under `budget` (extra bits per weight) and measure plans and comparators on `text`.

    `kurtosis` [P]: of each unit, for the comparator that protects the largest (`comparators.unit_kurtosis`).
    """
    sizes = sizes_of(model)
    choices = planned(study, budget)
    entered = protections(study, choices, sizes, budget=budget, kurtosis=kurtosis, rng=rng)
    sample = evenly(text.select(languages=study.languages), segments)
    specs = {one.spec: rounded(parse_spec(one.spec), model, divergence=False) for one in entered}
    damage = measure(model, specs, sample)
    return ProtectionStudy(
        model=model.local.text,
        spec=str(study.spec),
        budget=budget,
        cheapest=float(study.cost.min()),
        protections=entered,
        languages=sample.languages,
        tier=study.tier,
        excess_bits=np.stack([damage.excess_bits(one.spec) for one in entered]),
        nll_bits=damage.nll_bits(str(study.spec)).mean(axis=1),
        choices=choices,
    )


def planned(study: LayerStudy, budget: float) -> dict[str, Choice]:
    """Return the best choice of units for each objective that the languages allow (a gap needs both tiers)."""
    full_L = study.full_bits.mean(axis=1)
    savings = additive_savings(study.means, full_L)
    low, high = (
        [place for place, tag in enumerate(study.languages) if study.tier.get(tag) == tier] for tier in ("low", "high")
    )
    wanted = [one for one in OBJECTIVES if one != "gap" or (low and high)]
    return {
        objective: choose(objective, savings=savings, full=full_L, cost=study.cost, budget=budget, low=low, high=high)
        for objective in wanted
    }


def rule_budget(study: LayerStudy) -> float:
    """Return the extra bits per weight that protecting the first and the last layer costs: the usual rule of thumb."""
    return float(study.cost[list(by_rule(study.units, study.layers, three_quarters=False))].sum())


def protections(
    study: LayerStudy,
    choices: Mapping[str, Choice],
    sizes: Sizes,
    *,
    budget: float,
    kurtosis: Float64,
    rng: np.random.Generator,
) -> tuple[Protection, ...]:
    """Return no protection, the plans, and the comparators: uniform, first + last (+ 3/4), random, kurtosis."""
    entrant = _Entrant(study, sizes, budget)
    found: list[Protection | None] = [entrant.of("none", "comparator", study.spec, ())]
    for objective, choice in choices.items():
        if choice.units:
            found.append(entrant.protecting(f"plan:{objective}", "plan", choice.units))
    finer = uniform_spec(sizes, study.spec, budget)
    if finer is not None:
        found.append(entrant.of("uniform", "comparator", finer, ()))
    for name, three_quarters in (("first+last", False), ("first+last+3/4", True)):
        found.append(
            entrant.protecting(name, "comparator", by_rule(study.units, study.layers, three_quarters=three_quarters))
        )
    drawn = random_units(study.cost, budget, draws=RANDOM_DRAWS, rng=rng)
    rules = {f"random {draw}": units for draw, units in enumerate(drawn, start=1)}
    rules["highest kurtosis"] = affordable(
        (int(place) for place in np.argsort(-kurtosis, kind="stable")), study.cost, budget
    )
    found += [entrant.protecting(name, "comparator", units) for name, units in rules.items() if units]
    return tuple(one for one in found if one is not None)


class _Entrant:
    """Prices protections. A rule that would protect the whole model takes no part: nothing would be quantized."""

    def __init__(self, study: LayerStudy, sizes: Sizes, budget: float) -> None:
        self.study, self.sizes, self.budget = study, sizes, budget

    def protecting(self, name: str, kind: str, units: tuple[int, ...]) -> Protection | None:
        chosen = [self.study.units[unit] for unit in units]
        if len(chosen) == len(self.study.units):
            return None
        paths = [path for unit in chosen for path in unit.names]
        return self.of(name, kind, self.study.spec.with_protect(*paths), tuple(unit.label for unit in chosen))

    def of(self, name: str, kind: str, spec: QuantSpec, units: tuple[str, ...]) -> Protection:
        bits = self.sizes.bits_per_weight(spec)
        extra = bits - self.study.bits_per_weight
        return Protection(
            name=name,
            kind=kind,
            spec=str(spec),
            units=units,
            bits_per_weight=bits,
            extra_bits=extra,
            within_budget=extra <= self.budget * (1 + 1e-6) + 1e-9,
        )


def _change(after: float | None, before: float | None) -> float | None:
    """Return the relative change, None where there is nothing to compare with."""
    return None if after is None or before is None or before <= 0 else after / before - 1
