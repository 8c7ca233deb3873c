"""The Pareto front."""

from evenbits.statistics import pareto
from hypothesis import given
from hypothesis import strategies as st

POINTS = st.lists(st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12)


def test_what_another_point_betters_in_everything_is_off_the_front():
    # 1 equals 0 in the first and betters it in the second; 2 trades one for the other
    assert pareto([(2.0, 10.0), (2.0, 9.0), (1.0, 12.0)]) == {1, 2}


def test_equal_points_share_the_front_and_undefined_ones_stay_off():
    assert pareto([(1.0, 1.0), None, (1.0, 1.0)]) == {0, 2}
    assert pareto([None]) == frozenset()


@given(points=POINTS)
def test_every_point_off_the_front_is_bettered_by_one_on_it(points):
    front = pareto(points)
    for place, point in enumerate(points):
        if point is None or place in front:
            continue
        assert any(points[f] != point and all(a <= b for a, b in zip(points[f], point, strict=True)) for f in front)
