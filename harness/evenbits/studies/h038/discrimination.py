"""Which features tell resilient from vulnerable languages, against the null of the whole search.

Null hypothesis: given family, script and resource level, the residual of a language says nothing about its features.
So residuals are exchanged between languages of one family and script (low, high and in between alike), groups are made
anew from the exchanged residuals, and everything is computed again: the effect of every feature, and the choice of the
best. Features that only follow resource level stand out in every arrangement, and so in none.

Shapes: B arrangements, K features, N languages; true/false masks [B, N] of the two groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Verdict
from evenbits.statistics import (
    LARGE_DELTA,
    RESAMPLES,
    Selection,
    benjamini_hochberg,
    cliffs_delta,
    nested_selection_auc,
)
from evenbits.studies.h038.arrangements import ALPHA, Arrangements, arrange, fewest, reachable, standardising
from evenbits.studies.h038.features import EXPECTED, FeatureTable, Usable
from evenbits.studies.h038.groups import Float64, Masks, Refusal, ResilienceGroups
from evenbits.text.languages import families_of

__all__ = ["Discrimination", "deltas", "discriminate", "nested_aucs"]

SELECTIONS = 999
"""Arrangements in which the whole selection is repeated, the first of those that effects are held against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discrimination:
    """What a search over features found. `rows`: one per feature, the decisive one first.

    Signs are fixed: an effect counts in the direction that the hypothesis expects of the feature, and p is one-sided.
    `best`: the decisive feature: of those with q < .05 the one with the largest effect, else the one of smallest p.
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
        """The decisive delta with its interval, above 0 where it goes as expected."""
        return _as_expected(self.best, self.delta)

    @property
    def refuted(self) -> str | None:
        """What is lacking for the finding beside the size of the effect, in a sentence."""
        if self.q >= ALPHA:
            return f"No feature has q < {ALPHA:g}; the smallest is {self.q:.3g} of {self.best}."
        if self.auc_p >= ALPHA:
            return f"The search does not hold on languages left out: p {self.auc_p:.3g}, needed below {ALPHA:g}."
        return None

    @property
    def ruled_out(self) -> bool:
        """Whether the intervals of all features lie below a large effect in the expected direction."""
        limits = [_as_expected(row["feature"], Estimate.from_json(row["delta"])).high for row in self.rows]
        return all(high is not None and high < LARGE_DELTA for high in limits)

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


def _as_expected(name: str, delta: Estimate) -> Estimate:
    """Return a feature's delta, turned where the hypothesis expects less of it in resilient languages."""
    if EXPECTED.get(name, 1) > 0 or delta.value is None:
        return delta
    return replace(
        delta,
        value=-delta.value,
        low=None if delta.high is None else -delta.high,
        high=None if delta.low is None else -delta.low,
        method=f"{delta.method}, sign as expected",
    )


def discriminate(
    groups: ResilienceGroups,
    features: FeatureTable,
    *,
    rng: np.random.Generator,
    arrangements: int | None = None,
    resamples: int = RESAMPLES,
) -> Discrimination | Refusal:
    """Search the features for one that tells the groups apart, or say why the search cannot be made.

    `arrangements`: random ones that effects are held against, by default `arrangements.ARRANGEMENTS`. `resamples`: of
    languages, for the intervals.
    """
    usable = features.over(groups.languages)
    if not usable.names:
        reasons = ", ".join(f"{name} is {reason}" for name, reason in usable.left_out.items())
        return Refusal(
            verdict=Verdict.NOT_APPLICABLE,
            lacking="no feature differs between languages",
            n=len(groups.languages),
            because=f"No feature differs between languages: {reasons}.",
        )
    refusal = _too_small(groups, len(usable.names))
    if refusal is not None:
        return refusal
    null = arrange(groups, features=len(usable.names), rng=rng, count=arrangements)
    if isinstance(null, Refusal):
        return null
    if null.same * len(usable.names) >= ALPHA:
        lacking = f"{null.same:.2g} of the arrangements within family and script give the same groups"
        return Refusal(
            verdict=Verdict.UNDERPOWERED,
            lacking=lacking,
            n=len(groups.languages),
            because=f"{lacking}: no feature of {len(usable.names)} can reach q < {ALPHA:g}. Add related languages.",
        )
    return _searched(groups, usable, null, rng, resamples)


