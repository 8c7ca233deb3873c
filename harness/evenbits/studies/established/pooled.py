"""A correlation inside models, over many models: is it small?

Values are compared within a model only, so that models of different level cannot make a correlation between them. The
coefficient is the mean over training runs of the correlation within; several checkpoints of one run are averaged.

Shapes: B resamples, N points of a model, C clusters (languages, or layers), M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Verdict, three_way, units_needed
from evenbits.statistics import RESAMPLES, Equivalence, bootstrap_equivalence
from evenbits.statistics.bootstrap import jackknife_error
from evenbits.text.languages import families_of

__all__ = ["Sample", "family_codes", "pooled_correlation", "smallness"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ALPHA = 0.05

NOTHING = 1e-20  # squared spread of standardised values that is rounding only


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Points `x`, `y` [N] of one model; `clusters` [N] numbers what is drawn together: a family, or a layer."""

    run: str
    x: Float64
    y: Float64
    clusters: Int64

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.clusters):
            raise ValueError(f"{self.run}: {len(self.x)} x, {len(self.y)} y, {len(self.clusters)} clusters")


def family_codes(languages: Sequence[str]) -> Int64:
    """Return the number of each language's family: languages of one family are drawn together."""
    families = list(families_of(languages).values())
    numbers = {name: place for place, name in enumerate(dict.fromkeys(families))}
    return np.array([numbers[name] for name in families], dtype=np.int64)


