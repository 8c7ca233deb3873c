"""No harm: shown, refuted or open, each by its own test."""

import numpy as np
import pytest
from evenbits.statistics import no_harm


def rng(seed=0):
    return np.random.default_rng(seed)


def changes(draw, means, segments, noise=0.1):
    return {f"l{i}": mean + noise * draw.standard_normal(segments) for i, mean in enumerate(means)}


def test_better_everywhere_is_no_harm():
    found = no_harm(changes(rng(), [-1.0] * 11, 20), margin=0.25, rng=rng())
    assert found.shown


@pytest.mark.parametrize("segments", [5, 6, 20])
def test_one_language_made_much_worse_is_named(segments):
    # least p at 5 segments is 1 / 32 whatever the number of languages
    found = no_harm(changes(rng(1), [-1.0] * 10 + [3.0], segments), margin=0.25, rng=rng())
    assert found.worse == ("l10",)
    assert found.least_p < 0.05
    assert not found.shown


def test_too_few_segments_leave_it_open_rather_than_shown():
    found = no_harm(changes(rng(2), [0.0] * 5, 4, noise=1.0), margin=0.25, rng=rng())
    assert found.least_p > 0.05
    assert not found.worse
    assert found.open


def test_worse_by_less_than_the_margin_is_no_harm():
    found = no_harm({"a": 0.1 + 0.01 * rng(3).standard_normal(20)}, margin=0.25, rng=rng())
    assert found.shown


def test_a_margin_is_above_nothing():
    with pytest.raises(ValueError, match="margin"):
        no_harm({"a": [1.0, 2.0]}, margin=0.0, rng=rng())
