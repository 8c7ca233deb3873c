"""Which features tell resilient from vulnerable languages, against the null of the whole search.

Null hypothesis: given family, script and resource level, the residual of a language says nothing about its features.
So residuals are exchanged between languages of one family and script (low, high and in between alike), groups are made
anew from the exchanged residuals, and everything is computed again: the effect of every feature, and the choice of the
best. Features that only follow resource level stand out in every arrangement, and so in none.

Shapes: B arrangements, K features, N languages; true/false masks [B, N] of the two groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.estimates import Estimate, Verdict
from harness.resilience.features import FeatureTable, Usable
from harness.resilience.groups import Masks, Refusal, ResilienceGroups
from harness.statistics import (
    LARGE_DELTA,
    Alternative,
    Selection,
    benjamini_hochberg,
    cliffs_delta,
    nested_selection_auc,
    permutation_p,
    rearrangements,
)

__all__ = [
    "ALPHA",
    "Arrangements",
    "Discrimination",
    "arrange",
    "deltas",
    "discriminate",
    "fewest",
    "nested_aucs",
    "standardising",
]

Float64 = NDArray[np.float64]

ALPHA = 0.05
ARRANGEMENTS = 9999
SELECTIONS = 999
"""Arrangements in which the whole selection is repeated, the first of those above."""


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
            resilient=self.resilient[:count], vulnerable=self.vulnerable[:count], exact=False, method=self.method,
            same=self.same,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Discrimination:
    """What a search over features found. `rows`: one per feature, the decisive one first.

    `best`: the decisive feature: of those with q < .05 the one with the largest |delta|, else the one of smallest p.
    `selection`: nested leave-one-language-out AUC; `auc_p` is against the null of the whole search.
    """

    rows: tuple[Mapping[str, Any], ...]
    best: str
    delta: Estimate
    q: float
    selection: Selection
    auc_p: float
    sizes: tuple[int, int]
    method: str

    @property
    def magnitude(self) -> Estimate:
        """The decisive |delta| with its interval, turned where the effect is negative."""
        found = self.delta
        if found.value is None or found.value >= 0:
            return found
        low, high = found.low, found.high
        return Estimate(
            value=-found.value, low=None if high is None else -high, high=None if low is None else -low, n=found.n,
            method=f"|{found.method}|", reason=found.reason,
        )  # fmt: skip

    @property
    def refuted(self) -> str | None:
        """What speaks against the finding beside the size of the effect, in a sentence."""
        if self.q >= ALPHA:
            return f"No feature has q < {ALPHA:g}; the smallest is {self.q:.3g} of {self.best}."
        if self.auc_p >= ALPHA:
            return f"The search does not hold on languages left out: p {self.auc_p:.3g}, needed below {ALPHA:g}."
        return None

    @property
    def discriminates(self) -> bool:
        return self.refuted is None and (self.magnitude.value or 0.0) >= LARGE_DELTA

    def to_json(self) -> dict[str, Any]:
        return {
            "features": [dict(row) for row in self.rows],
            "best": self.best,
            "selection": self.selection.to_json() | {"p_value": self.auc_p, "p_method": self.method},
            "resilient": self.sizes[0],
            "vulnerable": self.sizes[1],
        }


def arrange(
    groups: ResilienceGroups, *, features: int, rng: np.random.Generator, count: int = ARRANGEMENTS
) -> Arrangements | Refusal:
    """Exchange residuals within family x script and make the groups anew, for a search over `features`."""
    orders = rearrangements(len(groups.languages), rng=rng, strata=groups.strata, permutations=count)
    if orders is None:
        lacking = "no two languages can be exchanged"
        return Refusal(
            verdict=Verdict.UNDERPOWERED, lacking=lacking, n=len(groups.languages),
            because=f"{lacking}. Add related languages with --languages.",
        )  # fmt: skip
    resilient, vulnerable = groups.masks(groups.residual[orders.rows])
    most = len(groups.languages) + 1
    allowed = np.array([[_reachable(n, m, features) for m in range(most)] for n in range(most)])
    enough = allowed[resilient.sum(axis=1), vulnerable.sum(axis=1)]
    resilient, vulnerable = resilient[enough], vulnerable[enough]
    own = groups.masks(groups.residual[None])
    same = ((resilient == own[0]) & (vulnerable == own[1])).all(axis=1)
    share = float(same.mean()) if orders.exact else float((same.sum() + 1) / (len(same) + 1))
    return Arrangements(
        resilient=resilient, vulnerable=vulnerable, exact=orders.exact, same=share,
        method=f"residuals exchanged: {orders.method}",
    )  # fmt: skip


def discriminate(
    groups: ResilienceGroups, features: FeatureTable, *, rng: np.random.Generator
) -> Discrimination | Refusal:
    """Search the features for one that tells the groups apart, or say why the search cannot be made."""
    usable = features.over(groups.languages)
    if not usable.names:
        reasons = ", ".join(f"{name} is {reason}" for name, reason in usable.left_out.items())
        return Refusal(
            verdict=Verdict.NOT_APPLICABLE, lacking="no feature differs between languages", n=len(groups.languages),
            because=f"No feature differs between languages: {reasons}.",
        )  # fmt: skip
    refusal = _too_small(groups, len(usable.names))
    if refusal is not None:
        return refusal
    null = arrange(groups, features=len(usable.names), rng=rng)
    if isinstance(null, Refusal):
        return null
    if null.same * len(usable.names) >= ALPHA:
        lacking = f"{null.same:.2g} of the arrangements within family and script give the same groups"
        return Refusal(
            verdict=Verdict.UNDERPOWERED, lacking=lacking, n=len(groups.languages),
            because=f"{lacking}: no feature of {len(usable.names)} can reach q < {ALPHA:g}. Add related languages.",
        )  # fmt: skip
    return _searched(groups, usable, null, rng)


def _searched(groups: ResilienceGroups, usable: Usable, null: Arrangements, rng: np.random.Generator) -> Discrimination:
    resilient, vulnerable = (mask[0] for mask in groups.masks(groups.residual[None]))
    observed = deltas(usable.table, resilient[None], vulnerable[None])[0]
    null_BK = deltas(usable.table, null.resilient, null.vulnerable)
    scale, scale_B1 = standardising(resilient[None], vulnerable[None])[0], null.scale[:, None]
    p = {
        name: null.p_value(float(scale * observed[k]), (scale_B1 * null_BK)[:, k])
        for k, name in enumerate(usable.names)
    }
    q = {name: 1.0 if found is None else found for name, found in benjamini_hochberg(p).items()}
    found = {
        name: cliffs_delta(column[resilient], column[vulnerable], rng=rng, permutations=1).estimate
        for name, column in zip(usable.names, usable.table.T, strict=True)
    }
    # Among those found, the largest effect; where none is, the strongest evidence.
    ranked = sorted(
        usable.names,
        key=lambda name: (q[name] >= ALPHA, -abs(found[name].value or 0.0) if q[name] < ALPHA else p[name]),
    )
    rows = tuple(
        {"feature": name, "delta": found[name].to_json(), "expected_delta": float(null_BK[:, k].mean()),
         "p_value": p[name], "q": q[name]}
        for name in ranked for k in (usable.names.index(name),)
    )  # fmt: skip
    inside = resilient | vulnerable
    selection = nested_selection_auc(
        dict(zip(usable.names, usable.table[inside].T, strict=True)), resilient[inside].tolist(), rng=rng,
        permutations=1,
    )  # fmt: skip
    auc = float(nested_aucs(usable.table, resilient[None], vulnerable[None])[0])
    few = null.first(SELECTIONS)
    null_B = nested_aucs(usable.table, few.resilient, few.vulnerable)
    return Discrimination(
        rows=rows, best=ranked[0], delta=found[ranked[0]], q=q[ranked[0]], selection=selection,
        auc_p=few.p_value(float(scale * (2 * auc - 1)), few.scale * (2 * null_B - 1), "greater"), sizes=(int(resilient.sum()), int(vulnerable.sum())),
        method=null.method,
    )  # fmt: skip


def fewest(features: int) -> int:
    """Return how many languages each of two equal groups needs, so that a perfect split can reach q < .05.

    The least two-sided p of a split of n and n labelled freely is 2 / C(2n, n); it stands first among `features`.
    """
    n = 2
    while not _reachable(n, n, features):
        n += 1
    return n


def _reachable(first: int, second: int, features: int) -> bool:

    return min(first, second) > 1 and 2 * features / math.comb(first + second, first) < ALPHA


def _too_small(groups: ResilienceGroups, features: int) -> Refusal | None:
    resilient, vulnerable = len(groups.resilient), len(groups.vulnerable)
    if _reachable(resilient, vulnerable, features):
        return None
    tiers = {name: groups.tier.count(name) for name in ("low", "high")}
    lacking = (
        f"{resilient} resilient of {tiers['low']} low-resource and {vulnerable} vulnerable of {tiers['high']} "
        f"high-resource languages, needed {fewest(features)} of each"
    )
    return Refusal(
        verdict=Verdict.UNDERPOWERED, lacking=lacking, n=resilient + vulnerable,
        because=f"{lacking}: in smaller groups even a perfect split among {features} features can have q >= {ALPHA:g}. "
        "Add languages with --languages or a corpus that has them.",
    )  # fmt: skip


def standardising(resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return 1 / SD of Cliff's delta of unrelated groups of these sizes, sqrt(3 n m / (n + m + 1)): [B].

    That of the rank sum (Mann & Whitney 1947), as delta = 2 U / (n m) - 1. Small groups have extreme effects by chance.
    """
    n, m = resilient_BN.sum(axis=1), vulnerable_BN.sum(axis=1)
    return np.asarray(np.sqrt(3.0 * n * m / (n + m + 1)))


