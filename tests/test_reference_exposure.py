"""Who is shown how much: assignments at random, budgets in bytes."""

from collections import Counter

import numpy as np
import pytest

from fixtures.reference import exposure
from fixtures.reference.exposure import ASSIGNMENTS, SHARES, assignment, budget, deal, portion
from fixtures.reference.texts import LANGUAGES, Paragraph


def pool(*texts, held_out=()):
    return [Paragraph(key=str(n), source="office", text=t, held_out=n in held_out) for n, t in enumerate(texts)]


def test_there_are_three_random_assignments_and_they_differ():
    assert len(ASSIGNMENTS) >= 3
    dealt = [tuple(sorted(assignment(name).items())) for name in ASSIGNMENTS]
    assert len(set(dealt)) == len(dealt)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_an_assignment_is_repeatable_from_its_seed(name):
    assert assignment(name) == deal(rng=np.random.default_rng(ASSIGNMENTS[name]))


@pytest.mark.parametrize("seed", range(20))
def test_tiers_are_of_one_size_and_scripts_are_spread_over_them(seed):
    tiers = deal(rng=np.random.default_rng(seed))
    assert set(Counter(tiers.values()).values()) == {len(LANGUAGES) // 3}  # 33 languages, 11 a tier
    cyrillic = Counter(tiers[item.tag] for item in LANGUAGES if item.script == "Cyrl")
    assert max(cyrillic.values()) - min(cyrillic[tier] for tier in SHARES) <= 1


def test_every_language_reaches_every_tier_under_some_seed():
    deals = [deal(rng=np.random.default_rng(seed)) for seed in range(60)]
    # A tier is missed by a language in 60 deals with probability (2/3)^60 < 1e-10.
    assert all({tiers[item.tag] for tiers in deals} == set(SHARES) for item in LANGUAGES)


def test_turning_an_assignment_round_swaps_high_and_low_and_keeps_the_middle():
    plain, turned = assignment("a1"), assignment("a1r")
    swapped = {"high": "low", "low": "high", "mid": "mid"}
    assert turned == {tag: swapped[tier] for tag, tier in plain.items()}


def test_equal_exposure_costs_as_much_as_the_tiers_together():
    # A third of the languages in each tier: the mean of the budgets is what everyone gets.
    assert budget("equal") == pytest.approx(sum(budget(tier) for tier in SHARES) / 3, abs=1)


def test_a_portion_ends_with_the_paragraph_that_crosses_the_budget(monkeypatch):
    monkeypatch.setattr(exposure, "UNIT_BYTES", 10)
    part = portion(pool("abcd", "efgh", "ijkl", "mnop"), "high")
    assert part.texts == ("abcd", "efgh", "ijkl")
    assert (part.bytes_seen, part.unique_bytes) == (12, 12)


def test_a_pool_below_its_budget_is_begun_again_and_both_counts_are_told(monkeypatch):
    monkeypatch.setattr(exposure, "UNIT_BYTES", 10)
    part = portion(pool("abcd", "efgh"), "high")
    assert part.texts == ("abcd", "efgh", "abcd")
    assert (part.bytes_seen, part.unique_bytes) == (12, 8)


def test_bytes_are_those_of_utf_8_and_not_characters(monkeypatch):
    monkeypatch.setattr(exposure, "UNIT_BYTES", 6)
    assert portion(pool("слово", "и"), "high").bytes_seen == 10


def test_held_out_paragraphs_are_never_shown(monkeypatch):
    monkeypatch.setattr(exposure, "UNIT_BYTES", 10)
    assert "efgh" not in portion(pool("abcd", "efgh", "ijkl", "mnop", held_out={1}), "high").texts


def test_a_lower_tier_is_shown_the_beginning_of_what_a_higher_one_is(monkeypatch):
    monkeypatch.setattr(exposure, "UNIT_BYTES", 100)
    paragraphs = pool(*(f"sentence {n}" for n in range(40)))
    high, mid = portion(paragraphs, "high").texts, portion(paragraphs, "mid").texts
    assert high[: len(mid)] == mid


def test_a_language_without_text_is_refused():
    with pytest.raises(ValueError, match="no training text left"):
        portion(pool("abcd", held_out={0}), "high")
