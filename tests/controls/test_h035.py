"""Controls of H-035: damage that follows energy in heavy-tailed columns, dealt to other languages, or without tails."""

from functools import partial

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict
from evenbits.statistics import binomial_band, pearson, spearman
from evenbits.studies.h035 import overlap_predicts, verdict

from controls.drawn_studies import prediction_study
from controls.recovery import count_supported, within_band

pytestmark = pytest.mark.control

ABOVE_HALF = Threshold(metric="pearson_r", op=">", bound=0.5, why="as in the eval")
REPLICATES = 100


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """The comparators stand beside the verdict and cost ten times what it costs."""
    monkeypatch.setattr(verdict, "comparator_table", lambda _study, *, rng: [])  # noqa: ARG005
    monkeypatch.setattr(verdict, "pearson", partial(pearson, resamples=100, permutations=199))
    monkeypatch.setattr(verdict, "spearman", partial(spearman, resamples=100, permutations=99))


def hits_at(dose, *, replicates, seed, permuted=False, threshold=ABOVE_HALF):
    return count_supported(
        lambda rng: overlap_predicts(prediction_study(dose, rng=rng, permuted=permuted), rng=rng),
        threshold,
        hypothesis="H-035",
        replicates=replicates,
        seed=seed,
    )


def test_power_grows_with_how_much_damage_follows_the_energy_in_heavy_tails():
    power = [hits_at(dose, replicates=30, seed=35) for dose in (0.0, 0.5, 1.0, 3.0)]
    # r is dose / sqrt(1 + dose^2) = .45, .71, .95, and .5 is needed: seldom, mostly, always
    assert power == sorted(power)
    assert power[1] <= 20
    assert power[2] >= 24
    assert power[3] == 30


def test_the_overlap_is_the_energy_that_was_planted():
    rng = np.random.default_rng(1)
    found = overlap_predicts(prediction_study(3.0, rng=rng), rng=rng)
    assert found.estimate.value == pytest.approx(3 / np.sqrt(10), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("permuted", [False, True], ids=["no effect", "permuted languages"])
def test_without_an_effect_the_criterion_is_rarely_supported(permuted):
    hits = hits_at(3.0 if permuted else 0.0, replicates=REPLICATES, seed=36, permuted=permuted)
    assert hits <= binomial_band(REPLICATES, 0.05)[1]  # r > .5 beside p < .05 is stricter than the test alone


@pytest.mark.parametrize(
    "permuted",
    [pytest.param(False, id="no effect"), pytest.param(True, id="permuted languages", marks=pytest.mark.slow)],
)
def test_its_test_errs_at_the_nominal_rate(permuted):
    above_zero = Threshold(metric="pearson_r", op=">", bound=0.0, why="p < .05 alone")
    dose = 3.0 if permuted else 0.0
    hits = hits_at(dose, replicates=REPLICATES, seed=37, permuted=permuted, threshold=above_zero)
    assert within_band(hits, REPLICATES), hits


def test_with_the_tails_rescaled_away_the_question_does_not_arise():
    rng = np.random.default_rng(2)
    found = overlap_predicts(prediction_study(3.0, rng=rng, outliers=False), rng=rng)
    assert found.verdict is Verdict.NOT_APPLICABLE, found.because
