"""The crossed bootstrap: segments and languages resampled at once, languages by family where families lie in a group.

Aligned data are crossed, not nested: segment i is the same content in every language. A hard segment is hard in all of
them, so its draw must be shared: each replicate draws segment ids once for all languages and all conditions
(precisions, values of k), and languages within their group. Drawing segments afresh per language would treat shared
difficulty as independent, and understate what moves the languages of both groups together. This is the pigeonhole
bootstrap (Owen, Annals of Applied Statistics 2007), whose variance is slightly too large rather than too small.
`aligned=False` draws segments per language (nested) for texts that do not correspond.

Resamples of few segments are too narrow, whatever is computed of them: with 3 a mean over one language that is zero was
shown not to be in .20 instead of .05, and over 33 languages, of whose spread segments share half, in .24. So below
`FEW_SEGMENTS` what segments add is not drawn from them: it is normal, as wide as Student's t of their mean. For ratios
they are drawn all the same (`CrossedBootstrap.drawn`).

Languages of one family move together. A family that lies in one group is drawn as a whole, then its languages; one with
languages in both is not, as its effect cancels. What few languages or families understate is put right by the
random-effects model of `clusters.widening`.

Shapes: B replicates, L languages, K conditions, S segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.numbers import percent
from evenbits.statistics.bootstrap import RESAMPLES, checked_resamples, percentile_interval, resample_counts
from evenbits.statistics.clusters import drawn_units, widening
from evenbits.statistics.samples import FloatArray, IntArray, checked_confidence, finite

__all__ = ["CrossedBootstrap", "Design", "MeansStatistic", "bounded_estimate", "crossed_bootstrap"]

FEW_SEGMENTS = 20
"""Below so many, segments are not resampled: their part is Student's t, as in `means.mean_interval`."""

STUDENT = ", few segments by Student's t"

MeansStatistic = Callable[[FloatArray], FloatArray]
"""Maps language means [B, L, K], languages in the order of the input, to values [B, ...]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossedBootstrap:
    """A statistic of language means: `value` [...] on the data, `replicates` [B, ...] under resampling.

    `confidence`: of the intervals that it is read for. `drawn` [B, ...]: replicates with segments drawn however few
    they are. Ratios take these: in them what segments share cancels, languages say how wide their interval is, and
    segments spread beyond what was seen would only take them to where a ratio is not near linear.
    """

    languages: tuple[str, ...]
    value: FloatArray = field(repr=False, compare=False)
    replicates: FloatArray = field(repr=False, compare=False)
    drawn: FloatArray = field(repr=False, compare=False)
    method: str
    confidence: float

    def estimate(self, index: tuple[int, ...] = (), *, what: str = "statistic") -> Estimate:
        """Return entry `index` with its percentile interval; a limit that is not finite is None, with the reason."""
        value = float(self.value[index])
        replicates = np.array([row[index] for row in self.replicates])
        return bounded_estimate(
            value, replicates, n=len(self.languages), method=f"{what}; {self.method}", confidence=self.confidence
        )

    def widened(
        self, index: tuple[int, ...], design: Design, values: FloatArray, *, what: str = "statistic"
    ) -> Estimate:
        """Return `estimate` with the spread that few languages or families call for; `values` as `Design.widened`."""
        value = float(self.value[index])
        replicates = np.array([row[index] for row in self.replicates])
        return bounded_estimate(
            value,
            design.widened(value, replicates, values, confidence=self.confidence),
            n=len(self.languages),
            method=f"{what}; {self.method}",
            confidence=self.confidence,
        )


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
    if unknown.all():
        reasons.append("no interval: every resample is undefined, as those of a single segment are")
    elif not (math.isfinite(low) and math.isfinite(high)):
        reasons.append(f"open interval: unbounded or undefined in {lost} of {len(replicates)} resamples")
    return Estimate(
        value=value,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        n=n,
        method=f"{method}; {percent(confidence)} percentile interval",
        reason="; ".join(reasons) or None,
    )


def crossed_bootstrap(
    damage: Mapping[str, ArrayLike],
    statistic: MeansStatistic,
    *,
    rng: np.random.Generator,
    groups: Mapping[str, str] | None = None,
    families: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    aligned: bool = True,
    resample_languages: bool = True,
) -> CrossedBootstrap:
    """Bootstrap `statistic` of language means over segments and languages at once.

    `damage`: per language an array [K, S] (or [S] for one condition), or a number that no segments stand behind.
    `groups`: language -> group; languages are drawn with replacement within their group, so that position l of the
    means always belongs to the group of language l; None: one group. `families`: language -> family; a family within
    one group is drawn first, then its languages. `confidence`: of the intervals that replicates are meant for. A single
    segment has no spread: its replicates are NaN.
    `aligned`: segments are shared by all languages (see above); then S must be equal.
    `resample_languages=False` holds the languages fixed: the interval then speaks of these languages only.
    """
    checked_resamples(resamples)
    checked_confidence(confidence)
    languages = tuple(damage)
    if not languages:
        raise ValueError("damage is empty: name at least one language")
    tables = _tables(damage, aligned=aligned)
    if groups is not None and set(languages) - set(groups):
        raise ValueError(f"groups does not name {', '.join(sorted(set(languages) - set(groups)))}")
    means = np.stack([table.mean(axis=1) for table in tables])[None]
    sizes = [table.shape[1] for table in tables] if any(np.ndim(values) for values in damage.values()) else []
    few = 0 < min(sizes, default=0) < FEW_SEGMENTS
    sets, levels = [np.repeat(means, resamples, axis=0)], list[str]()
    if sizes:
        sets = [_segment_means(tables, partial(_drawn, resamples=resamples, rng=rng), aligned=aligned)]
        levels.append(f"segments {'shared by' if aligned else 'within'} languages")
    chosen = np.broadcast_to(np.arange(len(languages)), (resamples, len(languages)))
    if resample_languages:
        chosen = _drawn_languages(languages, groups, families, rng=rng, resamples=resamples)
        levels += ["languages"] if families is None else ["families", "languages"]
    if few:
        spread = partial(_spread, resamples=resamples, rng=rng, confidence=confidence)
        sets.append(_segment_means(tables, spread, aligned=aligned))
    value, *replicates = (
        np.asarray(statistic(one)) for one in (means, *(one[np.arange(resamples)[:, None], chosen] for one in sets))
    )
    over = " and ".join(filter(None, (", ".join(levels[:-1]), *levels[-1:])))
    return CrossedBootstrap(
        languages=languages,
        value=value[0],
        replicates=replicates[-1],
        drawn=replicates[0],
        method=f"bootstrap over {over}{STUDENT if few else ''}, {resamples} resamples",
        confidence=confidence,
    )


def _drawn_languages(
    languages: Sequence[str],
    groups: Mapping[str, str] | None,
    families: Mapping[str, str] | None,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> IntArray:
    """Return which language stands at each place, [B, L], drawn within groups."""
    labels = np.array(["" if groups is None else groups[tag] for tag in languages])
    named = list(languages) if families is None else [families[tag] for tag in languages]
    spans = {
        name: len({label for label, own in zip(labels.tolist(), named, strict=True) if own == name})
        for name in dict.fromkeys(named)
    }
    clusters = np.array([name if spans[name] == 1 else tag for name, tag in zip(named, languages, strict=True)])
    chosen = np.empty((resamples, len(languages)), dtype=np.int64)
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label)
        chosen[:, members] = members[drawn_units(clusters[members].tolist(), rng=rng, resamples=resamples)]
    return chosen


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


def _segment_means(tables: list[FloatArray], weights: Callable[[int], FloatArray], *, aligned: bool) -> FloatArray:
    """Return language means under weights of segments, [B, L, K]; `weights`: of so many segments, rows sum to 1."""
    if aligned:
        cube = np.stack(tables)
        weighed = weights(cube.shape[2]) @ cube.reshape(-1, cube.shape[2]).T
        return np.asarray(weighed.reshape(len(weighed), *cube.shape[:2]))
    return np.stack([weights(table.shape[1]) @ table.T for table in tables], axis=1)


def _drawn(n: int, *, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return the weights [B, n] of `n` segments that are drawn with replacement."""
    return resample_counts(n, resamples, rng) / n


