"""Choosing what to protect: the optimum, the budget, and nothing beyond it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from evenbits.studies.h036.choice import OBJECTIVES, additive_savings, choose, left_over
from hypothesis import example, given, settings
from hypothesis import strategies as st

LOW, HIGH = (0, 1), (2, 3)


def value_of(objective, full, savings, units):
    left = left_over(full, savings, units)
    if objective == "worst":
        return left.max()
    if objective == "mean":
        return left.mean()
    return abs(left[list(LOW)].mean() - left[list(HIGH)].mean())


def best_by_trying(objective, full, savings, cost, budget):
    every = itertools.chain.from_iterable(itertools.combinations(range(len(cost)), n) for n in range(len(cost) + 1))
    allowed = [units for units in every if cost[list(units)].sum() <= budget * (1 + 1e-9)]
    return min(value_of(objective, full, savings, units) for units in allowed)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", [*range(5), 68])
def test_the_choice_is_as_good_as_the_best_of_all_subsets(objective, seed):
    rng = np.random.default_rng(seed)
    excess, full = rng.gamma(2, 1, (8, 4)), rng.gamma(9, 2, 4)
    cost = rng.uniform(0.1, 1, 8)
    savings = additive_savings(excess, full)
    found = choose(objective, savings=savings, full=full, cost=cost, budget=1.5, low=LOW, high=HIGH)
    best = best_by_trying(objective, full, savings, cost, 1.5)
    # choices within 1e-5 of the largest damage count as equally good; the solver itself keeps 1e-6
    assert value_of(objective, full, savings, found.units) == pytest.approx(best, abs=5e-5 * full.max())
    assert found.predicted == pytest.approx(left_over(full, savings, found.units))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    units=st.integers(1, 9),
    budget=st.floats(1e-3, 20),
    objective=st.sampled_from(OBJECTIVES),
)
@example(seed=0, units=4, budget=1e-3, objective="worst")
def test_the_budget_is_never_exceeded(seed, units, budget, objective):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0.05, 3, units)
    full = rng.gamma(2, 5, 4)
    savings = additive_savings(rng.normal(1, 1, (units, 4)), full)
    found = choose(objective, savings=savings, full=full, cost=cost, budget=budget, low=LOW, high=HIGH)
    assert found.cost == pytest.approx(cost[list(found.units)].sum())
    assert found.cost <= budget * (1 + 1e-9)
    assert len(set(found.units)) == len(found.units)


def test_a_budget_that_equals_a_choice_buys_it():
    cost = np.array([0.1, 0.2, 0.7])  # .1 + .2 is .30000000000000004
    savings = np.array([[1.0, 1.0], [1.0, 1.0], [0.1, 0.1]])
    found = choose("mean", savings=savings, full=np.array([5.0, 5.0]), cost=cost, budget=0.3)
    assert found.units == (0, 1)


def test_a_budget_below_the_cheapest_unit_buys_nothing():
    found = choose("worst", savings=np.ones((2, 2)), full=np.ones(2), cost=np.array([1.0, 2.0]), budget=0.5)
    assert found.units == ()
    assert found.predicted == pytest.approx([1.0, 1.0])


def test_objectives_protect_different_layers_where_languages_differ():
    # Layer 0 helps the two low-resource languages by 4 each, layer 1 the two high-resource ones by 5 each, layer 2
    # everybody by 3. One layer may be protected.
    savings = np.array([[4.0, 4, 0, 0], [0, 0, 5, 5], [3, 3, 3, 3]])
    full = np.array([20.0, 18, 10, 10])
    options = {"savings": savings, "full": full, "cost": np.ones(3), "budget": 1.0, "low": LOW, "high": HIGH}
    assert choose("worst", **options).units == (0,)  # 20 - 4 = 16 beats 17 and 20
    assert choose("mean", **options).units == (2,)  # 12 saved in all, against 8 and 10
    assert choose("gap", **options).units == (0,)  # 19 - 10 = 9 falls to 5; layer 1 raises it to 14


def test_savings_add_up_to_the_full_damage_of_each_language():
    excess = np.array([[1.0, 2.0], [3.0, 2.0]])
    savings = additive_savings(excess, np.array([8.0, 2.0]))
    assert savings == pytest.approx(np.array([[2.0, 1.0], [6.0, 1.0]]))  # factors 8 / 4 and 2 / 4
    assert left_over(np.array([8.0, 2.0]), savings, (0, 1)) == pytest.approx([0.0, 0.0])


def test_damage_that_adds_up_to_nothing_is_not_scaled():
    savings = additive_savings(np.array([[1.0], [-1.0]]), np.array([3.0]))
    assert savings == pytest.approx(np.array([[1.0], [-1.0]]))


def test_a_gap_without_two_groups_and_costs_of_nothing_are_refused():
    options = {"savings": np.ones((1, 2)), "full": np.ones(2), "budget": 1.0}
    with pytest.raises(ValueError, match="both groups"):
        choose("gap", cost=np.ones(1), **options)
    with pytest.raises(ValueError, match="must cost something"):
        choose("mean", cost=np.zeros(1), **options)
