"""Fewer than twenty segments, simulated: what is computed of means over languages, where segments alone are in doubt.

Half of what segments move is common to all languages, so that more languages do not make up for few segments. Resamples
of so few were too narrow: with three segments a mean over 33 languages was shown not to be what it is in a fourth.
"""

import numpy as np
import pytest
from controls.drawn_studies import outlier_model
from drawn_damage import cells, holds, no_more_often_than, real_languages, rng
from evenbits.estimates import Finding, Threshold, Verdict, judge
from evenbits.statistics import crossed_bootstrap, language_mean
from evenbits.studies.h036 import verdict as layers
from evenbits.studies.h036.protection import Protection, ProtectionStudy
from evenbits.studies.h037 import SHARES, Ablation, clear_pattern
from evenbits.studies.h037.ablation import normal_energy_ratio
from evenbits.studies.h037.classes import CONCENTRATED, HOLDS
from evenbits.studies.h037.sizes import outliers_by_size

FEW = (2, 3, 5, 8, 12, 19)
SIDES = (Verdict.SUPPORTED, Verdict.NOT_SUPPORTED)


def verdict_of(finding, metric="x", op=">", bound=0.0):
    return judge(
        finding, Threshold(metric=metric, op=op, bound=bound, why="test"), hypothesis="H", test="t", role="criterion"
    ).verdict


def half_shared(draw, languages, segments):
    return (draw.standard_normal(segments) + draw.standard_normal((languages, segments))) / np.sqrt(2)


@pytest.mark.parametrize(
    ("languages", "segments", "trials"),
    cells((5, 11, 33), FEW, quick=[(33, 2), (33, 3), (11, 8), (5, 19)], trials=120),
)
def test_a_mean_over_languages_holds_the_truth_with_few_segments(languages, segments, trials):
    lost = 0
    for seed in range(trials):
        draw = rng(80, languages, segments, seed)
        own = 0.3 * draw.standard_normal((languages, 1))
        table = dict(zip(map(str, range(languages)), half_shared(draw, languages, segments) + own, strict=True))
        lost += not holds(language_mean(table, rng=draw, what="x", resamples=500), 0.0)
    assert no_more_often_than(lost, trials, 0.06)


@pytest.mark.parametrize(("segments", "trials"), cells(FEW, quick=[(2,), (3,), (8,)], trials=150))
def test_a_plan_that_saves_nothing_is_hardly_ever_said_to_save_or_to_cost(segments, trials):
    tier = {"en": "high", "mt": "low", "sw": "low"}
    kinds = {"none": "comparator", "plan:worst": "plan"}
    protections = tuple(
        Protection(
            name=name, kind=kind, spec="int4-g64", units=("0",), bits_per_weight=4.0, extra_bits=0.5, within_budget=True
        )
        for name, kind in kinds.items()
    )
    found = []
    for seed in range(trials):
        draw = rng(81, segments, seed)
        level = np.array([5.0, 10.0, 20.0])[:, None] * (1 + 0.3 * draw.standard_normal((3, segments)))
        bits = level + draw.standard_normal((2, 3, segments))
        study = ProtectionStudy(
            model="m",
            spec="int4-g64",
            budget=1.0,
            cheapest=0.1,
            protections=protections,
            languages=tuple(tier),
            tier=tier,
            excess_bits=bits,
            nll_bits=np.ones(3),
            choices={},
        )
        found.append(verdict_of(Finding(estimate=layers._advantage(study, bits, ["none"], draw))))
    for side in SIDES:
        assert no_more_often_than(found.count(side), trials, 0.05)


def ablations(draw, segments, *, languages=("en",), times=CONCENTRATED):
    """Return ablations whose largest weights cost `times` what a normal tail's would; segments are lognormal."""

    def cost():
        return np.exp(0.3 * draw.standard_normal((len(languages), segments)) - 0.045)

    return {
        share: Ablation(
            share=share,
            languages=languages,
            top=factor * normal_energy_ratio(share) * cost(),
            random=cost(),
            floor_bits=0.001,
        )
        for share, factor in zip(SHARES, (times, 1.0), strict=True)
    }


@pytest.fixture(scope="module")
def weights():
    return outlier_model(1e-4, rng=rng(5), size=12.0, tensors=4)[0]


@pytest.mark.parametrize(("segments", "trials"), cells(FEW[:4], quick=[(2,), (5,)], trials=60))
def test_a_concentration_at_the_cut_off_is_hardly_ever_clear_in_one_language(weights, segments, trials):
    found = []
    for seed in range(trials):
        draw = rng(82, segments, seed)
        finding = clear_pattern(weights, ablations(draw, segments), rng=draw)
        found.append(verdict_of(finding, op=">=", bound=HOLDS))
    for side in SIDES:  # .05 a side by rule
        assert no_more_often_than(found.count(side), trials, 0.08)


def test_one_segment_shows_nothing(weights):
    alone = language_mean({"de": [0.3], "fi": [0.2]}, rng=rng(83), what="x")
    assert (alone.value, alone.low, alone.high) == (pytest.approx(0.25), None, None)
    assert "those of a single segment" in alone.reason
    given = ablations(rng(84), 1, times=40.0)
    assert verdict_of(clear_pattern(weights, given, rng=rng(84)), op=">=", bound=HOLDS) is Verdict.UNDERPOWERED
    assert verdict_of(outliers_by_size(weights, given, rng=rng(84)), op=">=", bound=0.1) is Verdict.UNDERPOWERED


def test_three_segments_of_one_language_have_the_interval_of_students_t():
    from scipy.stats import ttest_1samp

    values = [0.3, 0.1, 0.2]
    found = language_mean({"de": values}, rng=rng(85), what="x", resamples=20_000)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    # limits of 20,000 normal draws are placed to 2 % of the half width
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.01), pytest.approx(expected.high, abs=0.01))
    assert "few segments by Student's t" in found.method


def test_numbers_that_no_segments_stand_behind_are_drawn_by_language_alone():
    tags, _ = real_languages((11, 11))
    values = dict(zip(tags, rng(86).standard_normal(len(tags)).tolist(), strict=True))

    def mean(means_BLK):
        return means_BLK[:, :, 0].mean(axis=1)

    alone = crossed_bootstrap(values, mean, rng=rng(87), resamples=8000)
    expected = np.std(list(values.values())) / np.sqrt(len(tags))
    assert alone.replicates.std() == pytest.approx(expected, rel=0.03)
    assert alone.method == "bootstrap over languages, 8000 resamples"
