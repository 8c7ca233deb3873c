"""What H-036 takes of a model."""

from __future__ import annotations

from evenbits.studies.h036.protection import PLAN_SEGMENTS, RANDOM_DRAWS
from evenbits.studies.h036.study import SWEEP_SEGMENTS, evenly, layer_variants, sizes_of, units_of, whole_model
from evenbits.studies.study import Inputs, Observation, Wants, activations_on
from evenbits.variants.registry import simulated
from evenbits.variants.variant import FULL_PRECISION

__all__ = ["layer_study", "layer_writes", "protection"]

WHAT = "quantizing one layer at a time"
PLANS = 3
RULES = 4
"""At most so many plans (one for each objective) and rules of thumb, beside no protection and random layers."""


def layer_study(given: Inputs) -> Wants:
    """Damage of every layer alone, and of all together."""
    whole = whole_model(simulated(given.spec, WHAT))
    sample = evenly(given.probe, SWEEP_SEGMENTS)
    variants = layer_variants(given.subject, whole, units_of(sizes_of(given.subject).anatomy, "layer"))
    chosen = (FULL_PRECISION, *variants.values())
    return Wants(cells=tuple(cell for one in chosen for cell in given.subject.cells(one, sample)))


def layer_writes(given: Inputs) -> Wants:
    """What each layer writes into the residual stream."""
    return Wants(observations=(activations_on(given, given.probe),))


def protection(given: Inputs) -> Wants:
    """Damage of plans, which the damage of single layers chooses, and of rules of thumb."""
    sample = evenly(given.corpus, PLAN_SEGMENTS)
    entered = 1 + PLANS + RULES + RANDOM_DRAWS
    return Wants(observations=(Observation(what="protection plans", corpus=sample, passes=float(entered)),))
