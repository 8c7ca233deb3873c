"""Disparity between groups of languages, on the crossed bootstrap of segments, families and languages.

Shapes: B replicates, L languages, K conditions, S segments, G = 2 groups.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics.bootstrap import RESAMPLES
from evenbits.statistics.crossed import (
    CrossedBootstrap,
    Design,
    MeansStatistic,
    bounded_estimate,
    crossed_bootstrap,
)
from evenbits.statistics.equivalence import LOG_PARITY, Equivalence, bootstrap_equivalence
from evenbits.statistics.samples import FloatArray, checked_confidence

__all__ = [
    "Disparity",
    "disparities",
    "disparity",
    "disparity_change",
    "group_contrast",
    "language_mean",
    "over_all",
    "paired_disparity",
    "without_each_family",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Disparity(Row):
    """Damage of low-resource against high-resource languages in one condition.

    `low`, `high`: means over languages of mean damage. `difference` = low - high, `ratio` = low / high, `log_ratio` its
    natural logarithm; the last two are undefined where the high mean is not above its noise floor. `parity`: two
    one-sided tests of the log ratio against +-log 1.25. `log_ratio_replicates` [B] and `relative` [L], each
    language's damage over the mean of its group: for `disparity_change`.
    """

    low: Estimate
    high: Estimate
    difference: Estimate
    ratio: Estimate
    log_ratio: Estimate
    parity: Equivalence
    log_ratio_replicates: FloatArray = field(repr=False, compare=False)
    relative: FloatArray = field(repr=False, compare=False)
    design: Design = field(repr=False, compare=False)


def disparity(
    damage: Mapping[str, ArrayLike],
    *,
    low: Sequence[str],
    high: Sequence[str],
    rng: np.random.Generator,
    families: Mapping[str, str] | None = None,
    noise_floor: float = 0.0,
    margin: float = LOG_PARITY,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    aligned: bool = True,
) -> Disparity:
    """Return the disparity of one condition: `damage` maps each language to its segments [S]. See `disparities`."""
    return disparities(
        damage,
        low=low,
        high=high,
        rng=rng,
        families=families,
        noise_floor=noise_floor,
        margin=margin,
        alpha=alpha,
        confidence=confidence,
        resamples=resamples,
        aligned=aligned,
    )[0]


def disparities(
    damage: Mapping[str, ArrayLike],
    *,
    low: Sequence[str],
    high: Sequence[str],
    rng: np.random.Generator,
    families: Mapping[str, str] | None = None,
    noise_floor: float | Sequence[float] = 0.0,
    margin: float = LOG_PARITY,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    aligned: bool = True,
) -> tuple[Disparity, ...]:
    """Return the disparity in each of K conditions; `damage` maps each language to [K, S] in one unit (excess bits).

    All conditions share the draws of segments and languages, so they can be compared in pairs (`disparity_change`).
    `families`: language -> family, drawn as in `crossed_bootstrap`. `noise_floor`: of the high-resource mean, in the
    unit of damage, one for all conditions or one for each.
    Raises `ValueError` for an empty group, a language in both, or one without damage.
    """
    checked_confidence(confidence)
    groups = _groups(damage, low, high)
    tags = list(groups)

    def group_means(means: FloatArray) -> FloatArray:
        return np.concatenate([means, _two_means(means, len(low))], axis=1)

    drawn = crossed_bootstrap(
        {tag: damage[tag] for tag in tags},
        group_means,
        rng=rng,
        groups=groups,
        families=families,
        confidence=confidence,
        resamples=resamples,
        aligned=aligned,
    )
    count = drawn.value.shape[1]
    floors = np.broadcast_to(np.asarray(noise_floor, dtype=np.float64), (count,))
    if not (np.isfinite(floors).all() and (floors >= 0).all()):
        raise ValueError(f"noise_floor must be 0 or more, got {noise_floor}")
    clusters = tuple(tags) if families is None else tuple(families[tag] for tag in tags)
    design = _design(groups, clusters)
    return tuple(
        _one(drawn, k, float(floors[k]), design, margin=margin, alpha=alpha, confidence=confidence)
        for k in range(count)
    )


def _design(groups: Mapping[str, str], clusters: tuple[str, ...]) -> Design:
    """Return the design of a mean over low minus one over high."""
    sizes = Counter(groups.values())
    contrast = tuple((1 if group == "low" else -1) / sizes[group] for group in groups.values())
    return Design(contrast=contrast, groups=tuple(groups.values()), clusters=clusters)


def _two_means(means_BLK: FloatArray, low: int) -> FloatArray:
    """Return the means of the first `low` languages and of the others, [B, 2, K]."""
    return np.stack([means_BLK[:, :low].mean(axis=1), means_BLK[:, low:].mean(axis=1)], axis=1)


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
    drawn: CrossedBootstrap, k: int, floor: float, design: Design, *, margin: float, alpha: float, confidence: float
) -> Disparity:
    n = len(design.groups)
    languages, (low, high) = drawn.value[:n, k], (float(drawn.value[place, k]) for place in (-2, -1))
    lows, highs = drawn.replicates[:, -2, k], drawn.replicates[:, -1, k]
    low_B, high_B = drawn.drawn[:, -2, k], drawn.drawn[:, -1, k]
    is_low = np.array([group == "low" for group in design.groups])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a resampled mean may be all but zero
        ratios = np.where(high_B > 0, low_B / high_B, np.where(low_B > 0, np.inf, np.nan))
        logs = np.where(ratios > 0, np.log(ratios), np.where(high_B > 0, -np.inf, np.nan))
        relative = languages / np.where(is_low, low, high)

    def mean(name: str) -> Estimate:
        side, value, replicates = (is_low, low, lows) if name == "low" else (~is_low, high, highs)
        own = replace(design, contrast=tuple(side / side.sum()))
        found = own.widened(value, replicates, languages, confidence=confidence)
        method = f"mean of {name}-resource languages; {drawn.method}"
        return bounded_estimate(value, found, n=int(side.sum()), method=method, confidence=confidence)

    ratio, log_ratio, parity = _ratios(
        drawn.method, n, (low, high, floor), logs, design, relative, margin=margin, alpha=alpha, confidence=confidence
    )
    return Disparity(
        low=mean("low"),
        high=mean("high"),
        difference=bounded_estimate(
            low - high,
            design.widened(low - high, lows - highs, languages, confidence=confidence),
            n=n,
            method=f"disparity difference; {drawn.method}",
            confidence=confidence,
        ),
        ratio=ratio,
        log_ratio=log_ratio,
        parity=parity,
        log_ratio_replicates=logs,
        relative=relative,
        design=design,
    )


def _ratios(  # noqa: PLR0917 - private: what `_one` has at hand
    drawn: str,
    n: int,
    means: tuple[float, float, float],
    logs: FloatArray,
    design: Design,
    relative: FloatArray,
    *,
    margin: float,
    alpha: float,
    confidence: float,
) -> tuple[Estimate, Estimate, Equivalence]:
    """Return ratio, log ratio and parity of low over high, or the reason why one is undefined."""
    low, high, floor = means
    method, method_log = f"disparity ratio; {drawn}", f"log disparity ratio; {drawn}"
    why = None
    if high <= floor or not math.isfinite(low / high):
        limit = f"its noise floor, {floor:.4g}" if high <= floor else "0 by enough to divide by"
        why = f"the mean of the high-resource languages, {high:.4g}, is not above {limit}"
        ratio = Estimate.undefined(why, n=n, method=method)
    elif low <= 0:
        why = f"the mean of the low-resource languages, {low:.4g}, is not above 0"
        ratios = np.where(np.isnan(logs), np.nan, np.exp(np.minimum(logs, 700.0)))
        ratio = bounded_estimate(low / high, ratios, n=n, method=method, confidence=confidence)
    if why is not None:
        nothing = Equivalence.undefined(why, margin=margin, alpha=alpha, n=n)
        return ratio, Estimate.undefined(why, n=n, method=method_log), nothing
    value = math.log(low / high)
    wide = design.widened(value, logs, relative, shared=False, confidence=confidence)
    log_ratio = bounded_estimate(value, wide, n=n, method=method_log, confidence=confidence)
    ratio = replace(log_ratio, value=low / high, low=_exp(log_ratio.low), high=_exp(log_ratio.high), method=method)
    return ratio, log_ratio, bootstrap_equivalence(value, wide, n=n, margin=margin, alpha=alpha)


def _exp(value: float | None) -> float | None:
    return None if value is None or value > 700 else math.exp(value)


def disparity_change(before: Disparity, after: Disparity, *, confidence: float = 0.95) -> Estimate:
    """Return log ratio after - before with a paired interval; both must come from one call of `disparities`."""
    if len(before.log_ratio_replicates) != len(after.log_ratio_replicates):
        raise ValueError("before and after do not share their draws: compute both in one call of disparities")
    n = before.log_ratio.n
    values = []
    for name, side in (("before", before), ("after", after)):
        if side.log_ratio.value is None:
            return Estimate.undefined(f"{name}: {side.log_ratio.reason}", n=n, method="change of log disparity ratio")
        values.append(side.log_ratio.value)
    with np.errstate(invalid="ignore"):
        changes = after.log_ratio_replicates - before.log_ratio_replicates
    method = f"change of log disparity ratio, paired draws, {len(changes)} resamples"
    change = values[1] - values[0]
    relative = after.relative - before.relative
    wide = after.design.widened(change, changes, relative, shared=False, confidence=confidence)
    return bounded_estimate(change, wide, n=n, method=method, confidence=confidence)


def group_contrast(
    damage: Mapping[str, ArrayLike],
    change: MeansStatistic,
    *,
    low: Sequence[str],
    high: Sequence[str],
    rng: np.random.Generator,
    what: str,
    families: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return the mean over low-resource minus that over high-resource languages of one number per language.

    `change` maps language means [B, L, K] to that number, [B, L]; segments, families and languages are drawn as in
    `disparities`.
    """
    groups = _groups(damage, low, high)

    def contrast(means: FloatArray) -> FloatArray:
        numbers = change(means)
        two = _two_means(numbers[:, :, None], len(low))
        return np.concatenate([numbers, two[:, 0] - two[:, 1]], axis=1)

    drawn = crossed_bootstrap(
        {tag: damage[tag] for tag in groups},
        contrast,
        rng=rng,
        groups=groups,
        families=families,
        confidence=confidence,
        resamples=resamples,
    )
    value, numbers = float(drawn.value[-1]), drawn.value[:-1]
    clusters = tuple(groups) if families is None else tuple(families[tag] for tag in groups)
    wide = _design(groups, clusters).widened(value, drawn.drawn[:, -1], numbers, shared=False, confidence=confidence)
    return bounded_estimate(value, wide, n=len(groups), method=f"{what}; {drawn.method}", confidence=confidence)


