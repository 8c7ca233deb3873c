"""Controls of H-036: an interaction of layers and languages, and overlap with outlier layers, planted and absent."""

from functools import partial

import numpy as np
import pytest
from evenbits.estimates import Threshold
from evenbits.statistics import binomial_band, cliffs_delta, layer_language_interaction
from evenbits.studies.h036 import critical, different_layers, overlap_with_outliers, profiles

from controls.drawn_studies import TIER, critical_layers_of, layer_study
from controls.recovery import count_supported, permuted_tiers, rejections, replicated, supported, within_band

pytestmark = pytest.mark.control

ABOVE_ZERO = Threshold(metric="x", op=">", bound=0.0, why="as in the eval")
REPLICATES = 100


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    # With 199 permutations p < .05 for the 9 highest of 200: 4.5 %.
    fewer = partial(layer_language_interaction, resamples=100, permutations=199)
    monkeypatch.setattr(profiles, "layer_language_interaction", fewer)
    monkeypatch.setattr(critical, "cliffs_delta", partial(cliffs_delta, resamples=100, permutations=399))


def supported_layers(dose, *, replicates, seed, permuted=False):
    return count_supported(
        lambda rng: different_layers(layer_study(dose, rng=rng, permuted=permuted), rng=rng),
        ABOVE_ZERO,
        hypothesis="H-036",
        replicates=replicates,
        seed=seed,
    )


def overlaps(dose, *, replicates, seed, permuted=False):
    def draw(rng):
        found, kurtosis = critical_layers_of(dose, rng=rng)
        tier = permuted_tiers(TIER, rng=rng) if permuted else TIER
        return overlap_with_outliers(found, kurtosis, tier=tier, rng=rng)

    return replicated(draw, replicates=replicates, seed=seed)


def supported_overlap(dose, *, replicates, seed, permuted=False):
    found = overlaps(dose, replicates=replicates, seed=seed, permuted=permuted)
    return sum(supported(one, ABOVE_ZERO, hypothesis="H-036") for one in found)


def test_power_of_the_criterion_grows_with_the_planted_interaction():
    power = [supported_layers(dose, replicates=20, seed=36) for dose in (0.0, 0.1, 0.2, 0.4)]
    # 20 segments: F is 1 + 20 dose^2 on average, 1.2, 1.8 and 4.2; the 95 % point of F(160, 3040) is 1.19
    assert power == sorted(power)
    assert power[2] >= 16
    assert power[3] == 20


def test_the_size_that_was_planted_is_the_size_that_is_found():
    rng = np.random.default_rng(5)
    found = different_layers(layer_study(1.0, rng=rng), rng=rng)
    # interaction and noise both have variance 1: partial omega squared is 1 / (1 + 1)
    assert found.estimate.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "permuted",
    [pytest.param(False, id="random layers"), pytest.param(True, id="permuted languages", marks=pytest.mark.slow)],
)
def test_without_an_interaction_the_criterion_errs_at_its_nominal_rate(permuted):
    hits = supported_layers(0.4 if permuted else 0.0, replicates=REPLICATES, seed=37, permuted=permuted)
    assert within_band(hits, REPLICATES), hits


def test_power_of_the_prediction_grows_with_what_low_resource_languages_write_into_outlier_layers():
    power = [supported_overlap(dose, replicates=20, seed=38) for dose in (0.0, 1.0, 2.0, 4.0, 8.0)]
    # Tiers are exchanged within family and script, and only two strata hold both: 1 low of 3, and 1 high of 8. That
    # makes 24 labellings; p < .05 takes the one labelling above all others, so both strata have to be split cleanly.
    # Overlap comes in quarters: as long as a language of the one tier ties with one of the other, they are not.
    assert power == sorted(power)
    assert power[0] == 0
    assert power[-2] >= 18
    assert power[-1] == 20


def test_a_clean_split_has_the_least_p_that_there_is():
    (found,) = overlaps(8.0, replicates=1, seed=38)
    assert found.p_value == pytest.approx(1 / 24)


@pytest.mark.parametrize("permuted", [False, True], ids=["random layers", "permuted languages"])
def test_without_overlap_the_prediction_is_rarely_supported(permuted):
    found = overlaps(1.0 if permuted else 0.0, replicates=REPLICATES, seed=39, permuted=permuted)
    # The share of all writing has no ties: its test rejects at 1/24, or at what the labels dealt anew allow up to .05.
    hits, trials = rejections([one.data["write_share"]["p_value"] for one in found])
    assert trials >= REPLICATES - 10
    assert within_band(hits, trials), hits
    # The verdict is on overlap in quarters, whose ties keep the level with room to spare.
    supports = sum(supported(one, ABOVE_ZERO, hypothesis="H-036") for one in found)
    assert supports <= binomial_band(REPLICATES, 0.05)[1]
