"""Super-weight candidates from activation spikes."""

from __future__ import annotations

import numpy as np
import pytest
from evenbits.errors import NonFiniteError
from evenbits.observe.weights.superweights import SpikeProfile, super_weight_candidates


def profile(layer, inputs, outputs):
    return SpikeProfile(
        name=f"layers.{layer}.down_proj", layer=layer, input_peak=np.array(inputs), output_peak=np.array(outputs)
    )


def test_the_candidate_sits_where_both_spikes_meet():
    w = np.zeros((3, 4))
    w[2, 1] = -2.0
    found = super_weight_candidates([profile(0, [1.0, 50.0, 1.0, 1.0], [1.0, 1.0, 100.0])], lambda _, r, c: w[r, c])
    (candidate,) = found
    assert (candidate.row, candidate.column, candidate.weight) == (2, 1, -2.0)
    assert (candidate.input_ratio, candidate.output_ratio) == (50, 100)
    assert candidate.score == 100  # |-2| * 50
    assert candidate.explained == 1  # 2 * 50 of 100


def test_candidates_are_ranked_by_the_activation_they_carry():
    profiles = [profile(0, [1.0, 3.0], [4.0, 1.0]), profile(1, [1.0, 30.0], [4.0, 1.0])]
    found = super_weight_candidates(profiles, lambda *_: 1.0)
    assert [candidate.layer for candidate in found] == [1, 0]
    assert len(super_weight_candidates(profiles, lambda *_: 1.0, limit=1)) == 1


def test_ratios_over_a_silent_layer_are_undefined():
    (candidate,) = super_weight_candidates([profile(0, [0.0, 0.0, 1.0], [0.0, 0.0, 0.0])], lambda *_: 1.0)
    assert candidate.input_ratio is None
    assert candidate.explained == 0


def test_spikes_and_weights_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match="input peaks must be finite"):
        profile(0, [np.nan, 1.0], [1.0, 1.0])
    with pytest.raises(NonFiniteError, match=r"weight \[0, 1\]"):
        super_weight_candidates([profile(0, [0.0, 1.0], [1.0, 0.0])], lambda *_: np.inf)
