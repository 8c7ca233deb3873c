"""Redundancy by ablation: what each language loses when random channels, or random heads, are dropped.

The same draws serve all languages, so that these differ by what they lose alone.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from evenbits.cells import Subject, measure
from evenbits.cells.spread import spread
from evenbits.records import Corpus
from evenbits.variants.zeroing import Dropped, without_parts

__all__ = ["DRAWS", "KINDS", "loss_increase"]

KINDS: tuple[Dropped, ...] = get_args(Dropped)

DRAWS = 3
SEGMENTS = 16
"""Segments per language, spread evenly: a mean over three draws of the relative increase needs no more."""


def loss_increase(model: Subject, probe: Corpus) -> dict[str, dict[str, float]]:
    """Return, by kind and language, sum NLL ablated / sum NLL - 1 on probe text: the mean over `DRAWS` draws."""
    sample = probe.select(indices=spread(len(probe), SEGMENTS))
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        draws = {f"{kind} {draw}": without_parts(kind, seed=model.seed, draw=draw) for draw in range(DRAWS)}
        damage = measure(model, draws, sample)
        mean_L = np.mean([damage.relative_increase(name) for name in draws], axis=0)
        found[kind] = dict(zip(sample.languages, mean_L.tolist(), strict=True))
    return found