def _searched(
    groups: ResilienceGroups, usable: Usable, null: Arrangements, rng: np.random.Generator, resamples: int
) -> Discrimination:
    resilient, vulnerable = (mask[0] for mask in groups.masks(groups.residual[None]))
    observed = deltas(usable.table, resilient[None], vulnerable[None])[0]
    null_BK = deltas(usable.table, null.resilient, null.vulnerable)
    scale, scale_B1 = standardising(resilient[None], vulnerable[None])[0], null.scale[:, None]
    signs = {name: EXPECTED.get(name, 1) for name in usable.names}
    p = {
        name: null.p_value(
            signs[name] * float(scale * observed[k]), signs[name] * (scale_B1 * null_BK)[:, k], "greater"
        )
        for k, name in enumerate(usable.names)
    }
    q = {name: 1.0 if found is None else found for name, found in benjamini_hochberg(p).items()}
    family = np.array(list(families_of(groups.languages).values()))

    def families(*members: Masks) -> list[str]:
        return [str(name) for mask in members for name in family[mask]]

    found = {
        name: cliffs_delta(
            column[resilient],
            column[vulnerable],
            rng=rng,
            clusters=families(resilient, vulnerable),
            resamples=resamples,
            permutations=1,
        ).estimate
        for name, column in zip(usable.names, usable.table.T, strict=True)
    }
    # Among those found, the largest effect; where none is, the strongest evidence.
    ranked = sorted(
        usable.names,
        key=lambda name: (q[name] >= ALPHA, -signs[name] * (found[name].value or 0.0) if q[name] < ALPHA else p[name]),
    )
    rows = tuple(
        {
            "feature": name,
            "delta": found[name].to_json(),
            "expected_delta": float(null_BK[:, k].mean()),
            "p_value": p[name],
            "q": q[name],
        }
        for name in ranked
        for k in (usable.names.index(name),)
    )
    inside = resilient | vulnerable
    expected = usable.table * np.array([signs[name] for name in usable.names])  # more is expected of the resilient
    selection = nested_selection_auc(
        dict(zip(usable.names, expected[inside].T, strict=True)),
        resilient[inside].tolist(),
        rng=rng,
        clusters=families(inside),
        resamples=resamples,
        permutations=1,
    )
    auc = float(nested_aucs(expected, resilient[None], vulnerable[None])[0])
    few = null.first(SELECTIONS)
    null_B = nested_aucs(expected, few.resilient, few.vulnerable)
    return Discrimination(
        rows=rows,
        best=ranked[0],
        delta=found[ranked[0]],
        q=q[ranked[0]],
        selection=selection,
        # 2 AUC - 1 is the delta of the held-out scores
        auc_p=few.p_value(float(scale * (2 * auc - 1)), few.scale * (2 * null_B - 1), "greater"),
        sizes=(int(resilient.sum()), int(vulnerable.sum())),
        method=null.method,
    )


def _too_small(groups: ResilienceGroups, features: int) -> Refusal | None:
    resilient, vulnerable = len(groups.resilient), len(groups.vulnerable)
    if reachable(resilient, vulnerable, features):
        return None
    tiers = {name: groups.tier.count(name) for name in ("low", "high")}
    lacking = (
        f"{resilient} resilient of {tiers['low']} low-resource and {vulnerable} vulnerable of {tiers['high']} "
        f"high-resource languages, needed {fewest(features)} of each"
    )
    return Refusal(
        verdict=Verdict.UNDERPOWERED,
        lacking=lacking,
        n=resilient + vulnerable,
        because=f"{lacking}: in smaller groups even a perfect split among {features} features can have q >= {ALPHA:g}. "
        "Add languages with --languages or a corpus that has them.",
    )


def deltas(table_NK: Float64, resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return Cliff's delta of every feature, resilient against vulnerable, in every arrangement: [B, K]."""
    signs_KNN = np.sign(table_NK.T[:, :, None] - table_NK.T[:, None, :])
    first, second = resilient_BN.astype(np.float64), vulnerable_BN.astype(np.float64)
    beaten_KBN = np.matmul(second, signs_KNN.transpose(0, 2, 1))
    pairs_B = first.sum(axis=1) * second.sum(axis=1)
    return np.asarray(((beaten_KBN * first).sum(axis=2) / pairs_B).T)


def nested_aucs(table_NK: Float64, resilient_BN: Masks, vulnerable_BN: Masks) -> Float64:
    """Return the AUC of `nested_selection_auc` in every arrangement, whose groups may differ in size: [B].

    `table_NK`: features turned so that more is expected of the resilient. For each language left out, the feature with
    the largest AUC on the other members is chosen; its score is its value standardised by mean and SD of these. The AUC
    is over the pooled scores.
    """
    from scipy.stats import rankdata

    signs_KNN = np.sign(table_NK.T[:, :, None] - table_NK.T[:, None, :])
    first, second = resilient_BN.astype(np.float64), vulnerable_BN.astype(np.float64)
    over_first_KBN = np.matmul(first, signs_KNN.transpose(0, 2, 1))
    over_second_KBN = np.matmul(second, signs_KNN.transpose(0, 2, 1))
    total_KB1 = (over_second_KBN * first).sum(axis=2, keepdims=True)
    left_KBN = np.where(resilient_BN, total_KB1 - over_second_KBN, total_KB1 + over_first_KBN)
    chosen_BN = left_KBN.argmax(axis=0)
    b, i = np.indices(chosen_BN.shape)
    standard_KBN = _standardised_left_out(table_NK, first + second)
    scores_BN = standard_KBN[chosen_BN, b, i]
    # by ranks (Mann & Whitney 1947): pairs won less pairs lost, with languages of neither group beyond all others
    ranks_BN = rankdata(np.where(resilient_BN | vulnerable_BN, scores_BN, np.inf), axis=1)
    n, m = first.sum(axis=1), second.sum(axis=1)
    won_B = 2 * (ranks_BN * first).sum(axis=1) - n * (n + 1) - n * m
    return np.asarray((won_B / (n * m) + 1) / 2)


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