def deltas(table_NK: Float64, resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return Cliff's delta of every feature, resilient against vulnerable, in every arrangement: [B, K]."""
    signs_KNN = np.sign(table_NK.T[:, :, None] - table_NK.T[:, None, :])
    first, second = resilient_BN.astype(np.float64), vulnerable_BN.astype(np.float64)
    beaten_KBN = np.matmul(second, signs_KNN.transpose(0, 2, 1))
    pairs_B = first.sum(axis=1) * second.sum(axis=1)
    return np.asarray(((beaten_KBN * first).sum(axis=2) / pairs_B).T)


def nested_aucs(table_NK: Float64, resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return the AUC of `nested_selection_auc` in every arrangement, whose groups may differ in size: [B].

    For each language left out, the feature with the largest |AUC - 1/2| on the other members is chosen, with its sign;
    its score is its value standardised by mean and SD of these. The AUC is over the pooled scores.
    """
    signs_KNN = np.sign(table_NK.T[:, :, None] - table_NK.T[:, None, :])
    first, second = resilient_BN.astype(np.float64), vulnerable_BN.astype(np.float64)
    over_first_KBN = np.matmul(first, signs_KNN.transpose(0, 2, 1))
    over_second_KBN = np.matmul(second, signs_KNN.transpose(0, 2, 1))
    total_KB1 = (over_second_KBN * first).sum(axis=2, keepdims=True)
    left_KBN = np.where(resilient_BN, total_KB1 - over_second_KBN, total_KB1 + over_first_KBN)
    chosen_BN = np.abs(left_KBN).argmax(axis=0)
    b, i = np.indices(chosen_BN.shape)
    standard_KBN = _standardised_left_out(table_NK, first + second)
    scores_BN = np.sign(left_KBN[chosen_BN, b, i]) * standard_KBN[chosen_BN, b, i]
    wins_BNN = np.sign(scores_BN[:, :, None] - scores_BN[:, None, :])
    pairs_BNN = first[:, :, None] * second[:, None, :]
    return np.asarray(((wins_BNN * pairs_BNN).sum(axis=(1, 2)) / pairs_BNN.sum(axis=(1, 2)) + 1) / 2)


def _standardised_left_out(table_NK: Float64, members_BN: Float64) -> Float64:
    """Return values standardised by mean and SD of the other members, [K, B, N]; 0 where these are all the same."""
    centred_KN = (table_NK - table_NK.mean(axis=0)).T
    count_B1 = members_BN.sum(axis=1, keepdims=True) - 1
    sums, squares = ((members_BN @ power.T).T[:, :, None] - power[:, None, :] for power in (centred_KN, centred_KN**2))
    mean = sums / count_B1
    variance = squares / count_B1 - mean**2
    size_K11 = np.maximum(np.abs(table_NK).max(axis=0), 1e-150)[:, None, None]
    known = variance > 1e-20 * size_K11**2
    return np.where(known, (centred_KN[:, None, :] - mean) / np.sqrt(np.where(known, variance, 1.0)), 0.0)
