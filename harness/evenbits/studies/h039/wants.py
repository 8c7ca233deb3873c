"""What H-039 takes of a model."""

from __future__ import annotations

from evenbits.studies.h039.comparators import comparator_specs
from evenbits.studies.h039.smaller_groups import grouped_specs
from evenbits.studies.h039.study import retention_grid
from evenbits.studies.study import Inputs, Wants, damage_of
from evenbits.variants.registry import simulated

__all__ = ["comparators", "retention", "smaller_groups"]

WHAT = "keeping weights"


def retention(given: Inputs) -> Wants:
    """Damage at every k, with its controls."""
    specs = retention_grid(simulated(given.spec, WHAT))
    return damage_of(given.subject, specs, given.corpus)


def smaller_groups(given: Inputs) -> Wants:
    """Damage of the same bits spent on smaller groups."""
    specs = grouped_specs(given.subject, simulated(given.spec, WHAT).base)
    return damage_of(given.subject, specs, given.corpus)


def comparators(given: Inputs) -> Wants:
    """Damage of the other ways to choose, where a disparity is left to remove."""
    low = tuple(tag for tag, level in given.tier.items() if level == "low")
    specs = comparator_specs(
        simulated(given.spec, WHAT).base, low=low, languages=given.corpus.languages, statistics=bool(low)
    )
    return damage_of(given.subject, tuple(specs.values()), given.corpus)
