"""Power by simulation: the share of draws that are decided, drawn like a pilot."""

import pytest
from drawn_damage import rng
from evenbits.statistics import Components, draw_damage, mean_interval, power


def test_power_is_the_share_of_draws_that_are_decided():
    pilot = Components(mean=10.0, family=0.0, language=4.0, segment=4.0, residual=25.0)

    def finds(draw):
        table = draw_damage(pilot, [f"f{i % 6}" for i in range(20)], 20, rng=draw)
        tags = [f"l{i}" for i in range(20)]
        return mean_interval(table.mean(axis=1), rng=draw, resamples=200).low > 5.0 and len(tags) == 20

    found = power(finds, rng=rng(21), draws=50)
    assert found.n == 50
    assert found.value > 0.9


def test_drawn_damage_has_the_mean_and_the_variances_of_its_pilot():
    pilot = Components(mean=10.0, family=4.0, language=9.0, segment=1.0, residual=25.0)
    families = [f"f{i // 5}" for i in range(200)]
    table = draw_damage(pilot, families, 400, rng=rng(22))
    assert table.mean() == pytest.approx(10.0, rel=0.1)
    assert table.mean(axis=1).var() == pytest.approx(13.0, rel=0.35)
    within = (table - table.mean(axis=1, keepdims=True)).var()
    # a language of twice the size spreads twice as much: variance times (1 + 13 / 100)
    assert within == pytest.approx(26.0 * 1.13, rel=0.25)
