"""Power: how often a decision comes out as it should, by drawing tables like a pilot's and deciding on each.

The decision is the one that a run makes, strata, clusters and corrections included; nothing is approximated by another
test. Damage is drawn lognormal where its mean allows it: it spreads in proportion to its size.

Shapes: L languages, S segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from evenbits.estimates import Estimate
from evenbits.statistics.pooling import Components
from evenbits.statistics.proportions import wilson
from evenbits.statistics.samples import FloatArray, group_codes

__all__ = ["draw_damage", "power"]


def power(decides: Callable[[np.random.Generator], bool], *, rng: np.random.Generator, draws: int = 200) -> Estimate:
    """Return the share of `draws` in which `decides` (draw a table, decide on it) says true, with Wilson's interval."""
    found = sum(bool(decides(rng)) for _ in range(draws))
    return wilson(found, draws)


def draw_damage(
    components: Components,
    families: Sequence[str],
    segments: int,
    *,
    rng: np.random.Generator,
    means: Sequence[float] | None = None,
) -> FloatArray:
    """Return a table of damage [L, S] with these variance components.

    `means`: expected damage of each language before family and language effects; None: the components' own mean.
    Language means are lognormal around it where it is above 0, so that a mean of twice the size spreads twice as much;
    segments likewise.
    """
    centre = np.full(len(families), components.mean) if means is None else np.asarray(means, dtype=np.float64)
    codes = group_codes(families, len(families), "families")
    effect = math.sqrt(components.family) * rng.standard_normal(int(codes.max()) + 1)[codes]
    effect = effect + math.sqrt(components.language) * rng.standard_normal(len(codes))
    shared = math.sqrt(components.segment) * rng.standard_normal(segments)
    own = math.sqrt(components.residual) * rng.standard_normal((len(codes), segments))
    if components.mean <= 0:
        return centre[:, None] + effect[:, None] + shared + own
    return (
        centre[:, None]
        * _lognormal(effect / components.mean, components.family + components.language, components)[:, None]
        * _lognormal((shared + own) / components.mean, components.segment + components.residual, components)
    )


def _lognormal(relative: FloatArray, variance: float, components: Components) -> FloatArray:
    """Return factors of mean 1 whose relative variance is `variance` / mean^2, from normal `relative` deviations."""
    squared = variance / components.mean**2
    if squared <= 0:
        return np.ones_like(relative)
    deviation = math.sqrt(math.log1p(squared))
    return np.exp(relative / math.sqrt(squared) * deviation - deviation**2 / 2)
