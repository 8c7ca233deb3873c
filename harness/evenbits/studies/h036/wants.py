"""What H-036 takes of a model."""

from __future__ import annotations

import numpy as np

from evenbits.cells import Cell, variant_cells
from evenbits.cells.floor import floor_cells
from evenbits.errors import GapError
from evenbits.records import Corpus
from evenbits.studies.h036.comparators import unit_kurtosis
from evenbits.studies.h036.protection import PLAN_SEGMENTS, RANDOM_DRAWS, planned, protections, rule_budget
from evenbits.studies.h036.study import (
    SWEEP_SEGMENTS,
    Kind,
    evenly,
    layer_variants,
    sizes_of,
    study_layers,
    units_of,
    whole_model,
)
from evenbits.studies.observation import statistics_for
from evenbits.studies.study import Inputs, Observation, Wants, activations_on, as_stored
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.registry import simulated
from evenbits.variants.rounding import rounded

__all__ = ["layer_study", "layer_writes", "protection"]

WHAT = "quantizing one layer at a time"
PLANS = 3
RULES = 4
"""At most so many plans (one for each objective) and rules of thumb, beside no protection and random layers."""


def layer_study(given: Inputs, *, kind: Kind = "layer") -> Wants:
    """Damage of every layer (or other unit) alone, and of all together; the noise floor of the one in the middle."""
    whole = whole_model(simulated(given.spec, WHAT))
    sample = evenly(given.probe, SWEEP_SEGMENTS)
    units = units_of(sizes_of(given.subject).anatomy, kind)
    variants = layer_variants(given.subject, whole, units)
    cells = [cell for one in variants.values() for cell in variant_cells(given.subject, one, sample)]
    cells += floor_cells(given.subject, variants[units[len(units) // 2].label], sample)
    return Wants(cells=tuple(cells), observations=statistics_for(given.subject, [whole]))


def layer_writes(given: Inputs) -> Wants:
    """What each layer writes into the residual stream."""
    return Wants(observations=(activations_on(given, given.probe),))


def protection(given: Inputs, *, kind: Kind = "layer", budget: float | None = None) -> Wants:
    """Damage of plans, which the damage of single units chooses, and of rules of thumb.

    `budget`: None is what the first and the last layer cost. Once what single units do is stored, the plans are known.
    """
    sample = evenly(given.corpus, PLAN_SEGMENTS)
    try:
        cells = _plan_cells(given, sample, kind, budget)
    except GapError:
        plans = float(1 + PLANS + RULES + RANDOM_DRAWS)
        seen = Observation(what="protection plans", corpus=sample, passes=plans, rounds=plans)
        return Wants(observations=(seen,), weighed=given.subject)
    return Wants(cells=cells, weighed=given.subject)


def _plan_cells(given: Inputs, sample: Corpus, kind: Kind, budget: float | None) -> tuple[Cell, ...]:
    """Return the cells of the plans and rules that a stored study of single units leads to; `GapError` without one."""
    known = as_stored(given.subject)
    study = study_layers(known, simulated(given.spec, WHAT), given.probe, tier=given.tier, kind=kind)
    extra = rule_budget(study) if budget is None else budget
    entered = protections(
        study,
        planned(study, extra),
        sizes_of(known),
        budget=extra,
        kurtosis=unit_kurtosis(study.units, known.weight_statistics()),
        rng=np.random.default_rng(given.seed),
    )
    specs = {one.spec: parse_spec(one.spec) for one in entered}
    variants = [rounded(spec, given.subject, divergence=False) for spec in specs.values()]
    return tuple(cell for one in variants for cell in variant_cells(given.subject, one, sample))
