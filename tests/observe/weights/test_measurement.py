"""Statistics of weight matrices against scipy and against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from evenbits.errors import ModelError, NonFiniteError
from evenbits.observe.weights import magnitudes, matrix, measurement
from evenbits.observe.weights.matrix import ArrayMatrix
from evenbits.observe.weights.measurement import matrix_statistics
from hypothesis import example, given, settings
from hypothesis import strategies as st


def statistics_of(weight, *, transposed=False):
    return matrix_statistics(
        ArrayMatrix("w", weight, transposed=transposed), name="w", layer=0, part="mlp", role="down_proj"
    )


def gini_by_pairs(values):
    a = np.abs(np.asarray(values, dtype=np.float64)).ravel()
    return np.abs(a[:, None] - a[None, :]).sum() / (2 * a.size * a.sum())


def heavy(rng, shape):
    """Student t with 3 degrees of freedom: the fourth moment is ruled by a few weights."""
    return rng.standard_t(3, size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 7), (64, 48), (300, 130)])
def test_moments_of_matrix_rows_and_columns_equal_scipy(shape):
    w = heavy(np.random.default_rng(0), shape)
    x = w.astype(np.float64)
    found = statistics_of(w)
    assert found.mean == pytest.approx(x.mean(), rel=1e-12)
    assert found.std == pytest.approx(x.std(), rel=1e-12)
    assert found.skew == pytest.approx(scipy.stats.skew(x, axis=None), rel=1e-9)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(x, axis=None), rel=1e-9)
    np.testing.assert_allclose(found.row_std, x.std(axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.row_kurtosis, scipy.stats.kurtosis(x, axis=1), rtol=1e-9, atol=1e-10)
    if shape[0] > 1:
        np.testing.assert_allclose(found.column_kurtosis, scipy.stats.kurtosis(x, axis=0), rtol=1e-9, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    columns=st.integers(2, 40),
    offset=st.sampled_from([0.0, 1e-3, 5.0, -1e4]),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
)
@example(seed=0, rows=30, columns=30, offset=-1e4, scale=1e-6)
def test_kurtosis_equals_scipy_whatever_the_offset_and_scale(seed, rows, columns, offset, scale):
    rng = np.random.default_rng(seed)
    w = (offset + scale * rng.standard_normal((rows, columns))).astype(np.float32)
    x = w.astype(np.float64)
    if np.ptp(x) == 0:
        assert statistics_of(w).kurtosis is None
        return
    found = statistics_of(w)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(x, axis=None), rel=1e-7, abs=1e-7)
    spread = np.ptp(x, axis=1) > 0
    expected = scipy.stats.kurtosis(x[spread], axis=1)
    np.testing.assert_allclose(found.row_kurtosis[spread], expected, rtol=1e-6, atol=1e-6)
    assert (found.row_kurtosis[~spread] == -2).all()


def test_a_column_far_from_the_others_is_measured_about_its_own_mean():
    rng = np.random.default_rng(1)
    w = rng.standard_normal((500, 8)).astype(np.float32)
    # The sums about the matrix's mean would lose (1e4)^4 * 1e-16 = 1: every digit.
    w[:, 3] = 1e4 + rng.standard_normal(500).astype(np.float32)
    expected = scipy.stats.kurtosis(w.astype(np.float64), axis=0)
    np.testing.assert_allclose(statistics_of(w).column_kurtosis, expected, rtol=1e-9, atol=1e-9)


def test_lines_of_zeros_are_taken_a_few_at_a_time_and_are_flat(monkeypatch):
    """Unused tokens leave rows of zeros, however many: they lie away from the matrix's mean, and are measured again."""
    taken, real = [], measurement.moments_of
    monkeypatch.setattr(measurement, "HELD_ELEMENTS", 1600)
    monkeypatch.setattr(measurement, "moments_of", lambda x: (taken.append(x.size), real(x))[1])
    w = np.zeros((200, 16), dtype=np.float32)
    w[:5, :12] = 1 + np.random.default_rng(0).random((5, 12), dtype=np.float32)
    found = statistics_of(w)
    x = w.astype(np.float64)
    np.testing.assert_allclose(found.row_std, x.std(axis=1), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(found.column_std, x.std(axis=0), rtol=1e-10, atol=1e-15)
    assert found.std == pytest.approx(x.std(), rel=1e-12)
    assert sum(taken) >= 195 * 16  # every row of zeros
    assert max(taken) <= 200  # 1600 / 16 weights at a time, at least one line: a column has 200


def test_sigma_counts_are_those_beyond_multiples_of_the_standard_deviation():
    # 996 times +-1 and four times +-20: mean 0, variance (996 + 1600) / 1000 = 2.596, std 1.611;
    # 20 / 1.611 = 12.4, so all four lie beyond 3, 5 and 10 and nothing else does.
    w = np.ones((10, 100), dtype=np.float32)
    w[:, ::2] = -1
    w[0, 0], w[0, 1], w[7, 2], w[7, 3] = -20, 20, -20, 20
    found = statistics_of(w)
    assert [(c.sigma, c.count, c.share) for c in found.beyond] == [(3, 4, 0.004), (5, 4, 0.004), (10, 4, 0.004)]
    assert found.row_beyond[2].tolist() == [2, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    assert found.share_beyond(5) == 0.004


def test_sigma_counts_equal_a_plain_comparison_in_float64():
    w = heavy(np.random.default_rng(2), (211, 97))
    x = w.astype(np.float64)
    distance = np.abs(x - x.mean()) / x.std()
    found = statistics_of(w)
    for i, sigma in enumerate((3, 5, 10)):
        assert found.beyond[i].count == (distance > sigma).sum()
        np.testing.assert_array_equal(found.row_beyond[i], (distance > sigma).sum(axis=1))


def test_concentration_gini_and_hoyer_equal_their_formulas():
    w = heavy(np.random.default_rng(3), (40, 50))
    a = np.sort(np.abs(w.astype(np.float64)).ravel())
    found = statistics_of(w)
    # n = 2000: the top 1 % are 20 weights, the top 10 % are 200.
    assert found.concentration == pytest.approx(a[-20:].sum() / a[-200:].sum(), rel=1e-12)
    assert found.gini == pytest.approx(gini_by_pairs(w), rel=1e-10)
    root = np.sqrt(2000)
    assert found.hoyer == pytest.approx((root - a.sum() / np.sqrt((a**2).sum())) / (root - 1), rel=1e-10)
    assert found.absmax == a[-1]
    np.testing.assert_allclose(found.row_gini, [gini_by_pairs(row) for row in w], rtol=1e-10)
    rows = np.sort(np.abs(w.astype(np.float64)), axis=1)
    # 50 weights a row: the top 1 % is round(.5) = 0, taken as 1; the top 10 % are 5.
    np.testing.assert_allclose(found.row_concentration, rows[:, -1] / rows[:, -5:].sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.row_absmax, rows[:, -1])


def test_equal_magnitudes_have_no_gini_and_no_hoyer_and_a_single_weight_has_all():
    equal = statistics_of(np.where(np.arange(400).reshape(20, 20) % 2, 1.0, -1.0).astype(np.float32))
    assert equal.gini == pytest.approx(0, abs=1e-12)
    assert equal.hoyer == pytest.approx(0, abs=1e-12)
    assert equal.concentration == pytest.approx(4 / 40)
    single = np.zeros((20, 20), dtype=np.float32)
    single[3, 4] = 7
    found = statistics_of(single)
    # One of n = 400 holds everything: Gini = (2n - n - 1) / n.
    assert found.gini == pytest.approx(399 / 400)
    assert found.hoyer == pytest.approx(1)
    assert found.concentration == 1


def test_a_matrix_without_spread_has_no_kurtosis_and_says_why():
    found = statistics_of(np.full((6, 5), 0.1, dtype=np.float32))
    assert found.kurtosis is None
    assert found.skew is None
    assert found.reason == "all weights of the tensor are equal"
    assert (found.row_kurtosis == -2).all()
    assert [c.count for c in found.beyond] == [0, 0, 0]
    zeros = statistics_of(np.zeros((6, 5), dtype=np.float32))
    assert (zeros.gini, zeros.hoyer, zeros.kurtosis) == (0, 0, None)


def test_a_transposed_matrix_gives_the_statistics_of_out_by_in():
    w = heavy(np.random.default_rng(4), (30, 70))
    plain, turned = statistics_of(w), statistics_of(np.ascontiguousarray(w.T), transposed=True)
    assert turned.shape == (30, 70)
    np.testing.assert_array_equal(turned.column_kurtosis, plain.column_kurtosis)
    assert turned.kurtosis == plain.kurtosis
    assert turned.gini == plain.gini


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_are_measured_as_the_float32_values_they_stand_for(dtype):
    w = torch.from_numpy(heavy(np.random.default_rng(5), (64, 90))).to(dtype)
    half, full = statistics_of(w), statistics_of(w.float())
    assert half.kurtosis == full.kurtosis
    assert half.gini == pytest.approx(full.gini, rel=1e-12)
    assert half.concentration == pytest.approx(full.concentration, rel=1e-12)
    assert half.beyond == full.beyond


def test_pieces_and_ranges_of_magnitude_change_nothing(monkeypatch):
    w = heavy(np.random.default_rng(6), (257, 65))
    w[:100] = 0.25  # one crowded magnitude, more than a range may hold
    whole = statistics_of(w)
    monkeypatch.setattr(matrix, "PIECE_ELEMENTS", 1000)
    monkeypatch.setattr("evenbits.observe.weights.measurement.HELD_ELEMENTS", 0)
    monkeypatch.setattr(magnitudes, "SORTED_ELEMENTS", 900)
    pieces = statistics_of(w)
    assert pieces.gini == pytest.approx(whole.gini, rel=1e-12)
    assert pieces.concentration == pytest.approx(whole.concentration, rel=1e-12)
    assert pieces.kurtosis == pytest.approx(whole.kurtosis, rel=1e-12)
    assert pieces.beyond == whole.beyond
    np.testing.assert_allclose(pieces.column_kurtosis, whole.column_kurtosis, rtol=1e-11)
    # a row of one magnitude has a Gini of 0, which rounding leaves at about 1e-17: nothing to compare relatively
    np.testing.assert_allclose(pieces.row_gini, whole.row_gini, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_names_the_tensor_and_the_row(bad):
    w = np.ones((9, 9), dtype=np.float32)
    w[5, 2] = bad
    with pytest.raises(NonFiniteError, match=r"w has NaN or infinite weights, the first in row 5"):
        statistics_of(w)


@pytest.mark.parametrize(
    ("weight", "message"),
    [(torch.zeros(3, 3, dtype=torch.int8), "int8"), (torch.zeros(3), "shape"), (torch.zeros(0, 3), "non-empty")],
)
def test_what_is_no_floating_point_matrix_is_refused(weight, message):
    with pytest.raises(ModelError, match=message):
        ArrayMatrix("w", weight)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
def test_shape_statistics_do_not_depend_on_the_scale(seed, scale):
    w = heavy(np.random.default_rng(seed), (12, 17))
    one, scaled = statistics_of(w), statistics_of((w * np.float32(scale)).astype(np.float32))
    assert scaled.kurtosis == pytest.approx(one.kurtosis, rel=1e-4, abs=1e-5)
    assert scaled.gini == pytest.approx(one.gini, rel=1e-5)
    assert scaled.hoyer == pytest.approx(one.hoyer, rel=1e-4, abs=1e-6)
    assert 0 <= scaled.gini < 1
    assert 0 <= scaled.hoyer <= 1
    assert 0 < scaled.concentration <= 1
