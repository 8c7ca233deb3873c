"""Controls of H-038: features that follow resilience by a planted dose, and features of other languages."""

import numpy as np
import pytest
from evenbits.estimates import Threshold
from evenbits.statistics import binomial_band
from evenbits.studies.h038 import arrangements, discriminating_features, discrimination

from controls.drawn_studies import resilience_study
from controls.recovery import rejections, replicated, supported, within_band

pytestmark = pytest.mark.control

LARGE = Threshold(metric="largest_cliffs_delta", op=">=", bound=0.474, why="as in the eval")
REPLICATES = 200


@pytest.fixture(autouse=True)
def _few_arrangements(monkeypatch):
    monkeypatch.setattr(arrangements, "ARRANGEMENTS", 999)
    monkeypatch.setattr(discrimination, "SELECTIONS", 199)


def findings_at(dose, *, replicates, seed, permuted=False):
    return replicated(
        lambda rng: discriminating_features(resilience_study(dose, rng=rng, permuted=permuted), rng=rng),
        replicates=replicates,
        seed=seed,
    )


def count(findings):
    return sum(supported(one, LARGE, hypothesis="H-038") for one in findings)


def test_a_planted_effect_is_supported_and_its_features_are_named():
    rng = np.random.default_rng(38)
    study = resilience_study(8.0, rng=rng)
    finding = discriminating_features(study, rng=rng)
    assert supported(finding, LARGE, hypothesis="H-038"), finding.because
    named = {row["feature"] for row in finding.data["search"]["features"] if row["q"] < 0.05}
    assert len(named & set(list(study.features.values)[:5])) == 5


@pytest.mark.slow
def test_power_grows_with_the_planted_dose():
    power = [count(findings_at(dose, replicates=20, seed=38)) for dose in (0.0, 0.5, 1.5, 8.0)]
    assert power == sorted(power)
    assert power[0] <= 3
    assert power[-1] >= 18


@pytest.mark.slow
@pytest.mark.parametrize("permuted", [False, True], ids=["random features", "permuted languages"])
def test_without_an_effect_each_test_errs_at_its_nominal_rate_and_both_together_hardly_ever(permuted):
    findings = findings_at(8.0 if permuted else 0.0, replicates=REPLICATES, seed=39, permuted=permuted)
    # Where the groups are too uneven to be searched there is no p; that concerns a few percent of studies.
    searches = [one.data["search"] for one in findings if "search" in one.data]
    assert len(searches) >= 0.9 * REPLICATES
    # With 199 arrangements p <= .05 for the 10 highest of 200: 5 %.
    held_out = rejections([search["selection"]["p_value"] for search in searches])
    assert within_band(*held_out), held_out
    # Where no feature tells the groups apart every discovery is false: the false discovery rate is the level.
    found = rejections([min(row["q"] for row in search["features"]) for search in searches])
    assert within_band(*found), found
    # The verdict asks for both and a large effect, and they hardly agree by chance.
    assert count(findings) <= binomial_band(REPLICATES, 0.05)[1]
