"""Kurtosis overlap on weights and energies small enough to work out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from evenbits.studies.h035.overlap import kurtosis_overlap
from weight_records import of_tensors


def tensor(name, layer, columns, kurtosis, outs=2):
    columns = np.array(columns, dtype=float)
    shape = (outs, len(columns))
    return SimpleNamespace(
        name=name, layer=layer, column_kurtosis=columns, kurtosis=kurtosis, shape=shape, n=outs * len(columns)
    )


def language(**energy):
    squares = {name: np.array(values, dtype=float) for name, values in energy.items()}

    def share(name):
        return squares[name] / squares[name].sum() if squares[name].any() else np.full(2, 1 / 2)

    return SimpleNamespace(channel_square=squares.__getitem__, energy=share)


def two_layers():
    """Column b0 (kurtosis 9) is the only one above the 90 % quantile, tensor a (kurtosis 5) the only such tensor."""
    return of_tensors([tensor("a", 0, [0, 1], 5.0), tensor("b", 1, [9, 0], 1.0), tensor("c", 1, [0, 1], 1.0, outs=4)])


def test_energy_is_normalised_in_each_layer_and_layers_count_by_parameters():
    # layer 0: all energy enters tensor a, which is high: 1. Layer 1: b0 has 3 of 3 + 1 + 2 + 2 = 8 parts: 3/8.
    # parameters: 4 in layer 0, 4 + 8 in layer 1, so 1/4 * 1 + 3/4 * 3/8
    found = kurtosis_overlap({"de": language(a=[1, 7], b=[3, 1], c=[2, 2])}, two_layers())
    assert found.share == pytest.approx([0.25, 0.75])
    assert found.quantile_form == pytest.approx([0.25 + 0.75 * 3 / 8])
    # column kurtosis weighted by energy: layer 0: 7/8 * 1; layer 1: 3/8 * 9 + 2/8 * 1
    assert found.continuous_form == pytest.approx([0.25 * 7 / 8 + 0.75 * (27 / 8 + 2 / 8)])
    # columns alone, normalised in each product: only b has one, with 3/4 of its energy and 4 of 16 parameters
    assert found.columns == pytest.approx([4 / 16 * 3 / 4])
    assert (found.high_columns, found.high_tensors) == (1, ("a",))


def test_the_scale_of_a_language_or_layer_does_not_matter():
    plain = {"de": language(a=[1, 7], b=[3, 1], c=[2, 2])}
    loud = {"de": language(a=[100, 700], b=[0.3, 0.1], c=[0.2, 0.2])}
    expected = kurtosis_overlap(plain, two_layers()).quantile_form
    assert kurtosis_overlap(loud, two_layers()).quantile_form == pytest.approx(expected)


def test_weights_of_equal_kurtosis_have_no_high_regions():
    flat = of_tensors([tensor("a", 0, [1, 1], 2.0), tensor("b", 1, [1, 1], 2.0)])
    found = kurtosis_overlap({"de": language(a=[1, 2], b=[3, 4]), "fr": language(a=[5, 1], b=[1, 1])}, flat)
    assert found.quantile_form.tolist() == [0, 0]


def test_tensors_without_spread_have_no_kurtosis_and_are_no_region():
    flat = of_tensors([tensor("a", 0, [-2, -2], None), tensor("b", 1, [-2, -2], None)])
    found = kurtosis_overlap({"de": language(a=[0, 0], b=[1, 1])}, flat)
    assert found.quantile_form.tolist() == [0]
    assert found.continuous_form == pytest.approx([-2])  # a layer without energy counts its channels equally


def test_permuted_layers_take_the_kurtosis_of_other_layers_of_the_same_shapes():
    same = of_tensors(
        [
            tensor("a", 0, [9, 0], 1.0),
            tensor("b", 1, [0, 1], 1.0),
            tensor("c", 2, [0, 0.5], 1.0),
            tensor("d", 3, [0, 0, 0], 1.0),
        ]
    )
    found = kurtosis_overlap({"de": language(a=[3, 1], b=[1, 1], c=[1, 4], d=[1, 1, 1])}, same)
    orders = found.orders(rng=np.random.default_rng(0), most=40)
    assert len(orders) == 5  # 3! orders of the three equal layers, without their own
    assert all(order[3] == 3 and order != (0, 1, 2, 3) for order in orders)
    # with the kurtosis of a, layer c would have 1/5 of its energy in the high column; a layer has 4 of 18 weights
    assert found.permuted((2, 1, 0, 3)) == pytest.approx([4 / 18 * 1 / 5])
    assert found.quantile_form == pytest.approx([4 / 18 * 3 / 4])


def test_layers_that_all_differ_have_no_other_order():
    different = of_tensors([tensor("a", 0, [9, 0], 1.0), tensor("b", 1, [0, 1, 2], 1.0)])
    found = kurtosis_overlap({"de": language(a=[1, 1], b=[1, 1, 1])}, different)
    assert found.orders(rng=np.random.default_rng(0), most=40) == []
