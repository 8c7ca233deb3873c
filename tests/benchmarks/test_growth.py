"""The fit behind the cost curves: what is fixed must not pass for slow growth."""

import numpy as np
import pytest
from growth import growth

SIZES = np.array([12, 24, 48, 96])
NOISE = np.array([1.02, 0.98, 1.01, 0.99])
LIMIT = 1.4  # `GROWTH` of the benchmark


def slope_of_logarithms(seconds):
    return np.polyfit(np.log(SIZES), np.log(seconds), 1)[0]


@pytest.mark.parametrize(
    ("seconds", "exponent"),
    [
        (3 + 0.001 * SIZES**2.0, 2.0),  # 3.1 s to 12.2 s
        (3 + 0.15 * SIZES, 1.0),  # 4.8 s to 17.4 s
        (0.15 * SIZES, 1.0),
        (0.001 * SIZES**2.0, 2.0),
    ],
)
def test_the_exponent_is_that_of_what_grows(seconds, exponent):
    assert growth(SIZES, seconds).exponent == pytest.approx(exponent, abs=0.02)
    found = growth(SIZES, seconds * NOISE)
    assert found.exponent == pytest.approx(exponent, abs=0.3)
    assert (found.exponent <= LIMIT) == (exponent == 1)


def test_quadratic_growth_that_a_line_through_logarithms_hides_is_seen():
    seconds = (8 + 0.001 * SIZES**2.0) * NOISE  # 8.1 s to 17.2 s
    assert slope_of_logarithms(seconds) < 0.5
    found = growth(SIZES, seconds)
    assert found.exponent > LIMIT
    assert found.fixed == pytest.approx(8, abs=0.6)
    assert found.share == pytest.approx(9.2 / 17.2, abs=0.05)


def test_three_sizes_are_too_few():
    with pytest.raises(ValueError, match="take four or more"):
        growth([1, 2, 4], [1, 2, 4])
