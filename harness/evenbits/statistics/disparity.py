"""Disparity between groups of languages, with two levels of resampling: segments and languages.

Aligned data are crossed, not nested: segment i is the same content in every language. A hard segment is hard in all of
them, so its draw must be shared: each replicate draws segment ids once for all languages and all conditions
(precisions, values of k), and languages within their group. Drawing segments afresh per language would treat shared
difficulty as independent, and understate what moves the languages of both groups together. This is the pigeonhole
bootstrap (Owen, Annals of Applied Statistics 2007), whose variance is slightly too large rather than too small.
`aligned=False` draws segments per language (nested) for texts that do not correspond.

Shapes: B replicates, L languages, K conditions, S segments, G = 2 groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, checked_resamples, percentile_interval, resample_counts
from evenbits.statistics.equivalence import LOG_PARITY, Equivalence, bootstrap_equivalence
from evenbits.statistics.samples import FloatArray, checked_confidence, finite

__all__ = ["CrossedBootstrap", "Disparity", "crossed_bootstrap", "disparities", "disparity", "disparity_change"]

FEW_LANGUAGES = 5  # a bootstrap of n units shrinks the variance by (n - 1) / n: below this, by more than a fifth

MeansStatistic = Callable[[FloatArray], FloatArray]
"""Maps language means [B, L, K], languages in the order of the input, to values [B, ...]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossedBootstrap:
    """A statistic of language means: `value` [...] on the data, `replicates` [B, ...] under resampling."""

    languages: tuple[str, ...]
    value: FloatArray = field(repr=False, compare=False)
    replicates: FloatArray = field(repr=False, compare=False)
    method: str

    def estimate(self, index: tuple[int, ...] = (), *, confidence: float = 0.95, what: str = "statistic") -> Estimate:
        """Return entry `index` with its percentile interval; a limit that is not finite is None, with the reason."""
        value = float(self.value[index])
        replicates = np.array([row[index] for row in self.replicates])
        return bounded_estimate(
            value, replicates, n=len(self.languages), method=f"{what}; {self.method}", confidence=confidence
        )  # fmt: skip


def bounded_estimate(
    value: float, replicates: FloatArray, *, n: int, method: str, confidence: float, limited: str | None = None
) -> Estimate:
    """Return `value` with a percentile interval; undefined replicates widen it on both sides."""
    if not math.isfinite(value):
        return Estimate.undefined(limited or "the statistic is undefined on the data", n=n, method=method)
    unknown = np.isnan(replicates)
    low = percentile_interval(np.where(unknown, -np.inf, replicates), confidence)[0]
    high = percentile_interval(np.where(unknown, np.inf, replicates), confidence)[1]
    reasons = [limited] if limited else []
    lost = int(np.count_nonzero(~np.isfinite(replicates)))
    if not (math.isfinite(low) and math.isfinite(high)):
        reasons.append(f"open interval: unbounded or undefined in {lost} of {len(replicates)} resamples")
    return Estimate(
        value=value,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        n=n,
        method=f"{method}; {confidence:.0%} percentile interval",
        reason="; ".join(reasons) or None,
    )


def crossed_bootstrap(
    damage: Mapping[str, ArrayLike],
    statistic: MeansStatistic,
    *,
    rng: np.random.Generator,
    groups: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    aligned: bool = True,
    resample_languages: bool = True,
) -> CrossedBootstrap:
    """Bootstrap `statistic` of language means over segments and languages at once.

    `damage`: per language an array [K, S] (or [S] for one condition). `groups`: language -> group; languages are drawn
    with replacement within their group, so that position l of the means always belongs to the group of language l;
    None: one group. `aligned`: segments are shared by all languages (see above); then S must be equal.
    `resample_languages=False` holds the languages fixed: the interval then speaks of these languages only.
    """
    checked_resamples(resamples)
    languages = tuple(damage)
    if not languages:
        raise ValueError("damage is empty: name at least one language")
    tables = _tables(damage, aligned=aligned)
    if groups is not None and set(languages) - set(groups):
        raise ValueError(f"groups does not name {', '.join(sorted(set(languages) - set(groups)))}")
    means = np.stack([table.mean(axis=1) for table in tables])[None]
    drawn = _segment_means(tables, resamples, rng, aligned=aligned)
    if resample_languages:
        labels = np.array(["" if groups is None else groups[tag] for tag in languages])
        chosen = np.empty((resamples, len(languages)), dtype=np.int64)
        for label in dict.fromkeys(labels.tolist()):
            members = np.flatnonzero(labels == label)
            chosen[:, members] = members[rng.integers(0, len(members), (resamples, len(members)))]
        drawn = drawn[np.arange(resamples)[:, None], chosen]
    levels = ("segments " + ("shared by" if aligned else "within")) + " languages"
    method = f"bootstrap over {levels}{' and languages' if resample_languages else ''}, {resamples} resamples"
    value, replicates = np.asarray(statistic(means))[0], np.asarray(statistic(drawn))
    return CrossedBootstrap(languages=languages, value=value, replicates=replicates, method=method)


