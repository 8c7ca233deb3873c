"""Arrangements: the groups that there would be if residuals said nothing about a language's features.

Null hypothesis: given family, script and resource level, the residual of a language is as good as that of another. So
residuals are exchanged between languages of one family and script, whatever their resource level, and groups are made
anew from the exchanged residuals.

Shapes: B arrangements, N languages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evenbits.estimates import Verdict
from evenbits.statistics import Alternative, permutation_p, rearrangements
from evenbits.studies.h038.groups import Float64, Masks, Refusal, ResilienceGroups

__all__ = ["ALPHA", "ARRANGEMENTS", "Arrangements", "arrange", "fewest", "reachable", "standardising"]

ALPHA = 0.05
ARRANGEMENTS = 9999


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangements:
    """Groups under the null hypothesis: masks [B, N] of either group, whether all are there, and the method.

    Only arrangements in whose groups something could be found count, as the observed ones are only searched where that
    is so. `same`: share with the observed groups.
    """

    resilient: Masks
    vulnerable: Masks
    exact: bool
    method: str
    same: float

    def p_value(self, observed: float, null_B: Float64, alternative: Alternative = "two-sided") -> float:
        """Return the p-value of a standardised effect; two-sided by the distance from the mean over arrangements."""
        return permutation_p(observed, null_B, exact=self.exact, alternative=alternative, centred=False)

    @property
    def scale(self) -> Float64:
        """What makes effects in groups of different sizes comparable, [B]."""
        return standardising(self.resilient, self.vulnerable)

    def first(self, count: int) -> Arrangements:
        """Return at most `count` of them; of all arrangements, all."""
        if self.exact:
            return self
        return Arrangements(
            resilient=self.resilient[:count],
            vulnerable=self.vulnerable[:count],
            exact=False,
            method=self.method,
            same=self.same,
        )


def arrange(
    groups: ResilienceGroups, *, features: int, rng: np.random.Generator, count: int | None = None
) -> Arrangements | Refusal:
    """Exchange residuals within family x script and make the groups anew, for a search over `features`.

    `count`: random arrangements before those with too small groups are left out, by default `ARRANGEMENTS`.
    """
    wanted = ARRANGEMENTS if count is None else count
    orders = rearrangements(len(groups.languages), rng=rng, strata=groups.strata, permutations=wanted)
    if orders is None:
        lacking = "no two languages can be exchanged"
        return Refusal(
            verdict=Verdict.UNDERPOWERED,
            lacking=lacking,
            n=len(groups.languages),
            because=f"{lacking}. Add related languages with --languages.",
        )
    resilient, vulnerable = groups.masks(groups.residual[orders.rows])
    sizes, own_sizes = np.unique(
        np.stack([resilient.sum(axis=1), vulnerable.sum(axis=1)], axis=1), axis=0, return_inverse=True
    )
    enough = np.array([reachable(n, m, features) for n, m in sizes.tolist()])[own_sizes.ravel()]
    resilient, vulnerable = resilient[enough], vulnerable[enough]
    own = groups.masks(groups.residual[None])
    same = ((resilient == own[0]) & (vulnerable == own[1])).all(axis=1)
    share = float(same.mean()) if orders.exact else float((same.sum() + 1) / (len(same) + 1))
    return Arrangements(
        resilient=resilient,
        vulnerable=vulnerable,
        exact=orders.exact,
        same=share,
        method=f"residuals exchanged: {orders.method}",
    )


def fewest(features: int) -> int:
    """Return how many languages each of two equal groups needs, so that a perfect split can reach q < .05.

    The least two-sided p of a split of n and n labelled freely is 2 / C(2n, n); it stands first among `features`.
    """
    n = 2
    while not reachable(n, n, features):
        n += 1
    return n


def reachable(first: int, second: int, features: int) -> bool:
    """Return whether a perfect split of groups of these sizes can have q < .05."""
    return min(first, second) > 1 and 2 * features / math.comb(first + second, first) < ALPHA


def standardising(resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return 1 / SD of Cliff's delta of unrelated groups of these sizes, sqrt(3 n m / (n + m + 1)): [B].

    That of the rank sum (Mann & Whitney 1947), as delta = 2 U / (n m) - 1. Small groups have extreme effects by chance.
    """
    n, m = resilient_BN.sum(axis=1), vulnerable_BN.sum(axis=1)
    return np.asarray(np.sqrt(3.0 * n * m / (n + m + 1)))
