"""The comparison with a baseline, simulated: no regression, one of a hundred bits, and too little text to tell.

Axes: segments, languages, what differences have in common in a family, and their distribution. A difference between two
measurements of the same text is drawn symmetric, as which of them is the baseline is chance where nothing changed.
"""

import math

import numpy as np
import pytest
from drawn_damage import ALPHA, by_family, cells, grid, languages_of, no_more_often_than, noise, rng, rows_of
from evenbits.estimates import Verdict
from evenbits.report.compare import change_decisions
from evenbits.statistics import binomial_band, joint_flips
from evenbits.studies.gate.decision import Outcome
from evenbits.studies.gate.policy import BaselineRule


def outcomes(now, then, *, rule=None):
    rows, before = rows_of(now), {"damage": rows_of(then)}
    pair = (rows[0]["model"], rows[0]["spec"])
    found = change_decisions(
        rule or BaselineRule(), rows, before, pair=pair, among=[pair], languages=sorted(now), seed=0
    )
    return [one for one, _ in found]


@pytest.mark.parametrize(("segments", "languages"), [(5, 40), (6, 33), (10, 33), (11, 33)])
def test_fault_1_a_regression_of_a_hundred_bits_everywhere_fails_in_every_language(segments, languages):
    draw = rng(1, segments)
    then = {f"l{i}": draw.normal(20, 9, segments) for i in range(languages)}
    now = {tag: values + 100 + draw.normal(0, 0.3, segments) for tag, values in then.items()}
    assert {one.outcome for one in outcomes(now, then)} == {Outcome.FAIL}


@pytest.mark.parametrize("segments", [2, 3, 4])
def test_fault_1_where_no_test_can_reach_its_level_nothing_is_let_through(segments):
    draw = rng(2, segments)
    then = {f"l{i}": draw.normal(20, 9, segments) for i in range(33)}
    now = {tag: values + 100 + draw.normal(0, 0.3, segments) for tag, values in then.items()}
    for found in outcomes(now, then, rule=BaselineRule(inconclusive="pass")):
        assert found.verdict is Verdict.UNDERPOWERED
        assert "the least possible p is" in found.because  # 2^-4 = .0625 and more
    same = outcomes(then, then)
    assert {one.outcome for one in same} == {Outcome.PASS}  # the very same numbers are no regression


def differences(draw, sizes, segments, icc, kind):
    """Return no change by language: half of the variance is the segment's own, of the rest `icc` the family's."""
    low, high, families = languages_of(sizes)
    tags = [*low, *high]
    shared = noise(draw, kind, segments) * draw.choice([-1.0, 1.0], segments)
    own = by_family(draw, tags, icc, families=families, times=(segments,))
    if kind != "normal":
        own *= np.abs(noise(draw, kind, segments))  # segments differ in how much they move
    return dict(zip(tags, math.sqrt(0.5) * (shared + own), strict=True))


@pytest.mark.parametrize(
    ("sizes", "segments", "icc", "kind", "trials"),
    grid(quick=[((20, 20), 20, 0.0, "normal"), ((11, 11), 6, 0.3, "lognormal")]),
)
def test_fault_1_without_a_regression_some_language_fails_no_more_often_than_the_level(
    sizes, segments, icc, kind, trials
):
    hits = 0
    for seed in range(trials):
        draw = rng(3, segments, sizes[0], seed)
        found = joint_flips(
            differences(draw, sizes, segments, icc, kind), rng=draw, alternative="greater", permutations=499
        )
        hits += min(found.adjusted.values()) < ALPHA
    assert no_more_often_than(hits, trials, ALPHA)


@pytest.mark.parametrize(
    ("languages", "segments", "trials", "most"),
    [(3, 20, 80, 0.25), (33, 20, 200, 0.40), (33, 50, 60, 0.25)],
)
def test_a_few_segments_mended_well_and_the_rest_harmed_a_little_is_no_regression(languages, segments, trials, most):
    """The mean is as it was, and values are skewed to the left: by Student's t some language fails in .28, .56, .48."""
    hits = 0
    for seed in range(trials):
        draw = rng(32, languages, segments, seed)
        z = np.sqrt(0.5) * (draw.standard_normal(segments) + draw.standard_normal((languages, segments)))
        table = {f"l{i:02d}": row for i, row in enumerate(math.exp(0.5) - np.exp(z))}
        hits += min(joint_flips(table, rng=draw, alternative="greater", permutations=499).adjusted.values()) < ALPHA
    assert hits <= most * trials


POWER = {5: 0.18, 6: 0.43, 10: 0.78, 20: 1.0}
"""By segments: how often one language of 33 that is worse by two SD of its differences is named."""


@pytest.mark.parametrize(("segments", "trials"), cells(list(POWER), quick=[(10,)]))
def test_fault_1_one_language_that_is_worse_is_named_as_often_as_the_docs_say(segments, trials):
    named = 0
    for seed in range(trials):
        draw = rng(31, segments, seed)
        table = {f"l{i:02d}": draw.standard_normal(segments) for i in range(33)}
        table["l07"] = table["l07"] + 2
        named += joint_flips(table, rng=draw, alternative="greater", permutations=999).adjusted["l07"] < ALPHA
    low, high = binomial_band(trials, min(POWER[segments], 0.999), confidence=0.999)
    assert low <= named <= high
