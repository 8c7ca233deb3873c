"""What H-037 takes of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from evenbits.errors import GapError
from evenbits.models.blueprint import blueprint
from evenbits.studies.h037.ablation import SHARES, ablated, ablation_sample
from evenbits.studies.h037.friendliness import point_specs
from evenbits.studies.h037.placement import members_of, placed
from evenbits.studies.h037.superweights import CANDIDATES
from evenbits.studies.study import Inputs, Observation, Wants, as_stored, damage_of
from evenbits.variants.registry import simulated
from evenbits.variants.variant import FULL_PRECISION, Variant
from evenbits.variants.zeroing import without_weight

__all__ = ["ablations", "confirmed_super_weights", "model_points", "placements", "weight_statistics"]


def ablations(given: Inputs) -> Wants:
    """Largest and random weights zeroed."""
    return _zeroed(given, (one for share in SHARES for one in ablated(given.subject, share).values()))


def placements(given: Inputs) -> Wants:
    """Largest weights of one layer, and of one kind of matrix, zeroed."""
    members = members_of(blueprint(given.subject.local, store=given.subject.store).anatomy.linears)
    levels = (level for share in SHARES for level in placed(members, share).values())
    return replace(_zeroed(given, (one for level in levels for one in level.values())), weighed=given.subject)


def confirmed_super_weights(given: Inputs) -> Wants:
    """Each candidate zeroed; the activations of a few segments say which they are."""
    try:
        known = as_stored(given.subject).super_weight_candidates()[:CANDIDATES]
    except GapError:
        sample = ablation_sample(given.corpus)
        return Wants(observations=(Observation(what="super weights", corpus=sample, passes=float(CANDIDATES)),))
    return _zeroed(given, (without_weight(one.name, one.row, one.column) for one in known))


def model_points(given: Inputs) -> Wants:
    """Damage with nothing kept, and with a fixed k."""
    specs = point_specs(simulated(given.spec, "a comparison of models"))
    return replace(damage_of(given.subject, specs, given.corpus), weighed=given.subject)


def weight_statistics(given: Inputs) -> Wants:
    """Statistics of every matrix of the checkpoint."""
    return Wants(weighed=given.subject)


def _zeroed(given: Inputs, variants: Iterable[Variant]) -> Wants:
    sample = ablation_sample(given.corpus)
    return Wants(cells=tuple(cell for one in (FULL_PRECISION, *variants) for cell in given.subject.cells(one, sample)))
