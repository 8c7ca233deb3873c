"""Sparsity against damage itself: the second correlation over models."""

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.studies.h037 import ModelPoint, across_models, against_damage

POSITIVE = Threshold(metric="rho", op=">", bound=0.0, why="test")


def points(damage, *, relative=None, run="m{}"):
    """Models whose sparsity rises; `damage` by model, None for one that was not measurable."""
    return [
        ModelPoint(
            model=f"m{i}",
            run=run.format(i),
            sparsity=0.1 + i / 100,
            damage=d,
            relative=None if d is None else (relative or damage)[i],
            recovered=None if d is None else 0.5,
        )
        for i, d in enumerate(damage)
    ]


def rng():
    return np.random.default_rng(0)


def judged(finding):
    return judge(finding, POSITIVE, hypothesis="H-037", test="t", role="robustness")


def test_damage_that_rises_with_sparsity_is_found():
    finding = against_damage(points([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0]), rng=rng())
    row = judged(finding)
    assert row.supported, row.explain()
    assert finding.p_value == pytest.approx(1 / 9999, rel=1.0)  # a perfect order of eight: 1 of 40,320
    assert "Leaving one run out gives 1.00 to 1.00." in row.explain()
    assert not row.metric_sensitive


def test_another_sign_by_relative_increase_is_called_metric_sensitive():
    up = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0]
    row = judged(against_damage(points(up, relative=up[::-1]), rng=rng()))
    assert row.also["relative_increase"].value == pytest.approx(-1.0)
    assert row.metric_sensitive


def test_models_without_measurable_damage_are_no_units():
    finding = against_damage(points([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None]), rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "7 training runs with damage above the floor, needed 8" in finding.because


def test_equal_recovery_gives_no_coefficient():
    finding = across_models(points([float(i) for i in range(1, 10)]), rng=rng())
    assert finding.verdict is Verdict.NOT_APPLICABLE  # all recover .5
