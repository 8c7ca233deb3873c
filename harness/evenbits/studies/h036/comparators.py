"""Comparators: what else the bits of a protection plan could be spent on.

Shapes: P units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import SpecError
from evenbits.observe.weights.statistics import WeightStatistics
from evenbits.studies.h036.choice import SLACK
from evenbits.studies.h036.study import KINDS, Kind, Sizes, Unit, costs_of, units_of
from evenbits.variants.quantization.spec import Grid, QuantSpec

__all__ = ["affordable", "by_rule", "kind_for", "random_units", "uniform_spec", "unit_kurtosis"]

Float64 = NDArray[np.float64]
GROUPS = (None, 256, 128, 64, 32, 16, 8)
TRIES = 20
"""Permutations for each random choice that is wanted: two of a few layers are often the same layers."""


def affordable(order: Iterable[int], cost: Float64, budget: float) -> tuple[int, ...]:
    """Return the units that fit into the budget when they are taken in `order`; what does not fit is passed over."""
    chosen: list[int] = []
    spent = 0.0
    for unit in order:
        if spent + float(cost[unit]) <= budget * (1 + SLACK):
            chosen.append(unit)
            spent += float(cost[unit])
    return tuple(sorted(chosen))


def kind_for(sizes: Sizes, spec: QuantSpec, budget: float) -> Kind:
    """Return the coarsest kind of unit of which the budget buys two, or one matrix: fewer units are measured faster.

    `SpecError` where it buys nothing, naming what the cheapest matrix costs.
    """
    cost = np.empty(0)
    for kind in KINDS:
        cost = np.sort(costs_of(sizes, spec, units_of(sizes.anatomy, kind)))
        if float(cost[:2].sum()) <= budget * (1 + SLACK):
            return kind
    if cost[0] > budget * (1 + SLACK):
        raise SpecError(
            f"a budget of {budget:g} bits per weight buys nothing under {spec}: protecting the smallest matrix of this "
            f"model costs {cost[0]:.3g}; give at least that"
        )
    return "module"


def by_rule(units: Sequence[Unit], layers: int, *, three_quarters: bool) -> tuple[int, ...]:
    """Return the units of the first and the last layer, and of the one at three quarters of the depth if asked."""
    wanted = {0, layers - 1} | ({min(layers - 1, int(0.75 * layers))} if three_quarters else set())
    return tuple(place for place, unit in enumerate(units) if unit.layer in wanted)


def random_units(cost: Float64, budget: float, *, draws: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return units in random order as far as the budget goes, `draws` times; fewer where chance finds no other set."""
    found: dict[tuple[int, ...], None] = {}
    for _ in range(TRIES * draws):
        found.setdefault(affordable((int(unit) for unit in rng.permutation(len(cost))), cost, budget))
        if len(found) == draws:
            break
    return list(found)


def unit_kurtosis(units: Sequence[Unit], statistics: WeightStatistics) -> Float64:
    """Return the largest kurtosis among the tensors of each unit, [P]; -3, below any, where none has spread."""
    found = np.full(len(units), -3.0)
    for place, unit in enumerate(units):
        for tensor in statistics.tensors:
            inside = any(tensor.name == name or tensor.name.startswith(f"{name}.") for name in unit.names)
            if inside and tensor.kurtosis is not None:
                found[place] = max(found[place], tensor.kurtosis)
    return found


def uniform_spec(sizes: Sizes, spec: QuantSpec, budget: float) -> QuantSpec | None:
    """Return the spec on a finer grid for all layers that comes closest to the budget from below; None where none does.

    Smaller groups and more bits are tried, alone and together; of grids that cost the same, the one with more bits.
    """
    base = sizes.bits_per_weight(spec)
    priced: Mapping[QuantSpec, float] = {
        finer: cost for finer in _finer(spec) if (cost := _cost(sizes, finer)) is not None
    }
    within = [(cost, finer) for finer, cost in priced.items() if base < cost <= base + budget * (1 + SLACK)]
    if not within:
        return None
    return max(within, key=lambda pair: (round(pair[0], 9), pair[1].bits or 0))[1]


def _finer(spec: QuantSpec) -> Iterable[QuantSpec]:
    grid = spec.grid
    if grid is None:
        return
    for bits in range(grid.bits, 9) if grid.kind == "int" else (4,):
        for size in GROUPS if grid.kind == "int" else GROUPS[1:]:
            span = "row" if size is None else "group"
            finer = Grid(kind=grid.kind, bits=bits, span=span, size=size, symmetric=grid.symmetric)  # type: ignore[arg-type]
            yield replace(spec, grid=finer)


def _cost(sizes: Sizes, spec: QuantSpec) -> float | None:
    try:
        return sizes.bits_per_weight(spec)
    except SpecError:  # the group does not divide a layer of this model
        return None
