"""What the established findings take of a model."""

from __future__ import annotations

from dataclasses import replace

from evenbits.cells.spread import spread_of
from evenbits.studies.established.records import SINK_LANGUAGES
from evenbits.studies.study import Inputs, Wants, activations_on, damage_of
from evenbits.variants.registry import simulated

__all__ = ["family_damage", "family_heads"]


def family_damage(given: Inputs) -> Wants:
    """Damage under the run's first grid, and activations on the probe half."""
    grid = simulated(given.spec, "a comparison of models").base
    damage = damage_of(given.subject, [grid], given.corpus)
    return replace(damage, observations=(activations_on(given, given.probe),), weighed=given.subject)


def family_heads(given: Inputs) -> Wants:
    """Attention to the first token, in a few languages."""
    sample = given.probe.select(languages=spread_of(given.probe.languages, SINK_LANGUAGES))
    return Wants(observations=(activations_on(given, sample),), weighed=given.subject)
