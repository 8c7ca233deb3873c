"""The study of H-036: what each language loses when only one layer (or part of one) is quantized.

Shapes: P units (layers, or parts of them), L languages, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import FLOORS_NEEDED, Subject, measure, noise_floor
from evenbits.cells.damage import Damage
from evenbits.errors import SpecError
from evenbits.estimates import Estimate
from evenbits.models.anatomy import Anatomy
from evenbits.models.blueprint import blueprint
from evenbits.records import Corpus
from evenbits.studies.sequential import Until
from evenbits.text.languages import describe
from evenbits.variants.quantization.planning import bits_per_weight, plan
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.rounding import rounded
from evenbits.variants.variant import Variant

__all__ = [
    "KINDS",
    "SWEEP_SEGMENTS",
    "Kind",
    "LayerStudy",
    "Sizes",
    "Unit",
    "costs_of",
    "evenly",
    "layer_variants",
    "sizes_of",
    "study_layers",
    "units_of",
    "whole_model",
]

Float64 = NDArray[np.float64]
Kind = Literal["layer", "part", "module"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WHOLE = "all units"

SWEEP_SEGMENTS = 24
"""Segments per language of a sweep, spread evenly over the text. Every layer is measured on all of them, so the number
costs as often as there are layers; the interaction has (P - 1)(L - 1)(S - 1) degrees of freedom for its error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What is quantized alone, or protected: `names` are module paths, or their beginnings, inside layer `layer`."""

    label: str
    layer: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStudy:
    """Single-unit damage of one model and spec.

    `spec`: the whole model, without protection or selection. `excess_bits` [P, L, S]: excess bits per segment where
    only that unit is quantized. `full_bits` [L, S]: where all of them are. `nll_bits` [L]: mean full-precision NLL in
    bits per segment. `cost` [P]: bits per weight that protecting the unit adds; `bits_per_weight` is that of `spec`.
    `floor`: noise floor of a language's mean with one unit quantized (that in the middle). `tier`: `low` or `high`.
    `confidence`: of every interval, and 1 minus it the level of every test, which a look asks for that may have been
    followed by others.
    """

    model: str
    spec: QuantSpec
    units: tuple[Unit, ...]
    layers: int
    languages: tuple[str, ...]
    tier: Mapping[str, str]
    excess_bits: Float64
    full_bits: Float64
    nll_bits: Float64
    cost: Float64
    bits_per_weight: float
    floor: Estimate
    confidence: float = 0.95

    def __post_init__(self) -> None:
        shape = (len(self.units), len(self.languages))
        if self.excess_bits.shape[:2] != shape or self.full_bits.shape != self.excess_bits.shape[1:]:
            raise ValueError(
                f"damage of shape {self.excess_bits.shape} and {self.full_bits.shape} does not fit {shape[0]} units "
                f"and {shape[1]} languages"
            )

    @property
    def alpha(self) -> float:
        return round(1 - self.confidence, 12)

    @property
    def means(self) -> Float64:
        """Mean excess bits per segment of each unit and language, [P, L]."""
        return np.asarray(self.excess_bits.mean(axis=2))

    @property
    def families(self) -> tuple[str, ...]:
        """Family of each language; languages without a known one stand alone."""
        return tuple(describe(tag).family or f"unknown: {tag}" for tag in self.languages)

    @property
    def above_floor(self) -> NDArray[np.bool_]:
        """Languages whose mean single-unit damage reaches three noise floors, [L]."""
        floor = self.floor.value or 0.0
        return np.asarray(self.means.mean(axis=0) > max(FLOORS_NEEDED * floor, 0.0))

    def members(self, tier: str) -> tuple[str, ...]:
        """Languages of a tier."""
        return tuple(tag for tag in self.languages if self.tier.get(tag) == tier)

    def only(self, languages: Sequence[str]) -> LayerStudy:
        """Return the study restricted to some languages."""
        places = [self.languages.index(tag) for tag in languages]
        return replace(
            self,
            languages=tuple(languages),
            excess_bits=self.excess_bits[:, places],
            full_bits=self.full_bits[places],
            nll_bits=self.nll_bits[places],
        )


def study_layers(
    model: Subject,
    spec: QuantSpec,
    text: Corpus,
    *,
    tier: Mapping[str, str],
    kind: Kind = "layer",
    segments: int = SWEEP_SEGMENTS,
    until: Until[LayerStudy] | None = None,
) -> LayerStudy:
    """Quantize every unit alone, and all together, and score `text` (at most `segments` of each language).

    Protection and selection in `spec` are set aside. `until`: on as many segments as it takes. `SpecError` where the
    spec does not fit the model.
    """
    whole = whole_model(spec)
    sizes = sizes_of(model)
    units = units_of(sizes.anatomy, kind)
    sample = evenly(text, segments)
    variants = layer_variants(model, whole, units)

    def study(damage: Damage, _places: Sequence[int] = (), confidence: float = 0.95) -> LayerStudy:
        return LayerStudy(
            model=model.local.text,
            spec=whole,
            units=units,
            layers=len(sizes.anatomy.layers),
            languages=sample.languages,
            tier=dict(tier),
            excess_bits=np.stack([damage.excess_bits(unit.label) for unit in units]),
            full_bits=damage.excess_bits(WHOLE),
            nll_bits=damage.nll_bits(WHOLE).mean(axis=1),
            cost=costs_of(sizes, whole, units),
            bits_per_weight=sizes.bits_per_weight(whole),
            floor=noise_floor(model, variants[units[len(units) // 2].label], sample),
            confidence=confidence,
        )

    if until is None:
        return study(measure(model, variants, sample))
    return until.study(len(text), lambda places: measure(model, variants, text.select(indices=tuple(places))), study)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Shapes of a model's matrices, from which the cost of any spec is counted without building the model again."""

    anatomy: Anatomy
    shapes: Mapping[str, tuple[int, int]]

    def bits_per_weight(self, spec: QuantSpec) -> float:
        """Return the storage of a linear weight under `spec`; `SpecError` where the spec does not fit the model."""
        return bits_per_weight(plan(spec, self.anatomy, self.shapes))


