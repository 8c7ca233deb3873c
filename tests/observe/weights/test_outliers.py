"""Positions of the largest weights and of their random control."""

from __future__ import annotations

import numpy as np
import pytest
from evenbits.errors import NonFiniteError
from evenbits.observe.weights.outliers import random_positions, top_positions
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_largest_magnitudes_are_found_whatever_their_sign():
    w = np.array([[0.1, -9.0, 0.3], [4.0, 0.0, -0.2]], dtype=np.float32)
    # Flat order: .1 -9 .3 4 0 -.2; a third of six is two.
    assert top_positions(w, 1 / 3).tolist() == [1, 3]


def test_equal_magnitudes_go_to_the_lowest_index():
    assert top_positions(np.array([2.0, -2.0, 2.0, 1.0]), 0.5).tolist() == [0, 1]


def test_at_least_one_weight_is_taken():
    # .01 % of 100 is .01.
    assert top_positions(np.arange(100.0), 1e-4).tolist() == [99]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 300), share=st.floats(0.001, 0.3))
def test_random_places_are_distinct_and_never_the_largest(seed, size, share):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(size)
    top = top_positions(w, share)
    drawn = random_positions(size, top, rng=rng)
    assert top.size == max(1, round(share * size)) == drawn.size
    assert np.unique(drawn).size == drawn.size
    assert not np.intersect1d(top, drawn).size
    assert drawn.min() >= 0
    assert drawn.max() < size
    assert np.abs(w[top]).min() >= np.delete(np.abs(w), top).max()


def test_random_places_are_uniform_over_the_rest():
    rng = np.random.default_rng(0)
    taken = np.array([0, 3])
    hits = np.bincount(np.concatenate([random_positions(6, taken, rng=rng) for _ in range(3000)]), minlength=6)
    # Two of the four free places each time: expected 1500, standard deviation sqrt(3000 / 4) = 27.
    assert hits[taken].sum() == 0
    assert (np.abs(hits[[1, 2, 4, 5]] - 1500) < 5 * 27.4).all()


def test_the_same_seed_gives_the_same_places():
    top = top_positions(np.random.default_rng(0).standard_normal((50, 50)), 0.01)
    first, again = (random_positions(2500, top, rng=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_nan_and_impossible_shares_are_refused():
    with pytest.raises(NonFiniteError, match="layer7 has NaN"):
        top_positions(np.array([1.0, np.nan]), 0.5, name="layer7")
    with pytest.raises(ValueError, match="share must be in"):
        top_positions(np.ones(3), 0.0)
    with pytest.raises(ValueError, match="not 3 others"):
        random_positions(5, np.array([0, 1, 2]), rng=np.random.default_rng(0))
