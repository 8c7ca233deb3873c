"""H-037, simulated: is the pattern of outliers clear, and are sparse ones easier to preserve?

The criterion holds the class of the weights, over tensors, against that by ablation, over segments and languages: axes
of the latter are languages, what families have in common, segments and their distribution. The prediction is decided
over training runs, of which one number each is taken, so that languages and segments mean nothing to it.
"""

from functools import cache, partial

import numpy as np
import pytest
from controls.drawn_studies import outlier_model
from drawn_damage import ALPHA, NOISES, around, by_family, cells, grid, no_more_often_than, noise, real_languages, rng
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.statistics import stability
from evenbits.studies.h037 import SHARES, Ablation, ModelPoint, across_models, classes, clear_pattern
from evenbits.studies.h037.ablation import normal_energy_ratio
from evenbits.studies.h037.classes import CONCENTRATED, HOLDS

CLEAR = Threshold(metric="class_stability", op=">=", bound=HOLDS, why="as in the eval")
POSITIVE = Threshold(metric="spearman", op=">", bound=0.0, why="as in the eval")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(classes, "stability", partial(stability, resamples=20))
    monkeypatch.setattr(classes, "RESAMPLES", 200)


@cache
def sparse_weights():
    """Return statistics of matrices of whose weights one in ten thousand is twelve deviations large."""
    return outlier_model(1e-4, rng=rng(55), size=12.0, tensors=4)[0]


def ablations_drawn(draw, sizes, segments, *, icc, kind, concentration):
    """Return ablations of the largest and of random weights; the former cost `concentration` times a normal tail's."""
    tags, _ = real_languages(sizes)
    means = np.exp(0.5 * by_family(draw, tags, icc) - 0.125)
    found = {}
    for share, times in zip(SHARES, (concentration, 1.0), strict=True):
        random = around(draw, means, segments, cv=0.3, kind=kind)
        own = np.exp(0.3 * by_family(draw, tags, icc) - 0.045)  # the largest weights cost some languages more
        top = times * normal_energy_ratio(share) * around(draw, means * own, segments, cv=0.3, kind=kind)
        found[share] = Ablation(share=share, languages=tags, top=top, random=random, floor_bits=0.001)
    return found


@pytest.mark.parametrize(
    ("sizes", "segments", "icc", "kind", "trials"),
    grid(quick=[((11, 11), 6, 0.6, "normal"), ((11, 11), 20, 0.3, "lognormal")], trials=12),
)
def test_a_concentration_at_the_cut_off_is_hardly_ever_a_clear_class(sizes, segments, icc, kind, trials):
    """By weights the class is `sparse`; by ablation, at its cut-off, neither that nor another may be called clear."""
    found = []
    for seed in range(trials):
        draw = rng(56, sizes[0], segments, seed)
        ablations = ablations_drawn(draw, sizes, segments, icc=icc, kind=kind, concentration=CONCENTRATED)
        finding = clear_pattern(sparse_weights(), ablations, rng=draw)
        found.append(judge(finding, CLEAR, hypothesis="H-037", test="t", role="criterion").verdict)
    for verdict in (Verdict.SUPPORTED, Verdict.NOT_SUPPORTED):
        assert no_more_often_than(found.count(verdict), trials, ALPHA)


def verdict_of(points, draw):
    finding = across_models(points, rng=draw)
    return judge(finding, POSITIVE, hypothesis="H-037", test="t", role="prediction").verdict


def points_drawn(draw, runs, *, dose=0.0, kind="normal", checkpoints=1):
    """Return models of so many training runs; what is recovered follows sparsity by `dose` beside noise of 1."""
    sparsity = draw.standard_normal(runs)
    recovered = dose * sparsity + noise(draw, kind, runs)
    return [
        ModelPoint(
            model=f"m{run}-s{step}",
            run=f"m{run}",
            sparsity=float(sparsity[run] + 0.1 * draw.standard_normal()),
            damage=10.0,
            recovered=float(recovered[run] + 0.1 * draw.standard_normal()),
        )
        for run in range(runs)
        for step in range(checkpoints)
    ]


@pytest.mark.parametrize(
    ("runs", "kind", "checkpoints", "trials"),
    cells((8, 12, 20), NOISES, (1, 4), quick=[(8, "normal", 4), (12, "lognormal", 1)]),
)
def test_recovery_that_has_nothing_to_do_with_sparsity_is_hardly_ever_said_to(runs, kind, checkpoints, trials):
    found = []
    for seed in range(trials):
        draw = rng(57, runs, seed)
        found.append(verdict_of(points_drawn(draw, runs, kind=kind, checkpoints=checkpoints), draw))
    assert no_more_often_than(found.count(Verdict.SUPPORTED), trials, ALPHA)
    assert no_more_often_than(found.count(Verdict.NOT_SUPPORTED), trials, ALPHA)


@pytest.mark.parametrize("checkpoints", [1, 10])
def test_seven_runs_are_not_decided_whatever_they_show(checkpoints):
    draw = rng(58)
    assert verdict_of(points_drawn(draw, 7, dose=50.0, checkpoints=checkpoints), draw) is Verdict.UNDERPOWERED


def test_recovery_that_follows_sparsity_is_found():
    draws = [rng(59, seed) for seed in range(20)]
    assert sum(verdict_of(points_drawn(draw, 16, dose=2.0), draw) is Verdict.SUPPORTED for draw in draws) >= 18