def paired_disparity(
    damage: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    families: Mapping[str, str] | None = None,
    noise_floor: float = 0.0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return the log disparity ratio where every language is its own control.

    `damage`: by language [2, S], with little and with much training text, in models that mirror each other. The mean
    over languages of the first over that of the second; what makes a language hard as such is in both and cancels, so
    that it needs a fraction of the languages that two tiers of one model need. Undefined where a mean is not above 0,
    or that of the second not above `noise_floor`, in the unit of damage.
    """
    tags, method = list(damage), "log disparity ratio, each language its own control"

    def log_ratio(means: FloatArray) -> FloatArray:
        low, high = means[:, :, 0].mean(axis=1), means[:, :, 1].mean(axis=1)
        known = (low > 0) & (high > 0)
        logs = np.log(np.where(known, low, 1.0) / np.where(known, high, 1.0))
        return np.column_stack([means.reshape(len(means), -1), np.where(known, logs, np.nan)])

    drawn = crossed_bootstrap(damage, log_ratio, rng=rng, families=families, confidence=confidence, resamples=resamples)
    value, means_L2 = float(drawn.value[-1]), drawn.value[:-1].reshape(-1, 2)
    if not math.isfinite(value):
        return Estimate.undefined("a mean over languages is not above 0", n=len(tags), method=method)
    if (below := float(means_L2[:, 1].mean())) <= noise_floor:
        reason = f"the mean with much training text, {below:.4g}, is not above its noise floor, {noise_floor:.4g}"
        return Estimate.undefined(reason, n=len(tags), method=method)
    relative = means_L2[:, 0] / means_L2[:, 0].mean() - means_L2[:, 1] / means_L2[:, 1].mean()
    wide = over_all(tags, families).widened(value, drawn.drawn[:, -1], relative, shared=False, confidence=confidence)
    return bounded_estimate(value, wide, n=len(tags), method=f"{method}; {drawn.method}", confidence=confidence)


def language_mean(
    damage: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    what: str,
    families: Mapping[str, str] | None = None,
    change: MeansStatistic | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return the mean over languages of one number per language, with segments, families and languages drawn.

    The number is mean damage [S], or what `change` maps language means [B, L, K] to, [B, L].
    """
    tags = list(damage)

    def mean(means: FloatArray) -> FloatArray:
        numbers = means[:, :, 0] if change is None else change(means)
        return np.concatenate([numbers, numbers.mean(axis=1, keepdims=True)], axis=1)

    drawn = crossed_bootstrap(damage, mean, rng=rng, families=families, confidence=confidence, resamples=resamples)
    return drawn.widened((len(tags),), over_all(tags, families), drawn.value[:-1], what=what)


def over_all(tags: Sequence[str], families: Mapping[str, str] | None) -> Design:
    """Return the design of a mean over all languages."""
    clusters = tuple(tags) if families is None else tuple(families[tag] for tag in tags)
    return Design(contrast=(1 / len(tags),) * len(tags), groups=("",) * len(tags), clusters=clusters)


def without_each_family(
    means: Mapping[str, float], *, low: Sequence[str], high: Sequence[str] = (), families: Mapping[str, str]
) -> dict[str, float]:
    """Return low - high of the means over languages with each family left out in turn; without `high`, low alone.

    A family without which a tier is empty is left out of the answer: tier and family cannot be told apart then.
    """
    found = {}
    for name in dict.fromkeys(families[tag] for tag in (*low, *high)):
        sides = [[means[tag] for tag in tags if families[tag] != name] for tags in (low, high) if tags]
        if all(sides):
            found[name] = float(np.mean(sides[0]) - (np.mean(sides[1]) if high else 0.0))
    return found
