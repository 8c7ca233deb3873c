"""The recommended k and its interval, on tables made by hand."""

from decimal import Decimal

import numpy as np
import pytest
from evenbits.statistics import NoHarm, bootstrap_equivalence
from evenbits.studies.h039 import recommend, retention_recipe
from evenbits.studies.h039.recommendation import _parity_p, _shown
from retention_tables import REMOVED, STAYS, means_of, rng, study_of

FEW = 199


def advice(study, *, shown=(), harmful=()):
    harms = {
        k: NoHarm(changes={}, worse=("h00",) if str(k) in harmful else (), open=(), margin=1.0, least_p=0.01)
        for k in study.kept
    }
    return recommend(study, shown={Decimal(k) for k in shown}, harms=harms, rng=rng(), resamples=FEW)


def test_the_smallest_k_with_parity_is_recommended_and_its_interval_holds_it():
    found = advice(study_of(means_of(REMOVED)), shown=("0.1", "0.3"))
    assert found.because == "parity"
    assert found.percent.value == 0.1
    assert found.percent.low <= 0.1 <= found.percent.high < 1
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares[Decimal("0.1")] > 0.9  # ratios 2.0 before it and 1.02 at it leave resamples no choice
    assert (
        found.sentence() == "Keep 0.1 [0.1, 0.1] % by magnitude (int4-row+keep0.1%:magnitude, +0.30 bits per weight)."
    )


def test_resamples_that_disagree_widen_the_interval():
    # at .1 % a ratio of 1.15 is shown to be inside 1.25 in some resamples only; at .3 % parity is clear
    found = advice(study_of(means_of((3.0, 2.6, 2.0, 1.15, 1.0, 0.98), scatter=0.15)), shown=("0.3",))
    assert found.percent.low < found.percent.high
    assert 0 < found.shares[Decimal("0.1")] < 1


def test_without_parity_the_least_mean_damage_decides():
    found = advice(study_of(means_of(STAYS)))
    # damage falls by a tenth at each of five steps: 1 - .9^5
    assert (found.because, found.percent.value) == ("least_damage", 1.0)
    assert found.saved == pytest.approx(1 - 0.9**5, abs=0.02)
    assert found.sentence().startswith(
        "No k < 1 % is shown to give parity; k 1 [1, 1] % lowers the mean damage most, by 4"
    )


def test_a_k_that_harms_is_passed_over():
    found = advice(study_of(means_of(REMOVED)), shown=("0.1", "0.3"), harmful=("0.1",))
    assert found.percent.value == 0.3
    only = advice(study_of(means_of(REMOVED)), shown=("0.1",), harmful=("0.1", "0.3"))
    assert only.because == "least_damage"
    assert "No k < 1 % is shown to give parity without harm" in only.sentence()


def test_parity_without_retention_needs_none():
    found = advice(study_of(means_of((1.0,) * 6)), shown=("0", "0.01", "0.03", "0.1", "0.3"))
    assert (found.because, found.percent.value) == ("parity_at_0", 0.0)
    assert "it is there at k = 0" in found.sentence()


def test_retention_that_lowers_no_damage_is_not_recommended():
    found = advice(study_of(means_of(STAYS, falls=1.1)))
    assert (found.because, found.percent.value) == ("no_gain", 0.0)
    assert found.sentence() == "Keep nothing: retention does not lower the mean damage."
    none = [dict.fromkeys(row, -float(place + 1)) for place, row in enumerate(means_of(STAYS))]  # better with each k
    assert (advice(study_of(none)).because, advice(study_of(none)).spec) == ("no_gain", "int4-row")


def test_the_test_inside_a_resample_is_that_of_the_criterion_moved_to_it():
    logs = np.r_[0.1, rng(1).normal(0.1, 0.08, 499)]
    found = _parity_p(logs, 0.1)
    # the first replicate stands where the data stand, so its test is theirs
    assert found[0] == bootstrap_equivalence(0.1, logs, n=10).p_value
    # another one is the same test with everything moved
    moved = bootstrap_equivalence(float(logs[7]), logs - 0.1 + logs[7], n=10)
    assert found[7] == pytest.approx(moved.p_value, abs=1 / 500)


def test_a_resample_without_a_ratio_shows_no_parity():
    logs = np.r_[np.nan, np.zeros(199)]
    assert _parity_p(logs, 0.0)[0] == 1


def test_several_k_are_adjusted_by_holm_and_the_first_stands_alone():
    # 199 replicates at 0 and none beyond the bounds: p = 1 / 200 at each k, times 2 at most by Holm: all shown
    logs = np.zeros((199, 3))
    tested = np.array([True, True, True])
    assert _shown(logs, np.zeros(3), tested=tested, alpha=0.05).all()
    assert not _shown(logs, np.zeros(3), tested=~tested, alpha=0.05).any()
    # 7 of 199 beyond: p = 8 / 200 = .04; alone that is shown, as one of two with p = .04 it is not (.08)
    logs[:7] = 1.0
    assert _shown(logs, np.zeros(3), tested=tested, alpha=0.05)[50].tolist() == [True, False, False]


def test_the_recipe_names_the_spec_and_the_command():
    study = study_of(means_of(REMOVED))
    found = advice(study, shown=("0.1",))
    recipe = retention_recipe(study, found.to_json())
    assert recipe["spec"] == "int4-row+keep0.1%:magnitude"
    assert recipe["recommended"]["percent"]["value"] == 0.1
    assert recipe["command"] == "evenbits quantize m --spec int4-row+keep0.1%:magnitude -o FOLDER"
    assert recipe["bits_per_weight"] == study.table.columns[recipe["spec"]].bits_per_weight


def test_harm_that_is_not_known_yet_is_tested():
    means = means_of((2.0, 1.01, 1.01, 1.01, 1.01, 1.01), falls=1.0, scatter=0.02)
    means[1]["h03"] *= 1.5
    found = recommend(study_of(means, spread=0.05), shown={Decimal("0.01")}, harms={}, rng=rng(), resamples=FEW)
    assert found.percent.value != 0.01
