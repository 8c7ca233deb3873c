"""No harm: shown by non-inferiority within a margin, never by "not significantly worse".

Harm is a claim about any one of several languages, so it is tested over all of them at once (`joint_flips`). That none
is harmed is a claim about every one of them, so each is held against the margin by itself, and all must pass
(intersection-union: no correction). What is neither shown is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics.flips import joint_flips
from evenbits.statistics.means import mean_interval

__all__ = ["NoHarm", "no_harm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoHarm(Row):
    """`changes`: mean change by name with its (1 - 2 alpha) interval; above 0 is worse.

    `worse`: names whose change is shown to be above 0, family-wise. `open`: names that are neither shown to be worse
    nor shown to stay below `margin`. `least_p`: the smallest p that the test of harm can give.
    """

    changes: Mapping[str, Estimate]
    worse: tuple[str, ...]
    open: tuple[str, ...]
    margin: float
    least_p: float

    @property
    def shown(self) -> bool:
        """Whether no name is worse by more than the margin."""
        return not self.worse and not self.open


def no_harm(
    changes: Mapping[str, ArrayLike], *, margin: float, rng: np.random.Generator, alpha: float = 0.05
) -> NoHarm:
    """Test for every name whether its mean change is above 0, and whether it is shown to be below `margin`.

    `changes`: by language one number per aligned segment, after minus before, above 0 worse. A language that is worse
    by less than the margin, and shown to be, is both; then the margin decides, as it says what counts as harm.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    tested = joint_flips(changes, rng=rng, alternative="greater")
    means = {name: mean_interval(values, rng=rng, confidence=1 - 2 * alpha) for name, values in changes.items()}
    within = {name for name, one in means.items() if one.high is not None and one.high < margin}
    worse = tuple(name for name in changes if tested.adjusted[name] < alpha and name not in within)
    rest = tuple(name for name in changes if name not in within and name not in worse)
    return NoHarm(changes=means, worse=worse, open=rest, margin=margin, least_p=tested.least)
