"""Layer x language interaction of damage, with aligned segments as replicates.

Model: y[layer, language, segment] = layer + language + layer x language + segment and its interactions. Segments are
crossed with both factors (the same segment is measured in every cell), so they are blocks: the error of the
interaction is layer x language x segment, as in repeated-measures analysis of variance with segments as subjects
(`statsmodels.stats.anova.AnovaRM` gives the same F, which a test checks).

Null hypothesis: languages of one family have the same profile over layers, up to their own overall level.

Why the permutation is valid. Within each segment the level of every language (its mean over layers) and the mean
profile over languages are removed; what is left is a residual profile per language and segment. Removing levels makes
languages comparable, and only depends on data of that language; under the null hypothesis the residual profiles of one
segment are exchangeable between the languages of a family, so their labels are permuted, whole profiles at a time,
**independently in every segment**. (One permutation for all segments would only rename rows and change nothing.) Layer
effects, family x layer effects, segment effects and correlation between layers are the same in every arrangement;
layer x language within families is destroyed. The total of squared residuals does not change either, so the sum of
squares of the interaction orders the arrangements as F does. A language alone in its family is never moved and adds
nothing to the evidence.

What it takes as given: within a segment and family, residual profiles spread alike. Damage often spreads in proportion
to its size, and a language that loses twice as much in every layer is an interaction in bits though it relies on the
same layers. `scale="share"` therefore takes each layer's share of a language's damage and tests the shape of profiles;
`scheme="signs"` needs no equal spread: it flips the sign of all residuals of a segment at once, which asks for
residuals symmetric about 0 under the null.

Shapes: P layers, L languages, S segments, M arrangements, B resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.numbers import percent
from evenbits.rows import Row
from evenbits.statistics.bootstrap import RESAMPLES, checked_resamples, percentile_interval, resample_counts
from evenbits.statistics.clusters import drawn_counts
from evenbits.statistics.permutation import permutation_p, sign_flips
from evenbits.statistics.samples import FloatArray, IntArray, checked_confidence, finite, group_codes

__all__ = ["Interaction", "Scale", "layer_language_interaction", "sums_of_squares"]

BLOCK = 4_000_000  # numbers held at once: 32 MB
Scale = Literal["bits", "share"]
Scheme = Literal["labels", "signs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction(Row):
    """Partial omega squared of layer x language (`estimate`), with its F, degrees of freedom and permutation p.

    `estimate` may fall below 0 where there is nothing: clipping would hide that it is unbiased.
    `squares`: sums of squares by term. `movable`: languages whose family has another member. `least_p`: the smallest p
    that as many segments, or labels, can give.
    """

    estimate: Estimate
    p_value: float | None
    p_method: str
    f: float | None
    degrees: tuple[int, int]
    squares: dict[str, float]
    movable: int
    least_p: float = 0.0

    @classmethod
    def undefined(cls, estimate: Estimate) -> Interaction:
        """Return an interaction that could not be tested; the undefined `estimate` says why."""
        return cls(
            estimate=estimate,
            p_value=None,
            p_method=f"none: {estimate.reason}",
            f=None,
            degrees=(0, 0),
            squares={},
            movable=0,
        )


def sums_of_squares(damage: ArrayLike) -> dict[str, float]:
    """Return the sums of squares of the complete three-way layout [P, L, S]; they add up to the total.

    `layer:language:segment` is the error term of `layer:language`.
    """
    y = finite(damage, "damage", ndim=3)
    axes = {"layer": 0, "language": 1, "segment": 2}
    squares: dict[str, float] = {}
    for terms in (
        ("layer",),
        ("language",),
        ("segment",),
        ("layer", "language"),
        ("layer", "segment"),
        ("language", "segment"),
        ("layer", "language", "segment"),
    ):
        effect = y - y.mean()
        for term, axis in axes.items():
            mean = effect.mean(axis=axis, keepdims=True)
            effect = effect - mean if term in terms else mean
        squares[":".join(terms)] = float((effect**2).sum()) * y.size / effect.size
    return squares


def layer_language_interaction(
    damage: ArrayLike,
    *,
    rng: np.random.Generator,
    families: Sequence[Hashable] | None = None,
    scale: Scale = "bits",
    scheme: Scheme = "labels",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = 999,
) -> Interaction:
    """Test whether profiles over layers differ between languages; `damage` is [layers, languages, segments].

    `families`: one label per language; labels are permuted within a family only (None: among all languages).
    Effect size: partial omega squared, s_PL / (s_PL + s_error) with the variance components
    s_PL = df (MS_PL - MS_error) / (P L S) and s_error = MS_error (Keppel & Wickens 2004, section 8.3; not clipped).
    Interval: percentile over segments and languages, both drawn with replacement (segments once for all languages).
    A resample holds copies, and noise times itself would pass for effect; so squares of the effect are built from
    products of two *different* segments and of two *different* languages, which keeps replicates centred. Drawing
    both factors makes the interval too wide rather than too narrow where there is no interaction.
    Undefined for fewer than 2 layers, 2 languages or 3 segments, for damage without spread, and for
    `scale="share"` where a language's mean damage is not above 0.
    """
    checked_confidence(confidence)
    checked_resamples(resamples)
    if scale not in {"bits", "share"} or scheme not in {"labels", "signs"}:
        raise ValueError(f"scale must be bits or share, scheme labels or signs; got {scale!r} and {scheme!r}")
    y = finite(damage, "damage", ndim=3)
    layers, languages, segments = y.shape
    codes = np.zeros(languages, dtype=np.int64) if families is None else group_codes(families, languages, "families")
    method = f"partial omega squared of layer x language ({scale}), {layers} layers, {languages} languages"
    reason = _why_undefined(y, scale)
    if reason:
        return Interaction.undefined(Estimate.undefined(reason, n=segments, method=method))
    groups = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    under_null = _shares(y, groups) if scale == "share" else y
    if scale == "share":
        y = _shares(y)
    profiles = y - y.mean(axis=0)  # level of each language in each segment removed
    tested = under_null - under_null.mean(axis=0)
    residuals = tested - tested.mean(axis=1, keepdims=True)
    squares = sums_of_squares(y)
    degrees = ((layers - 1) * (languages - 1), (layers - 1) * (languages - 1) * (segments - 1))
    error = squares["layer:language:segment"] / degrees[1]
    noisy = error > 1e-24 * float((y**2).mean())
    f = squares["layer:language"] / degrees[0] / error if noisy else None
    drawn = _omega_replicates(profiles, codes if families is not None else None, rng=rng, resamples=resamples)
    drawn = drawn[np.isfinite(drawn)]
    low, high = percentile_interval(drawn, confidence)
    value = _omega(squares["layer:language"] / degrees[0], error, degrees[0], y.size)
    estimate = Estimate(
        value=value,
        low=low,
        high=high,
        n=segments,
        method=f"{method}; {percent(confidence)} percentile interval over segments and languages, "
        f"{len(drawn)} resamples",
    )
    sizes = np.bincount(codes)[codes]
    movable = int((sizes > 1).sum())
    p, p_method = _p(residuals, groups, scheme, rng=rng, permutations=permutations)
    return Interaction(
        estimate=estimate,
        p_value=p,
        p_method=p_method,
        f=f,
        degrees=degrees,
        squares=squares,
        movable=movable,
        # a sum of squares is the same with all signs turned: two of 2^S arrangements reach it at least
        least_p=max(2.0 ** (1 - segments), 1 / (permutations + 1)) if scheme == "signs" else 1 / (permutations + 1),
    )


def _shares(y_PLS: FloatArray, groups: Sequence[IntArray] = ()) -> FloatArray:
    """Return shares of each language's damage by layer, times the number of layers, as what each segment adds to them.

    The ratio, linearised: share + (y - share x total) / mean total, whose mean over segments is the share. Division by
    a language's mean alone would leave the segments' own sizes in: where one layer does nearly all the damage, hard
    segments passed for different layers in .22 to .36 of studies. `groups`: around the mean share of each group, as the
    null hypothesis has it, in place of the language's own.
    """
    total_LS = y_PLS.sum(axis=0)
    share_PL = y_PLS.sum(axis=2) / total_LS.sum(axis=1)
    expected_PL = share_PL.copy()
    for group in groups:
        expected_PL[:, group] = share_PL[:, group].mean(axis=1, keepdims=True)
    added = (y_PLS - expected_PL[:, :, None] * total_LS) / total_LS.mean(axis=1)[None, :, None]
    return np.asarray(len(y_PLS) * (expected_PL[:, :, None] + added))


def _why_undefined(y: FloatArray, scale: Scale) -> str | None:
    layers, languages, segments = y.shape
    if layers < 2 or languages < 2 or segments < 3:
        return f"{layers} layers x {languages} languages x {segments} segments: at least 2 x 2 x 3 are needed"
    if float(np.ptp(y)) <= 1e-12 * float(np.abs(y).max()):
        return "damage is the same in every cell"
    means = y.mean(axis=(0, 2))
    if scale == "share" and float(means.min()) <= 0:
        return f"language {int(means.argmin())} has mean damage {means.min():.4g}: shares need damage above 0"
    profiles = y - y.mean(axis=0)
    residuals = profiles - profiles.mean(axis=1, keepdims=True)
    if float((residuals**2).mean()) <= 1e-24 * float((y**2).mean()):
        return "damage is additive in layers and languages without any residual: nothing to test against"
    return None


def _omega(effect: float, error: float, df: int, size: int) -> float:
    component = df * (effect - error) / size
    return component / (component + error)


def _p(
    residuals_PLS: FloatArray,
    groups: Sequence[IntArray],
    scheme: Scheme,
    *,
    rng: np.random.Generator,
    permutations: int,
) -> tuple[float | None, str]:
    layers, languages, segments = residuals_PLS.shape
    if all(len(group) == 1 for group in groups):
        return None, "none: every language is alone in its family, so no labels can be exchanged"
    within = f"within {len(groups)} families" if len(groups) > 1 else "among all languages"
    if scheme == "signs":
        # family x layer effects are not under test: centre within families instead of over all languages
        centred = residuals_PLS.copy()
        for group in groups:
            centred[:, group] -= centred[:, group].mean(axis=1, keepdims=True)
        flips = sign_flips(segments, rng=rng, permutations=permutations)
        table = centred.reshape(-1, segments)
        null = ((flips.rows @ table.T) ** 2).sum(axis=1)
        observed = float((table.sum(axis=1) ** 2).sum())
        p = permutation_p(observed, null, exact=flips.exact, alternative="greater")
        return p, f"{flips.method.replace('sign permutation', 'sign flips of whole segments')}, {within}"
    movable = [group for group in groups if len(group) > 1]
    table = np.ascontiguousarray(residuals_PLS.transpose(2, 1, 0))  # [S, L, P]: a profile is contiguous
    observed = float((table.sum(axis=0) ** 2).sum())
    block = max(1, BLOCK // table.size)
    parts = []
    for start in range(0, permutations, block):
        size = min(block, permutations - start)
        sums = np.broadcast_to(table.sum(axis=0), (size, languages, layers)).copy()
        for group in movable:
            order = group[np.argsort(rng.random((size, segments, len(group))), axis=2)]
            sums[:, group] = table[np.arange(segments)[None, :, None], order].sum(axis=1)
        parts.append((sums**2).sum(axis=(1, 2)))
    p = permutation_p(observed, np.concatenate(parts), exact=False, alternative="greater")
    return p, f"{permutations} random permutations of language labels in every segment, {within}"


def _omega_replicates(
    profiles_PLS: FloatArray, families_L: IntArray | None, *, rng: np.random.Generator, resamples: int
) -> FloatArray:
    """Return partial omega squared under resampled segments and languages: [B], NaN where one language was drawn.

    `families_L`: drawn before their languages; None: languages singly.

    For languages l, m and segments s, t let D be the product of the difference profile (l - m) in s with that in t.
    Mean of D over s != t estimates the squared distance of true profiles, mean over s = t that plus noise. Sums of D
    over all pairs of languages are L times the sum of squares less the square of the sum, so no pair is ever formed.
    """
    layers, languages, segments = profiles_PLS.shape
    # differences between languages are the same around their mean, and squares lose no digits there
    table = np.ascontiguousarray((profiles_PLS - profiles_PLS.mean(axis=1, keepdims=True)).transpose(2, 1, 0))
    own = (table**2).sum(axis=2).T  # [L, S]
    block = max(1, BLOCK // (languages * max(languages, layers)))
    parts = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        w = resample_counts(segments, size, rng)
        v = (
            resample_counts(languages, size, rng)
            if families_L is None
            else drawn_counts(families_L.tolist(), rng=rng, resamples=size)
        )
        total = (w @ table.reshape(segments, -1)).reshape(size, languages, layers)
        summed = (v[:, None, :] @ total)[:, 0]  # a language has distance 0 from its copies
        whole = languages * (v * (total**2).sum(axis=2)).sum(axis=1) - (summed**2).sum(axis=1)
        by_segment = languages * (v @ own) - np.stack([((v @ one) ** 2).sum(axis=1) for one in table], axis=1)
        same, once = ((times * by_segment).sum(axis=1) for times in (w**2, w))
        apart = languages**2 - (v**2).sum(axis=1)  # ordered pairs of different languages
        several = segments**2 - (w**2).sum(axis=1)  # ordered pairs of different segments
        known = (apart > 0) & (several > 0)
        # mean over pairs of languages of squared distance = 2 x variance between languages (ddof 1)
        effect = _ratio(whole - same, apart * several, known) * (languages - 1)
        with_noise = _ratio(once, apart * segments, known) * (languages - 1)
        component = effect / (layers * languages)
        error = (with_noise - effect) / ((layers - 1) * (languages - 1))
        parts.append(_ratio(component, component + error, known & (component + error != 0)))
    return np.concatenate(parts)


def _ratio(above: FloatArray, below: FloatArray, known: np.ndarray) -> FloatArray:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=known))
