"""Partial pooling: components that were planted, predictors of known form, and what the largest of many gains."""

import numpy as np
import pytest
from evenbits.statistics import Components, pooled_means, variance_components


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(draw, *, families=40, each=5, segments=12):
    """Family variance 4, language 1, segment .25, residual 9, mean 10."""
    names = [f"f{place // each}" for place in range(families * each)]
    effect = np.repeat(2 * draw.standard_normal(families), each) + draw.standard_normal(families * each)
    table = 10 + effect[:, None] + 0.5 * draw.standard_normal(segments)
    return table + 3 * draw.standard_normal((families * each, segments)), names, 10 + effect


def test_components_of_a_balanced_layout_are_those_of_the_mean_squares():
    # two families of two languages, two segments, additive but for one cell
    table = np.array([[1.0, 3.0], [2.0, 4.0], [7.0, 9.0], [8.0, 14.0]])
    found = variance_components(table, ["a", "a", "b", "b"])
    # means 2, 3, 8, 11; segments 4.5 and 7.5; residuals: +-.5 of row 4 against the others
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + 6
    residual = (left**2).sum() / 3
    assert found.mean == 6.0
    assert found.residual == pytest.approx(residual)
    assert found.segment == pytest.approx(4.5 - residual / 4)  # variance of 4.5 and 7.5
    inside = (0.5**2 * 2 + 1.5**2 * 2) / 2  # two families, two degrees of freedom
    between = 2 * ((2.5 - 6) ** 2 + (9.5 - 6) ** 2)  # families of two: one degree
    assert found.language == pytest.approx(inside - residual / 2)
    assert found.family == pytest.approx((between - inside) / 2)


def test_components_are_found_again_on_average():
    draw = rng(1)
    found = [variance_components(*drawn(draw)[:2]) for _ in range(60)]
    means = {name: np.mean([getattr(one, name) for one in found]) for name in ("family", "language", "residual")}
    # 40 families: the SD of a variance is about sqrt(2 / 39) = 23 % of it, of the mean of 60 about 3 %
    assert means["family"] == pytest.approx(4.0, rel=0.12)
    assert means["language"] == pytest.approx(1.0, rel=0.12)
    assert means["residual"] == pytest.approx(9.0, rel=0.03)


def test_pooled_means_are_closer_to_the_truth_than_raw_ones():
    draw, worse, better = rng(2), 0.0, 0.0
    for _ in range(30):
        table, names, truth = drawn(draw, families=8, each=4, segments=6)
        tags = [f"l{place}" for place in range(len(truth))]
        found = pooled_means(dict(zip(tags, table, strict=True)), dict(zip(tags, names, strict=True)))
        value = np.array([found[tag].value for tag in tags])
        worse += float(((table.mean(axis=1) - truth) ** 2).mean())
        better += float(((value - truth) ** 2).mean())
    assert better < 0.8 * worse


def test_a_pooled_mean_has_no_interval_and_says_why():
    # one from the mean squared error covered .40 to .60 for the worst language, where spread is in proportion to size
    table, names, _ = drawn(rng(5), families=3, each=2)
    tags = [f"l{place}" for place in range(6)]
    for one in pooled_means(dict(zip(tags, table, strict=True)), dict(zip(tags, names, strict=True))).values():
        assert (one.low, one.high) == (None, None)
        assert one.value is not None
        assert one.reason.startswith("no interval: one around a mean drawn towards others holds on average")


def test_the_largest_of_many_equal_languages_is_drawn_back_to_the_others():
    table = 5 + rng(3).standard_normal((30, 6))
    tags = [f"l{place}" for place in range(30)]
    found = pooled_means(dict(zip(tags, table, strict=True)), dict.fromkeys(tags, "one"))
    worst = int(table.mean(axis=1).argmax())
    raw, pooled = float(table.mean(axis=1)[worst]), found[tags[worst]].value
    assert 5 < pooled < raw
    assert pooled - 5 < 0.6 * (raw - 5)


def test_many_segments_leave_the_raw_mean_as_it_is():
    table, names, _ = drawn(rng(4), families=4, each=3, segments=4000)
    tags = [f"l{place}" for place in range(12)]
    found = pooled_means(dict(zip(tags, table, strict=True)), dict(zip(tags, names, strict=True)))
    raw = table.mean(axis=1)
    assert [found[tag].value for tag in tags] == pytest.approx(raw.tolist(), abs=0.02)


@pytest.mark.parametrize("table", [{"a": [1.0, 2.0], "b": [1.0, 2.0]}, {"a": [1.0], "b": [2.0], "c": [3.0]}])
def test_too_little_to_pool_says_so(table):
    found = pooled_means(table, dict.fromkeys(table, "one"))
    assert all(one.value is None and "pooling needs 3" in one.reason for one in found.values())


def test_components_say_what_they_need():
    with pytest.raises(ValueError, match="need 3 x 2"):
        variance_components([[1.0, 2.0], [1.0, 2.0]], ["a", "b"])
    assert Components(mean=1.0, family=0.0, language=0.0, segment=0.0, residual=1.0).to_json()["residual"] == 1.0
