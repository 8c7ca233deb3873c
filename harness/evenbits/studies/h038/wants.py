"""What H-038 takes of a model."""

from __future__ import annotations

from evenbits.cells.spread import spread
from evenbits.studies.h038.contrasts import name_in_contrasts
from evenbits.studies.h038.redundancy import DRAWS, SEGMENTS, kinds_of
from evenbits.studies.study import Inputs, Wants, activations_on, damage_of
from evenbits.variants.variant import FULL_PRECISION
from evenbits.variants.zeroing import without_parts

__all__ = ["activations", "damage", "language_features", "trained_models"]


def activations(given: Inputs) -> Wants:
    """Statistics of activations on the probe half."""
    return Wants(observations=(activations_on(given, given.probe),))


def damage(given: Inputs) -> Wants:
    """Damage under the spec: groups of languages are made of it."""
    return damage_of(given.subject, [given.spec], given.corpus)


def trained_models(given: Inputs) -> Wants:
    """Damage of the models that contrasts name."""
    return Wants() if name_in_contrasts(given.subject.local.text) is None else damage(given)


def language_features(given: Inputs) -> Wants:
    """Random channels and heads dropped, beside the statistics of activations."""
    sample = given.probe.select(indices=spread(len(given.probe), SEGMENTS))
    dropped = [
        without_parts(kind, seed=given.seed, draw=draw) for kind in kinds_of(given.subject) for draw in range(DRAWS)
    ]
    cells = tuple(cell for one in (FULL_PRECISION, *dropped) for cell in given.subject.cells(one, sample))
    return Wants(cells=cells, observations=activations(given).observations)
