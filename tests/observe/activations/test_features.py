"""Features of distributed representations: values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evenbits.observe.activations.features import (
    aligned_similarity,
    channel_entropy,
    half_prediction,
    head_utilisation_entropy,
    layer_usage_entropy,
    normalised_entropy,
    participation_of_tokens,
    participation_ratio,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def sums_of(h):
    """What `participation_of_tokens` wants of the states h [N, D]."""
    norms = (h**2).sum(axis=1)
    return h.T @ h, h.sum(axis=0), norms @ h, float((norms**2).sum())


def of_tokens(h, **options):
    second, first, skewed, fourth = sums_of(h)
    return participation_of_tokens(second, first, skewed, fourth, tokens=len(h), **options)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_participation_ratio_of_k_equal_directions_is_k(k):
    assert participation_ratio(np.diag([2.0] * k + [0.0] * (8 - k))) == pytest.approx(k)


def test_the_participation_ratio_of_unequal_directions_is_derived_from_their_variances():
    # Trace 4 squared over the sum of squares 10.
    assert participation_ratio(np.diag([3.0, 1.0])) == pytest.approx(1.6)


def test_the_participation_ratio_does_not_depend_on_the_basis():
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))
    c = np.diag([5.0, 4, 3, 2, 1])
    assert participation_ratio(q @ c @ q.T) == pytest.approx(225 / 55)


def test_a_zero_matrix_has_no_participation_ratio():
    with pytest.raises(ValueError, match="zero matrix"):
        participation_ratio(np.zeros((3, 3)))


def test_few_tokens_do_not_lower_the_participation_of_tokens():
    """Isotropic states in 20 dimensions: the plain ratio of 15 tokens is below 15, the corrected one near 20."""
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(300):
        h = rng.standard_normal((15, 20)) + 3.0
        plain.append(participation_ratio(np.cov(h.T)))
        second, first, skewed, fourth = sums_of(h)
        # Averaged as numerator and denominator would be: 1 / ratio is what is nearly unbiased.
        corrected.append(1 / participation_of_tokens(second, first, skewed, fourth, tokens=15))
    assert np.mean(plain) < 10
    assert 1 / np.mean(corrected) == pytest.approx(20, rel=0.25)


def test_many_tokens_give_the_ratio_of_the_covariance_whatever_the_mean():
    rng = np.random.default_rng(1)
    h = rng.standard_normal((20000, 6)) * np.array([3, 2, 1, 1, 0.5, 0.1]) + 7.0
    assert of_tokens(h) == pytest.approx(participation_ratio(np.cov(h.T)), rel=0.01)


def test_the_bias_of_a_random_projection_is_taken_out():
    rng = np.random.default_rng(2)
    # Exactly 100 equal directions among 400; projected to 80 the plain ratio is 1 / (1/100 + 1/80) = 44.
    h = np.zeros((6000, 400))
    h[:, :100] = rng.standard_normal((6000, 100))
    x = h @ (rng.standard_normal((400, 80)) / np.sqrt(80))
    assert participation_ratio(np.cov(x.T)) == pytest.approx(44, rel=0.05)
    assert min(80, of_tokens(x, projected=80)) == 80  # a ratio above the projection's width is cut to it
    h[:, 30:] = 0  # 30 directions: 1 / (1/30 + 1/80) = 21.8 before correction
    x = h @ (rng.standard_normal((400, 80)) / np.sqrt(80))
    assert of_tokens(x, projected=80) == pytest.approx(30, rel=0.1)


def test_equal_states_take_part_in_one_direction():
    assert of_tokens(np.zeros((5, 3))) == 1
    assert of_tokens(np.outer([1.0, -1, 2, -2], [1.0, 1, 1])) == pytest.approx(1)


def test_entropy_is_one_for_equal_shares_and_zero_for_a_single_one():
    assert normalised_entropy(np.ones(7)) == pytest.approx(1)
    assert normalised_entropy(np.array([0.0, 5, 0])) == 0
    # Shares 1/2, 1/4, 1/4 of three: (ln 2 / 2 + ln 4 / 2) / ln 3 = 1.5 ln 2 / ln 3
    assert normalised_entropy(np.array([2.0, 1, 1])) == pytest.approx(1.5 * np.log(2) / np.log(3))


@pytest.mark.parametrize("bad", [[0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], []])
def test_entropy_of_what_are_no_shares_is_refused(bad):
    with pytest.raises(ValueError, match="non-negative finite shares"):
        normalised_entropy(np.array(bad))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(1e-3, 1e3))
def test_entropy_lies_between_zero_and_one_and_ignores_scale(shares, scale):
    value = normalised_entropy(np.array(shares))
    assert -1e-12 <= value <= 1 + 1e-12
    assert normalised_entropy(np.array(shares) * scale) == pytest.approx(value, abs=1e-9)


def test_the_three_entropies_are_over_channels_layers_and_heads():
    assert channel_entropy(np.array([1.0, 1, 0, 0])) == pytest.approx(0.5)  # ln 2 / ln 4
    # Attention and MLP together: 1, 1, 0, 0.
    assert layer_usage_entropy(np.array([1.0, 1, 0, 0])) == pytest.approx(0.5)
    # Energies 1, 1 in the first layer (entropy 1), 1, 0 in the second (0); norms are squared: 3, 3 stays 1.
    assert head_utilisation_entropy(np.array([[3.0, 3.0], [1.0, 0.0]])) == pytest.approx(0.5)


def moments(h):
    return h.T @ h / len(h), h.mean(axis=0)


def test_a_repeated_half_is_predicted_and_an_independent_one_is_not():
    rng = np.random.default_rng(3)
    halves = (np.arange(4), np.arange(4, 8))
    z = rng.standard_normal((20000, 8))
    train, test = z[:10000], z[10000:]
    assert half_prediction(moments(train), moments(test), halves) < 0.01
    copied = np.concatenate([z[:, :4], z[:, :4] * 5 + 2], axis=1)
    # Correlation 1 with ridge .1: the map is 1 / 1.1, the residual (.1 / 1.1)^2.
    expected = 1 - (0.1 / 1.1) ** 2
    found = half_prediction(moments(copied[:10000]), moments(copied[10000:]), halves)
    assert found == pytest.approx(expected, abs=0.005)


def test_half_prediction_equals_predicting_token_by_token():
    rng = np.random.default_rng(4)
    mixed = rng.standard_normal((600, 10)) @ rng.standard_normal((10, 10)) + rng.standard_normal(10)
    train, test = mixed[:300], mixed[300:]
    halves = (np.array([0, 3, 5, 7, 9]), np.array([1, 2, 4, 6, 8]))
    mean, std = train.mean(axis=0), train.std(axis=0)
    a, b = (train - mean) / std, (test - mean) / std
    inner = np.cov(a[:, halves[0]].T, bias=True) + 0.1 * np.eye(5)
    w = np.linalg.solve(inner, a[:, halves[0]].T @ a[:, halves[1]] / 300)
    residual = ((b[:, halves[1]] - b[:, halves[0]] @ w) ** 2).mean(axis=0)
    expected = np.mean(1 - residual / (b[:, halves[1]] ** 2).mean(axis=0))
    assert half_prediction(moments(train), moments(test), halves) == pytest.approx(max(0, expected), rel=1e-6)


def test_silent_channels_take_no_part_in_half_prediction():
    h = np.zeros((10, 4))
    assert half_prediction(moments(h), moments(h), (np.arange(2), np.arange(2, 4))) == 0


def test_aligned_segments_are_closer_than_others_where_content_is_shared():
    content = np.eye(4)
    # Centred unit vectors of a simplex in 4 points: cosine 1 with itself, -1/3 with others; a language offset is
    # taken out by centring.
    assert aligned_similarity(content, content + 9.0) == pytest.approx(1 + 1 / 3)
    assert aligned_similarity(content, content[::-1]) == pytest.approx(-1 / 3 - (8 * -1 / 3 + 4) / 12)


def test_similarity_needs_two_aligned_segments():
    with pytest.raises(ValueError, match="at least two"):
        aligned_similarity(np.ones((1, 3)), np.ones((1, 3)))