def _tables(damage: Mapping[str, ArrayLike], *, aligned: bool) -> list[FloatArray]:
    tables = []
    for language, values in damage.items():
        table = finite(np.atleast_2d(np.asarray(values, dtype=np.float64)), f"damage[{language!r}]", ndim=2)
        if table.shape[1] == 0:
            raise ValueError(f"damage[{language!r}] has no segments")
        tables.append(table)
        if table.shape[0] != tables[0].shape[0]:
            raise ValueError(f"damage[{language!r}] has {table.shape[0]} conditions, needed {tables[0].shape[0]}")
        if aligned and table.shape[1] != tables[0].shape[1]:
            raise ValueError(
                f"damage[{language!r}] has {table.shape[1]} segments, needed {tables[0].shape[1]}: "
                "aligned segments are the same in all languages; pass aligned=False where they are not"
            )
    return tables


def _segment_means(tables: list[FloatArray], resamples: int, rng: np.random.Generator, *, aligned: bool) -> FloatArray:
    """Return language means under resampled segments: [B, L, K]."""
    if aligned:
        cube = np.stack(tables)
        weights = resample_counts(cube.shape[2], resamples, rng) / cube.shape[2]
        return np.asarray((weights @ cube.reshape(-1, cube.shape[2]).T).reshape(resamples, *cube.shape[:2]))
    return np.stack([resample_counts(t.shape[1], resamples, rng) @ t.T / t.shape[1] for t in tables], axis=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Disparity:
    """Damage of low-resource against high-resource languages in one condition.

    `low`, `high`: means over languages of mean damage. `difference` = low - high, `ratio` = low / high, `log_ratio` its
    natural logarithm; the last two are undefined where the high mean is not above its noise floor. `parity`: two
    one-sided tests of the log ratio against +-log 1.25. `log_ratio_replicates` [B]: for
    `disparity_change`.
    """

    low: Estimate
    high: Estimate
    difference: Estimate
    ratio: Estimate
    log_ratio: Estimate
    parity: Equivalence
    log_ratio_replicates: FloatArray = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        names = ("low", "high", "difference", "ratio", "log_ratio", "parity")
        return {name: getattr(self, name).to_json() for name in names}


def disparity(damage: Mapping[str, ArrayLike], *, low: Sequence[str], high: Sequence[str],
              rng: np.random.Generator, noise_floor: float = 0.0, margin: float = LOG_PARITY, alpha: float = 0.05,
              confidence: float = 0.95, resamples: int = RESAMPLES, aligned: bool = True,
              resample_languages: bool = True) -> Disparity:  # fmt: skip
    """Return the disparity of one condition: `damage` maps each language to its segments [S]. See `disparities`."""
    return disparities(
        damage, low=low, high=high, rng=rng, noise_floor=noise_floor, margin=margin, alpha=alpha,
        confidence=confidence, resamples=resamples, aligned=aligned, resample_languages=resample_languages,
    )[0]  # fmt: skip


def disparities(
    damage: Mapping[str, ArrayLike],
    *,
    low: Sequence[str],
    high: Sequence[str],
    rng: np.random.Generator,
    noise_floor: float | Sequence[float] = 0.0,
    margin: float = LOG_PARITY,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    aligned: bool = True,
    resample_languages: bool = True,
) -> tuple[Disparity, ...]:
    """Return the disparity in each of K conditions; `damage` maps each language to [K, S] in one unit (excess bits).

    All conditions share the draws of segments and languages, so they can be compared in pairs (`disparity_change`).
    `noise_floor`: of the high-resource mean, in the unit of damage, one for all conditions or one for each.
    Raises `ValueError` for an empty group, a language in both, or one without damage.
    """
    checked_confidence(confidence)
    groups = _groups(damage, low, high)
    tags = list(groups)
    members_low, members_high = np.arange(len(low)), np.arange(len(low), len(tags))

    def group_means(means: FloatArray) -> FloatArray:
        return np.stack([means[:, members_low].mean(axis=1), means[:, members_high].mean(axis=1)], axis=1)

    drawn = crossed_bootstrap(
        {tag: damage[tag] for tag in tags}, group_means, rng=rng, groups=groups, resamples=resamples,
        aligned=aligned, resample_languages=resample_languages,
    )  # fmt: skip
    count = drawn.value.shape[1]
    floors = np.broadcast_to(np.asarray(noise_floor, dtype=np.float64), (count,))
    if not (np.isfinite(floors).all() and (floors >= 0).all()):
        raise ValueError(f"noise_floor must be 0 or more, got {noise_floor}")
    sizes = (len(low), len(high))
    return tuple(
        _one(drawn, k, float(floors[k]), sizes, margin=margin, alpha=alpha, confidence=confidence)
        for k in range(count)
    )  # fmt: skip


def _groups(damage: Mapping[str, ArrayLike], low: Sequence[str], high: Sequence[str]) -> dict[str, str]:
    for name, tags in (("low", low), ("high", high)):
        if not tags:
            raise ValueError(f"{name} names no language: a disparity needs at least one in each group")
        missing = sorted(set(tags) - set(damage))
        if missing:
            raise ValueError(f"{name} names {', '.join(missing)}, for which there is no damage")
        if len(set(tags)) != len(tags):
            raise ValueError(f"{name} names a language twice")
    both = sorted(set(low) & set(high))
    if both:
        raise ValueError(f"{', '.join(both)} is both in low and in high")
    return dict.fromkeys(low, "low") | dict.fromkeys(high, "high")


def _one(
    drawn: CrossedBootstrap,
    k: int,
    floor: float,
    sizes: tuple[int, int],
    *,
    margin: float,
    alpha: float,
    confidence: float,
) -> Disparity:
    low, high = (float(drawn.value[g, k]) for g in (0, 1))
    lows, highs = drawn.replicates[:, 0, k], drawn.replicates[:, 1, k]
    n = sum(sizes)
    few = None
    if min(sizes) < FEW_LANGUAGES and "and languages" in drawn.method:
        few = f"{min(sizes)} languages in the smaller group: the interval is too narrow"

    def estimate(value: float, replicates: FloatArray, what: str, why: str | None = few, count: int = n) -> Estimate:
        method = f"{what}; {drawn.method}"
        return bounded_estimate(value, replicates, n=count, method=method, confidence=confidence, limited=why)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a resampled mean may be all but zero
        ratios = np.where(highs > 0, lows / highs, np.where(lows > 0, np.inf, np.nan))
        logs = np.where(ratios > 0, np.log(ratios), np.where(highs > 0, -np.inf, np.nan))
    if high <= floor or not math.isfinite(low / high):
        limit = f"its noise floor, {floor:.4g}" if high <= floor else "0 by enough to divide by"
        why = f"the mean of the high-resource languages, {high:.4g}, is not above {limit}"
        ratio = log_ratio = Estimate.undefined(why, n=n, method=f"disparity ratio; {drawn.method}")
    else:
        ratio = estimate(low / high, ratios, "disparity ratio")
        why = f"the mean of the low-resource languages, {low:.4g}, is not above 0"
        log_ratio = (
            estimate(math.log(low / high), logs, "log disparity ratio")
            if low > 0
            else Estimate.undefined(why, n=n, method=f"log disparity ratio; {drawn.method}")
        )
    parity = (
        Equivalence.undefined(str(log_ratio.reason), margin=margin, alpha=alpha, n=n)
        if log_ratio.value is None
        else bootstrap_equivalence(log_ratio.value, logs, n=n, margin=margin, alpha=alpha)
    )
    return Disparity(
        low=estimate(low, lows, "mean of low-resource languages", count=sizes[0]),
        high=estimate(high, highs, "mean of high-resource languages", count=sizes[1]),
        difference=estimate(low - high, lows - highs, "disparity difference"),
        ratio=ratio, log_ratio=log_ratio, parity=parity, log_ratio_replicates=logs,
    )  # fmt: skip


def disparity_change(before: Disparity, after: Disparity, *, confidence: float = 0.95) -> Estimate:
    """Return log ratio after - before with a paired interval; both must come from one call of `disparities`."""
    if len(before.log_ratio_replicates) != len(after.log_ratio_replicates):
        raise ValueError("before and after do not share their draws: compute both in one call of disparities")
    n = before.log_ratio.n
    for name, side in (("before", before), ("after", after)):
        if side.log_ratio.value is None:
            return Estimate.undefined(f"{name}: {side.log_ratio.reason}", n=n, method="change of log disparity ratio")
    assert before.log_ratio.value is not None  # noqa: S101 - tells mypy what the loop above has settled
    assert after.log_ratio.value is not None  # noqa: S101 - same
    with np.errstate(invalid="ignore"):
        changes = after.log_ratio_replicates - before.log_ratio_replicates
    method = f"change of log disparity ratio, paired draws, {len(changes)} resamples"
    change = after.log_ratio.value - before.log_ratio.value
    return bounded_estimate(change, changes, n=n, method=method, confidence=confidence)