def sizes_of(model: Subject) -> Sizes:
    """Return the sizes of a model, from its configuration alone."""
    drawn = blueprint(model.local, store=model.store)
    return Sizes(anatomy=drawn.anatomy, shapes=drawn.shapes)


def costs_of(sizes: Sizes, spec: QuantSpec, units: Sequence[Unit]) -> Float64:
    """Return the bits per weight that protecting each unit adds to `spec`, [P]."""
    base = sizes.bits_per_weight(spec)
    return np.array([sizes.bits_per_weight(spec.with_protect(*unit.names)) - base for unit in units])


def units_of(anatomy: Anatomy, kind: Kind) -> tuple[Unit, ...]:
    """Return the units of a model: its layers, attention and MLP of each where it has them, or every matrix."""
    if kind == "layer":
        return tuple(Unit(label=str(i), layer=i, names=(name,)) for i, name in enumerate(anatomy.layers))
    if kind == "module":
        return tuple(
            Unit(label=f"{one.layer}.{one.role}", layer=one.layer, names=(one.name,))
            for one in anatomy.linears
            if one.layer is not None
        )
    units: list[Unit] = []
    for block in anatomy.blocks:
        for part, module in (("attention", block.attention), ("mlp", block.mlp)):
            names = tuple(one.name for one in anatomy.linears_of(block.index) if one.part == part)
            if module is not None and all(name.startswith(f"{module}.") for name in names):
                names = (module,)
            if names:  # a unit without names would be the whole model
                units.append(Unit(label=f"{block.index}.{part}", layer=block.index, names=names))
    return tuple(units)


def whole_model(spec: QuantSpec) -> QuantSpec:
    """Return `spec` on the whole model. `SpecError` for full precision, which has no damage to divide."""
    if spec.grid is None:
        raise SpecError(f"{spec}: nothing is quantized, so no layer does any damage; name a spec such as int4-g64")
    return replace(spec, only=(), protect=())


def evenly(text: Corpus, segments: int) -> Corpus:
    """Return `text` with at most `segments` segments, spread evenly over it."""
    if len(text) <= segments:
        return text
    places = np.unique(np.linspace(0, len(text) - 1, segments).astype(int))
    return text.select(indices=tuple(int(place) for place in places))


def layer_variants(model: Subject, whole: QuantSpec, units: Sequence[Unit]) -> dict[str, Variant]:
    """Return the variants of a study by name: each unit quantized alone, and all of them together."""
    alone = {unit.label: _alone(model, whole, unit) for unit in units}
    return alone | {WHOLE: rounded(whole, model, divergence=False)}


def _alone(model: Subject, whole: QuantSpec, unit: Unit) -> Variant:
    """Return the variant in which one unit alone is quantized, without divergence: likelihoods are compared."""
    variant = rounded(whole.with_only(*unit.names), model, divergence=False)
    return replace(variant, first_layer=unit.layer)
