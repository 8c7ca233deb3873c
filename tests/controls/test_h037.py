"""Controls of H-037: outliers planted by share and size, rescaled away; sparsity that recovery follows, or does not."""

from functools import partial

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict
from evenbits.statistics import spearman
from evenbits.studies.h037 import across_models, clear_pattern, friendliness

from controls.drawn_studies import model_points, outlier_model
from controls.recovery import count_supported, supported, within_band

pytestmark = pytest.mark.control

CLEAR = Threshold(metric="class_stability", op=">=", bound=0.95, why="as in the eval")
POSITIVE = Threshold(metric="rho", op=">", bound=0.0, why="as in the eval")
REPLICATES = 200


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(friendliness, "spearman", partial(spearman, resamples=199, permutations=999))


@pytest.mark.parametrize(
    ("share", "size", "label"),
    [
        (1e-4, 12.0, "sparse"),  # the programme's super-weight scale
        (1e-2, 6.0, "dense"),  # its general-outlier scale
    ],
)
def test_the_class_that_was_planted_is_supported(share, size, label):
    rng = np.random.default_rng(37)
    statistics, ablations = outlier_model(share, rng=rng, size=size)
    finding = clear_pattern(statistics, ablations, rng=rng)
    assert finding.data["class"] == finding.data["class_by_ablation"] == label, finding.because
    assert supported(finding, CLEAR, hypothesis="H-037")


@pytest.mark.parametrize("share", [1e-2, 0.0], ids=["outliers rescaled away", "none planted"])
def test_without_outliers_there_is_no_pattern_to_be_clear(share):
    rng = np.random.default_rng(37)
    statistics, ablations = outlier_model(share, rng=rng, size=1.0)
    finding = clear_pattern(statistics, ablations, rng=rng)
    assert finding.data["class"] == finding.data["class_by_ablation"] == "no outliers", finding.because
    assert finding.verdict is Verdict.NOT_APPLICABLE


def test_outliers_that_only_weights_show_are_not_supported():
    rng = np.random.default_rng(38)
    statistics, _ = outlier_model(1e-2, rng=rng)
    _, harmless = outlier_model(1e-2, rng=rng, size=1.0)  # ablation finds what a normal distribution explains
    assert not supported(clear_pattern(statistics, harmless, rng=rng), CLEAR, hypothesis="H-037")


def test_dense_outliers_beyond_seven_deviations_are_contradicted_by_ablation():
    """A limit of the instrument: it then says `not supported`, it does not say `sparse`.

    The largest .01 % hold size^2 / (1 + .01 size^2) times the energy of random ones, 17 for a normal distribution: more
    than twice that, which is called sparse, from a size of 7.2 on.
    """
    rng = np.random.default_rng(40)
    statistics, ablations = outlier_model(1e-2, rng=rng, size=9.0)
    finding = clear_pattern(statistics, ablations, rng=rng)
    assert (finding.data["class"], finding.data["class_by_ablation"]) == ("dense", "sparse")
    assert not supported(finding, CLEAR, hypothesis="H-037")


def power_at(dose, replicates, seed):
    return count_supported(
        lambda rng: across_models(model_points(dose, rng=rng), rng=rng),
        POSITIVE,
        hypothesis="H-037",
        replicates=replicates,
        seed=seed,
    )


def test_power_over_models_grows_with_the_planted_slope():
    power = [power_at(dose, 40, 37) for dose in (0.0, 0.5, 1.0, 3.0)]
    # 16 runs: r is dose / sqrt(1 + dose^2), .45, .71 and .95; Fisher's z has standard error 1 / sqrt(13)
    assert power == sorted(power)
    assert power[2] >= 32
    assert power[3] == 40


def test_where_recovery_does_not_follow_sparsity_the_prediction_errs_at_its_nominal_rate():
    hits = power_at(0.0, REPLICATES, 39)
    assert within_band(hits, REPLICATES), hits
