"""E-1 on planted, absent and reversed effects."""

import math

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.observe.runs import training_run
from evenbits.statistics import binomial_band
from evenbits.studies.established import ModelDamage, outliers_explain_disparity
from evenbits.studies.established.disparity import log_disparity

CLAIM = Threshold(metric="r", op="<", bound=-0.5, why="test")
LANGUAGES = ("de", "en", "fr", "ga", "mt", "yo")
TIER = dict.fromkeys(LANGUAGES[:3], "high") | dict.fromkeys(LANGUAGES[3:], "low")


def rng(seed=0):
    return np.random.default_rng(seed)


def damaged(name, tail, ratio, *, high=10.0, floor=1.0, tier=TIER):
    """A model of which low-resource languages lose `ratio` times as much as high-resource ones."""
    values = np.array([high * 0.9, high, high * 1.1, *(high * ratio * f for f in (0.9, 1.0, 1.1))])
    return ModelDamage(
        model=name,
        run=training_run(name),
        tail=tail,
        languages=LANGUAGES,
        tier=tier,
        tokens=np.arange(6.0) + 1,
        damage={"excess_bits": values, "relative_increase": values / 100, "kl": values * 2},
        floor=floor,
        outliers=np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.6]),
    )


def family(slope, *, n=12, noise=0.1, seed=0):
    draws = rng(seed)
    tails = np.exp(draws.uniform(0, 5, n))
    return [
        damaged(f"m{i}", float(t), float(np.exp(0.5 + slope * np.log(t) + noise * draws.standard_normal())))
        for i, t in enumerate(tails)
    ]


def measured(models, seed=0):
    finding = outliers_explain_disparity(models, rng=rng(seed))
    return finding, judge(finding, CLAIM, hypothesis="E-1", test="t", role="established")


def test_the_log_disparity_is_that_of_the_two_means():
    assert log_disparity(damaged("m", 1.0, 2.5)) == pytest.approx(math.log(2.5))
    assert log_disparity(damaged("m", 1.0, 2.5), "kl") == pytest.approx(math.log(2.5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"high": 0.5}, "noise floor"),
        ({"tier": dict.fromkeys(LANGUAGES, "high")}, "no low-resource"),
        ({"tier": {}}, "no low-resource"),
        ({"ratio": -1.0}, "lose nothing"),
    ],
)
def test_where_there_is_no_disparity_the_reason_is_given(changes, words):
    assert words in log_disparity(damaged(**{"name": "m", "tail": 1.0, "ratio": 2.0, **changes}))


def test_a_planted_correlation_of_the_claimed_sign_is_supported():
    finding, row = measured(family(-0.3))
    assert row.supported, row.explain()
    assert finding.estimate.value < -0.9
    assert finding.estimate.n == 12
    assert set(finding.also) == {"within_models", "relative_increase", "kl", "difference_in_bits"}
    assert "Leaving one run out" in row.explain()


def test_the_other_sign_is_not_supported_and_is_called_so():
    finding, row = measured(family(0.3))
    assert row.verdict is Verdict.NOT_SUPPORTED
    # in every model low-resource languages lose more and have more energy in outliers
    assert finding.also["within_models"].value > 0.5
    assert "The sign is the other one" in row.explain()


def test_checkpoints_of_one_run_are_one_unit():
    runs = [damaged(f"m-s{10 * i}", 2.0 + i, 2.0) for i in range(12)]
    finding, row = measured(runs)
    assert row.verdict is Verdict.UNDERPOWERED
    assert "1 training run, needed 8" in row.explain()
    assert finding.estimate.value is None
    assert finding.also["within_models"].value is not None


def test_models_without_a_disparity_do_not_count():
    flat = [damaged(f"f{i}", 3.0, 2.0, high=0.5) for i in range(4)]
    _, row = measured([*family(-0.3, n=7), *flat])
    assert row.verdict is Verdict.UNDERPOWERED
    assert "7 training runs with a disparity, needed 8" in row.explain()


def test_equal_tails_give_no_correlation():
    _, row = measured([damaged(f"m{i}", 4.0, 1.5 + i / 10) for i in range(9)])
    assert row.verdict is Verdict.NOT_APPLICABLE


def test_without_an_effect_it_is_hardly_ever_supported():
    found = sum(measured(family(0.0, n=9, noise=0.4, seed=s), seed=s)[1].supported for s in range(200))
    assert found <= binomial_band(200, 0.05)[1]
