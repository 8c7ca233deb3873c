"""E-2: where the heaviest matrix is, and what few HEAVY models say."""

import numpy as np
import pytest
import weight_records
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.observe.runs import training_run
from evenbits.studies.established import ModelWeights, outliers_sit_in_attention

CLAIM = Threshold(metric="share", op=">", bound=0.5, why="test")


def of(name, kind, kurtosis, **beyond):
    statistics = weight_records.model({(1, kind): kurtosis}, {(1, k): n for k, n in (beyond or {kind: 10}).items()})
    return ModelWeights(model=name, run=training_run(name), statistics=statistics)


def measured(models):
    finding = outliers_sit_in_attention(models, rng=np.random.default_rng(0))
    return finding, judge(finding, CLAIM, hypothesis="E-2", test="t", role="established")


def test_many_heavy_models_with_attention_outliers_are_supported():
    finding, row = measured([of(f"m{i}", "q_proj", 60.0 + i) for i in range(8)])
    assert row.supported, row.explain()
    assert (finding.estimate.value, finding.estimate.n) == (1.0, 8)
    # by chance the heaviest of 14 matrices is one of 8 in attention: (4/7)^8
    assert finding.p_value == pytest.approx((4 / 7) ** 8)
    assert "q_proj in 8 of 8" in row.explain()
    assert finding.also["share_of_outlier_weights"].value == 1.0


def test_three_of_three_is_what_chance_gives_too():
    _, row = measured([of(f"m{i}", "k_proj", 60.0) for i in range(3)])
    assert row.verdict is Verdict.UNDERPOWERED
    assert "expected by chance (p 0.19)" in row.explain()  # (4/7)^3


def test_heavy_models_with_outliers_elsewhere_refute():
    _, row = measured([of(f"m{i}", "down_proj", 60.0) for i in range(4)])
    assert row.verdict is Verdict.NOT_SUPPORTED
    assert row.estimate.value == 0.0
    assert row.estimate.high < 0.5  # Wilson for 0 of 4: .49; 0 of 3 would not rule out a half
    few = measured([of(f"m{i}", "down_proj", 60.0) for i in range(3)])[1]
    assert few.verdict is Verdict.UNDERPOWERED


def test_fewer_than_three_heavy_models_are_underpowered_and_all_models_are_told():
    finding, row = measured([of("heavy", "o_proj", 51.0), of("mild", "up_proj", 6.0, up_proj=30, q_proj=10)])
    assert row.verdict is Verdict.UNDERPOWERED
    assert "1 HEAVY training run (largest excess kurtosis above 50), needed 3" in row.explain()
    assert (finding.estimate.value, finding.estimate.n) == (1.0, 1)
    assert finding.also["over_all_runs"].value == 0.5
    assert finding.also["share_of_outlier_weights"].value == pytest.approx((1.0 + 0.25) / 2)
    assert "heaviest matrix in attention: 1 of 1 HEAVY runs, 1 of all 2" in row.summary


def test_without_a_heavy_model_there_is_no_number_but_a_sentence():
    finding, row = measured([of("a", "up_proj", 6.0)])
    assert finding.estimate.value is None
    assert row.verdict is Verdict.UNDERPOWERED
    assert "0 HEAVY training runs" in row.explain()


def test_a_run_is_judged_by_its_last_checkpoint():
    finding, _ = measured([of("a-s0080", "q_proj", 60.0), of("a", "up_proj", 6.0), of("a-s0320", "q_proj", 70.0)])
    assert [row["model"] for row in finding.data["models"]] == ["a"]


def test_the_matrices_of_the_heaviest_model_are_there_to_be_drawn():
    finding, row = measured([of("a", "up_proj", 6.0), of("b", "q_proj", 60.0)])
    assert max(t["kurtosis"] for t in finding.data["tensors"]) == 60.0

    from evenbits.studies.h037.figures import sparsity

    case = sparsity({**row.to_json(), "model": None}, {})
    assert "in q_proj of layer 1" in case.alternative


def test_without_outlier_weights_no_share_is_made_up():
    finding, row = measured([ModelWeights(model="a", run="a", statistics=weight_records.model())])
    assert "share_of_outlier_weights" not in finding.also
    assert "beyond 5 sigma" not in row.explain()


def test_a_copy_with_outliers_put_in_is_not_a_heavy_model_of_its_own():
    original = of("a", "up_proj", 6.0)
    copy = ModelWeights(model="a-injected", run="a", statistics=of("b", "up_proj", 200.0).statistics)
    for models in ([original, copy], [copy, original]):
        finding, _ = measured(models)
        assert [row["model"] for row in finding.data["models"]] == ["a"]
