"""H-035, simulated: does overlap with heavy-tailed weights predict damage over languages?

Axes: languages, what families have in common (of overlap and damage alike), segments, whose noise blurs the damage that
is predicted, and their distribution. Below 30 languages nothing is decided. The hypothesis has no prediction beside its
criterion; what `diagnose` forecasts is held to its coverage in `tests/studies/h035/test_forecast.py`.
"""

from functools import partial
from itertools import product

import numpy as np
import pytest
from drawn_damage import (
    ALPHA,
    ICC,
    WORLD,
    around,
    by_family,
    cells,
    grid,
    holds,
    no_more_often_than,
    real_languages,
    rng,
)
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.statistics import Outcome, pearson, spearman
from evenbits.studies.established import ModelDamage, fertility, parity_is_not_degradation
from evenbits.studies.established.pooled import pooled_correlation
from evenbits.studies.h035 import overlap_predicts, verdict
from evenbits.studies.h035.predictors import METRICS, Predictors
from evenbits.studies.h035.study import PredictionStudy

SIZES = list(WORLD)
ABOVE_HALF = Threshold(metric="pearson_r", op=">", bound=0.5, why="as in the eval")


@pytest.fixture(autouse=True)
def _only_the_verdict(monkeypatch):
    """Comparators, simulated power and other forms and metrics stand beside the verdict and cost many times as much."""
    against = verdict._against

    def of_the_criterion(study, values, metric, draw):
        decisive = metric == "excess_bits" and values is study.predictors.values["kurtosis_overlap"]
        return against(study, values, metric, draw) if decisive else Outcome.undefined("not asked for", n=0, method="")

    monkeypatch.setattr(verdict, "_against", of_the_criterion)
    monkeypatch.setattr(verdict, "comparator_table", lambda _study, *, rng: [])  # noqa: ARG005
    monkeypatch.setattr(verdict, "_power", lambda _study, _r, *, rng: Estimate.undefined("not asked for"))  # noqa: ARG005
    monkeypatch.setattr(fertility, "pooled_correlation", partial(pooled_correlation, resamples=400))
    monkeypatch.setattr(verdict, "_without_a_family", lambda _study: "")
    monkeypatch.setattr(verdict, "pearson", partial(pearson, resamples=200, permutations=199))
    monkeypatch.setattr(verdict, "spearman", partial(spearman, resamples=100, permutations=99))


def study_drawn(draw, sizes, segments, *, icc=0.0, kind="normal", r=0.0):
    """Return a study in which true damage correlates by `r` with overlap; log damage has SD .5 over languages."""
    tags, _ = real_languages(sizes)
    overlap = by_family(draw, tags, icc)
    level = r * overlap + np.sqrt(1 - r**2) * by_family(draw, tags, icc)
    bits = around(draw, 20 + 4 * level, segments, cv=0.5, kind=kind).mean(axis=1)
    values = {name: np.exp(draw.standard_normal(len(tags))) for name in METRICS} | {"kurtosis_overlap": overlap}
    predictors = Predictors(
        model="m",
        spec="int4-row",
        languages=tags,
        segments=segments,
        values=values,
        missing={},
        permuted=draw.standard_normal((2, len(tags))),
        columns=overlap,
    )
    damage = dict.fromkeys(("excess_bits", "relative_increase", "kl"), bits)
    return PredictionStudy(predictors=predictors, damage=damage, floor=0.0)


def judged(draw, *cell, **drawing):
    finding = overlap_predicts(study_drawn(draw, *cell, **drawing), rng=draw)
    row = judge(finding, ABOVE_HALF, hypothesis="H-035", test="t", role="criterion")
    return row.verdict, finding


@pytest.mark.parametrize(
    ("sizes", "segments", "icc", "kind", "trials"),
    grid(
        quick=[
            ((20, 20), 20, 0.3, "normal"),
            ((11, 11), 6, 0.6, "normal"),
            ((20, 20), 6, 0.3, "lognormal"),
        ]
    ),
)
def test_overlap_that_says_nothing_is_hardly_ever_said_to_predict(sizes, segments, icc, kind, trials):
    found = [judged(rng(50, sizes[0], segments, seed), sizes, segments, icc=icc, kind=kind) for seed in range(trials)]
    verdicts = [one for one, _ in found]
    if sum(sizes) < 30:
        assert set(verdicts) == {Verdict.UNDERPOWERED}
    assert no_more_often_than(verdicts.count(Verdict.SUPPORTED), trials, ALPHA)
    significant = sum(finding.p_value < ALPHA for _, finding in found)
    assert no_more_often_than(significant, trials, ALPHA)
    missed = sum(not holds(finding.estimate, 0.0) for _, finding in found)
    assert no_more_often_than(missed, trials, MISSED)


MISSED = 0.07


@pytest.mark.parametrize(("sizes", "icc", "trials"), cells(SIZES[1:], ICC, quick=[((20, 20), 0.3)]))
def test_a_correlation_at_the_threshold_is_hardly_ever_refuted(sizes, icc, trials):
    """Segments are many here: what is refuted is the correlation with damage as it was measured."""
    found = [judged(rng(51, sizes[0], seed), sizes, 400, icc=icc, r=0.5)[0] for seed in range(trials)]
    assert no_more_often_than(found.count(Verdict.NOT_SUPPORTED), trials, ALPHA)


SMALL = Threshold(metric="r", op="<", bound=0.3, why="as in the eval")


@pytest.mark.parametrize(("sizes", "icc", "trials"), cells(SIZES, ICC, quick=[((20, 20), 0.3)], trials=20))
def test_tokens_that_tell_a_tenth_of_damage_are_hardly_ever_said_to_tell_little(sizes, icc, trials):
    """E-5, at its margin; and tokens that tell nothing are hardly ever said to tell more than that."""
    tags, tier = real_languages(sizes)
    found = {0.0: [], 0.3: []}
    for seed, r in product(range(trials), found):
        draw = rng(52, sizes[0], seed)
        tokens = by_family(draw, tags, icc)
        damage = 20 + r * tokens + np.sqrt(1 - r**2) * by_family(draw, tags, icc)
        model = ModelDamage(
            model="m",
            run="m",
            tail=5.0,
            languages=tags,
            tier=tier,
            tokens=50 + tokens,
            damage=dict.fromkeys(("excess_bits", "relative_increase", "kl"), damage),
            floor=0.0,
            outliers=tokens,
        )
        finding = parity_is_not_degradation([model], margin=0.3, rng=draw)
        found[r].append(judge(finding, SMALL, hypothesis="E-5", test="t", role="established").verdict)
    assert no_more_often_than(found[0.3].count(Verdict.SUPPORTED), trials, ALPHA)
    assert no_more_often_than(found[0.0].count(Verdict.NOT_SUPPORTED), trials, ALPHA)
