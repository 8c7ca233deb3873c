"""Redundancy by ablation: what each language loses when random channels, or random heads, are dropped.

The same draws serve all languages, so that these differ by what they lose alone.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from evenbits.cells import Subject, measure
from evenbits.cells.spread import spread
from evenbits.models.blueprint import blueprint
from evenbits.records import Corpus
from evenbits.variants.zeroing import Dropped, droppable, without_parts

__all__ = ["DRAWS", "kinds_of", "loss_increase"]

KINDS: tuple[Dropped, ...] = get_args(Dropped)

DRAWS = 3
SEGMENTS = 16
"""Segments per language, spread evenly: a mean over three draws of the relative increase needs no more."""


def kinds_of(model: Subject) -> tuple[Dropped, ...]:
    """Return what can be dropped in `model`: a state space has neither heads nor channels of a feed-forward part."""
    anatomy = blueprint(model.local, store=model.store).anatomy
    return tuple(kind for kind in KINDS if droppable(anatomy, kind))


def loss_increase(model: Subject, probe: Corpus) -> dict[str, dict[str, float | None]]:
    """Return, by kind and language, sum NLL ablated / sum NLL - 1 on probe text: the mean over `DRAWS` draws.

    None where the model has no parts of a kind.
    """
    sample = probe.select(indices=spread(len(probe), SEGMENTS))
    found: dict[str, dict[str, float | None]] = {kind: dict.fromkeys(sample.languages) for kind in KINDS}
    for kind in kinds_of(model):
        draws = {f"{kind} {draw}": without_parts(kind, seed=model.seed, draw=draw) for draw in range(DRAWS)}
        damage = measure(model, draws, sample)
        mean_L = np.mean([damage.relative_increase(name) for name in draws], axis=0)
        found[kind] = dict(zip(sample.languages, mean_L.tolist(), strict=True))
    return found