def _spread(n: int, *, resamples: int, rng: np.random.Generator, confidence: float) -> FloatArray:
    """Return weights [B, n] that spread a mean of few segments as widely as Student's t does.

    They are normal, with the standard deviation by which the mean's limits at `confidence` are Student's. Of a single
    segment nothing is known: NaN.
    """
    if n == 1:
        return np.full((resamples, 1), np.nan)
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    scale = float(stdtrit(n - 1, tail) / ndtri(tail)) * math.sqrt(n / (n - 1))
    drawn = rng.standard_normal((resamples, n))
    return np.asarray((1 + scale * (drawn - drawn.mean(axis=1, keepdims=True))) / n)


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """What is compared, and what is drawn together: a weight, a group and a cluster per language.

    A weight of 0 leaves a language out.
    """

    contrast: tuple[float, ...]
    groups: tuple[str, ...]
    clusters: tuple[str, ...]

    def widened(
        self,
        value: float,
        replicates: FloatArray,
        values: FloatArray,
        *,
        shared: bool = True,
        confidence: float = 0.95,
    ) -> FloatArray:
        """Return `replicates` [B] moved from `value` to the spread that few languages or families call for.

        `values` [L]: the contrast's weights times these are the statistic, to first order. `shared`: as in `widening`;
        a ratio, for which it is false, gets its replicates [2 B] with their mirror images: resamples of a ratio are
        skewed as the ratio itself is, and percentiles would put the longer arm of the interval on the wrong side.
        """
        known = replicates[np.isfinite(replicates)]
        used = np.flatnonzero(self.contrast)
        if len(known) < 2 or not np.isfinite(values[used]).all():
            return replicates
        factor = widening(
            values[used],
            np.array(self.contrast)[used],
            [self.groups[place] for place in used],
            [self.clusters[place] for place in used],
            spread=float(known.std()),
            shared=shared,
            confidence=confidence,
        )
        moved = factor * (replicates - value)
        return value + (moved if shared else np.concatenate([moved, -moved]))