def pooled_correlation(
    samples: Sequence[Sample],
    *,
    shared: bool,
    margin: float,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Equivalence:
    """Test whether the mean correlation lies inside +-`margin` (two one-sided tests, bootstrap).

    Each resample draws training runs, where there are several, and clusters. `shared`: cluster c is the same thing in
    every model (a family of languages), and is drawn once for all; else every run draws its own, once for all of its
    checkpoints. Where all there is are the clusters of one run, or shared ones, no limit is nearer than by the
    jackknife over them. Undefined where no model has a correlation.
    """
    if not samples:
        raise ValueError("a pooled correlation needs at least one model")
    sizes = _clusters_by_run(samples, shared=shared)
    n = max(sizes.values()) if shared else sum(sizes.values())
    plain = [_weighted_r(one, np.ones((1, len(one.x)))) for one in samples]
    value = float(_mean_over_runs(np.stack(plain, axis=1), samples)[0])
    if not np.isfinite(value):
        return Equivalence.undefined("x or y is constant in every model", margin=margin, alpha=ALPHA, n=n)
    if n < 3:
        return Equivalence.undefined(f"{n} units: a correlation needs at least 3", margin=margin, alpha=ALPHA, n=n)
    if shared:
        counts = dict.fromkeys(sizes, _counts(n, resamples, rng))
    else:
        counts = {run: _counts(size, resamples, rng) for run, size in sizes.items()}
    rows = [_weighted_r(one, counts[one.run][:, one.clusters]) for one in samples]
    found = _resampled_means(np.stack(rows, axis=1), samples, rng)
    tested = bootstrap_equivalence(value, found, n=n, margin=margin, alpha=ALPHA)
    if not shared and len(sizes) > 1:
        return tested
    without = [_weighted_r(one, (1 - np.eye(n))[:, one.clusters]) for one in samples]
    known = jackknife_error(_mean_over_runs(np.stack(without, axis=1), samples))
    return tested if known is None else _no_surer(tested, value, *known, units="families" if shared else "layers")


def _no_surer(tested: Equivalence, value: float, error: float, freedom: int, *, units: str) -> Equivalence:
    """Return the test with no limit nearer, and no p smaller, than by the jackknife over `units`."""
    from scipy.special import stdtr, stdtrit

    found, half = tested.estimate, float(stdtrit(freedom, 1 - ALPHA)) * error
    low = None if found.low is None else max(-1.0, min(found.low, value - half))
    high = None if found.high is None else min(1.0, max(found.high, value + half))
    beyond = float(stdtr(freedom, (abs(value) - tested.margin) / error)) if error > 0 else 0.0
    inside = low is not None and high is not None and -tested.margin < low and high < tested.margin
    return replace(
        tested,
        estimate=replace(
            found, low=low, high=high, method=f"{found.method}, no limit nearer than by the jackknife over {units}"
        ),
        p_value=max(tested.p_value or 0.0, beyond),
        equivalent=inside,
    )


def _clusters_by_run(samples: Sequence[Sample], *, shared: bool) -> dict[str, int]:
    """Return how many clusters each run has; where they are shared, as many as the run with most."""
    sizes: dict[str, int] = {}
    for one in samples:
        sizes[one.run] = max(sizes.get(one.run, 0), int(one.clusters.max()) + 1)
    return dict.fromkeys(sizes, max(sizes.values())) if shared else sizes


def _counts(n: int, resamples: int, rng: np.random.Generator) -> Float64:
    """Return how often each of `n` clusters is drawn, [B, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def _weighted_r(one: Sample, weights_BN: Float64) -> Float64:
    """Return Pearson's r with every point counted `weights` times, [B]; NaN where x or y does not vary."""
    x, y = _standardised(one.x), _standardised(one.y)
    total = weights_BN.sum(axis=1)
    means = [weights_BN @ values / total for values in (x, y)]
    xx, yy, xy = (
        weights_BN @ (a * b) / total - ma * mb
        for a, b, ma, mb in (
            (x, x, means[0], means[0]),
            (y, y, means[1], means[1]),
            (x, y, means[0], means[1]),
        )
    )
    known = (xx > NOTHING) & (yy > NOTHING)
    below = np.sqrt(np.where(known, xx * yy, 1.0))
    return np.where(known, np.clip(xy / below, -1, 1), np.nan)


def _standardised(values: Float64) -> Float64:
    centred = values - values.mean()
    spread = float(centred.std())
    return np.asarray(centred / spread) if spread > 1e-12 * max(1e-300, float(np.abs(values).max())) else 0 * centred


def _runs(samples: Sequence[Sample]) -> list[list[int]]:
    members: dict[str, list[int]] = {}
    for place, one in enumerate(samples):
        members.setdefault(one.run, []).append(place)
    return list(members.values())


def _mean_of(values: Float64) -> Float64:
    """Return the mean over axis 1 of what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0))


def _by_run(r_BM: Float64, samples: Sequence[Sample]) -> Float64:
    return np.stack([_mean_of(r_BM[:, members]) for members in _runs(samples)], axis=1)


def _mean_over_runs(r_BM: Float64, samples: Sequence[Sample]) -> Float64:
    return _mean_of(_by_run(r_BM, samples))


def _resampled_means(r_BM: Float64, samples: Sequence[Sample], rng: np.random.Generator) -> Float64:
    by_run = _by_run(r_BM, samples)
    runs = by_run.shape[1]
    chosen = rng.integers(0, runs, by_run.shape) if runs > 1 else np.zeros(by_run.shape, dtype=np.int64)
    return _mean_of(np.take_along_axis(by_run, chosen, axis=1))


def smallness(found: Equivalence, *, units: str) -> tuple[Verdict | None, str]:
    """Return the verdict that the equivalence test imposes, None where it shows the correlation to be small.

    Refuted: the interval lies outside the margin. In between the data do not say.
    """
    estimate, margin = found.estimate, found.margin
    if estimate.value is None:
        return Verdict.NOT_APPLICABLE, f"There is no correlation to speak of: {estimate.reason}."
    if found.equivalent:
        return None, f"The 90 % interval lies inside +-{margin:g}."
    if three_way(estimate, above=-margin, below=margin) is Verdict.NOT_SUPPORTED:
        return Verdict.NOT_SUPPORTED, f"The correlation is not small: {_bounds(estimate)} lies beyond +-{margin:g}."
    needed = units_needed(estimate, above=-margin, below=margin)
    return Verdict.UNDERPOWERED, (
        f"{estimate.n} {units} do not settle it: {_bounds(estimate)} lies neither inside +-{margin:g} nor beyond it. "
        + ("Add more of them." if needed is None else f"About {needed} would, if the value is what it seems.")
    )


def _bounds(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "an open 90 % interval"
    return f"the 90 % interval [{estimate.low:.2f}, {estimate.high:.2f}]"
