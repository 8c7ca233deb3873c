"""A protection plan under a budget, without comparators: the other ways of spending the same bits."""

from __future__ import annotations

from collections.abc import Mapping

from evenbits.cells import Subject
from evenbits.errors import SpecError
from evenbits.records import Corpus
from evenbits.studies.h036.choice import Objective, additive_savings, choose
from evenbits.studies.h036.comparators import kind_for
from evenbits.studies.h036.study import sizes_of, study_layers, whole_model
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["protected_within"]

FEW_SEGMENTS = 4
"""Segments per language for the choice. A budget that only buys single matrices means a sweep over all of them."""


def protected_within(
    model: Subject,
    spec: QuantSpec,
    text: Corpus,
    *,
    budget: float,
    tier: Mapping[str, str],
    objective: Objective = "gap",
    segments: int = FEW_SEGMENTS,
) -> QuantSpec | None:
    """Return `spec` with the units protected that serve `objective` best under `budget` (extra bits per weight).

    The units are the coarsest of which the budget buys any; they are chosen on `text`, which must not be the text the
    plan is measured on. None where the budget buys nothing, or nothing worth it. `gap` needs both tiers.
    """
    whole = whole_model(spec)
    try:
        kind = kind_for(sizes_of(model), whole, budget)
    except SpecError:
        return None
    study = study_layers(model, whole, text, tier=tier, kind=kind, segments=segments)
    full_L = study.full_bits.mean(axis=1)
    low, high = ([study.languages.index(tag) for tag in study.members(group)] for group in ("low", "high"))
    choice = choose(
        objective,
        savings=additive_savings(study.means, full_L),
        full=full_L,
        cost=study.cost,
        budget=budget,
        low=low,
        high=high,
    )
    if not choice.units:
        return None
    return whole.with_protect(*(path for unit in choice.units for path in study.units[unit].names))
