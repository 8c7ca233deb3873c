"""Partial pooling: a language's damage estimated from its own segments and, as far as they are few, from the others.

Random effects: damage[l, s] = mean + family + language + segment + residual, languages in families, segments crossed
with languages. Variance components by equating mean squares with their expectations (Henderson's method; Searle,
Casella & McCulloch 1992, chapter 5), and the best linear unbiased predictor with them. The largest of several raw means
is too large (1.3 to 1.4 times at five segments): pooled ones are not.

Shapes: L languages, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics.samples import FloatArray, finite, group_codes

__all__ = ["Components", "pooled_means", "variance_components"]

NO_INTERVAL = (
    "no interval: one around a mean drawn towards others holds on average over languages, not for the language that is "
    "looked at; the raw mean beside it has one"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Components(Row):
    """Mean and variances of damage, in its unit and the square of it.

    Between families, between languages of one family, between segments (shared by all languages), and what is left of
    one segment in one language.
    """

    mean: float
    family: float
    language: float
    segment: float
    residual: float


def variance_components(damage: ArrayLike, families: Sequence[str]) -> Components:
    """Return the components of `damage` [L, S]; what comes out below 0 is 0. Needs 3 languages and 2 segments."""
    table = finite(damage, "damage", ndim=2)
    languages, segments = table.shape
    if languages < 3 or segments < 2:
        raise ValueError(f"{languages} languages x {segments} segments: variance components need 3 x 2")
    codes = group_codes(families, languages, "families")
    mean, by_language, by_segment = table.mean(), table.mean(axis=1), table.mean(axis=0)
    left = table - by_language[:, None] - by_segment + mean
    residual = float((left**2).sum()) / ((languages - 1) * (segments - 1))
    segment = max(0.0, float(by_segment.var(ddof=1)) - residual / languages)
    sizes = np.bincount(codes)
    count = len(sizes)
    of_family = np.bincount(codes, weights=by_language) / sizes
    within = languages - count
    if within > 0 and count > 1:
        inside = float(((by_language - of_family[codes]) ** 2).sum()) / within
        between = float((sizes * (of_family - by_language.mean()) ** 2).sum()) / (count - 1)
        size = (languages - float((sizes**2).sum()) / languages) / (count - 1)
        family = max(0.0, (between - inside) / size)
    else:  # every language its own family, or all of one: the two cannot be told apart
        inside, family = float(by_language.var(ddof=1)), 0.0
    return Components(
        mean=float(mean),
        family=family,
        language=max(0.0, inside - residual / segments),
        segment=segment,
        residual=residual,
    )


def pooled_means(damage: Mapping[str, ArrayLike], families: Mapping[str, str]) -> dict[str, Estimate]:
    """Return each language's mean damage, drawn towards its family and all languages as far as its segments are few.

    `damage`: by language its aligned segments [S]. No interval: the predictor's error is known on average over
    languages; where damage spreads in proportion to its size, an interval from it covered .40 to .60 for the language
    shown as worst. Undefined for fewer than three languages or two segments.
    """
    tags = list(damage)
    method = "partial pooling over languages in families, segments crossed"
    sizes = {len(np.atleast_1d(np.asarray(values))) for values in damage.values()}
    if len(tags) < 3 or len(sizes) != 1 or min(sizes) < 2:
        reason = f"{len(tags)} languages with {min(sizes, default=0)} segments: pooling needs 3 with the same 2 or more"
        return {tag: Estimate.undefined(reason, method=method) for tag in tags}
    table = finite(np.stack([np.asarray(damage[tag], dtype=np.float64) for tag in tags]), "damage", ndim=2)
    languages, segments = table.shape
    names = [families[tag] for tag in tags]
    found = variance_components(table, names)
    codes = group_codes(names, languages, "families")
    own = found.family * (codes[:, None] == codes) + found.language * np.eye(languages)
    value = _predicted(table.mean(axis=1), own, found.residual / segments)
    return {
        tag: Estimate(value=value[place], n=segments, method=method, reason=NO_INTERVAL)
        for place, tag in enumerate(tags)
    }


def _predicted(means_L: FloatArray, own_LL: FloatArray, noise: float) -> FloatArray:
    """Return the best linear unbiased predictor of each language, [L]."""
    if noise <= 0:  # nothing to draw back from
        return means_L.copy()
    inverse = np.linalg.inv(own_LL + noise * np.eye(len(means_L)))
    centre = float(inverse.sum(axis=0) @ means_L) / float(inverse.sum())
    return np.asarray(centre + own_LL @ inverse @ (means_L - centre))
