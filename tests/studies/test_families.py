"""What is left of a difference between tiers without each family."""

from evenbits.studies.families import without_a_family

FAMILIES = {"a": "f", "b": "f", "c": "g", "d": "f", "e": "g", "h": "g"}
TIERS = {"low": ["a", "b", "c"], "high": ["d", "e", "h"]}


def said(values, families=FAMILIES, **options):
    return without_a_family(values, **TIERS, families=families, **options)


def test_a_family_that_carries_the_difference_is_named():
    # low 10, 10, 1 against 1, 1, 1: without f one language of 1 against two of 1
    values = {"a": 10.0, "b": 10.0, "c": 1.0, "d": 1.0, "e": 1.0, "h": 1.0}
    assert said(values, unit=" bits") == (
        "The family f carries it: the difference is +0.00 bits without, +6.00 bits with it."
    )


def test_what_every_family_shows_is_given_as_a_range():
    values = {"a": 4.0, "b": 4.0, "c": 3.0, "d": 1.0, "e": 1.0, "h": 1.0}
    # without f: 3 - 1; without g: 4 - 1; whole: 11/3 - 1
    assert said(values) == "Leaving one family out gives +2.00 to +3.00 of +2.67."


def test_a_tier_of_one_family_cannot_be_told_from_it():
    families = FAMILIES | {"c": "f"}
    assert said(dict.fromkeys("abcdeh", 1.0), families) == (
        "Without f a tier is empty: family and resource level cannot be told apart."
    )


def test_where_there_is_no_difference_there_is_nothing_to_carry():
    assert said(dict.fromkeys("abcdeh", 1.0)) == ""


def test_differences_within_languages_are_left_out_by_family_alike():
    values = {"a": 10.0, "b": 10.0, "c": 1.0}
    # mean of a, b, c: 7; without f: 1; without g: 10
    assert without_a_family(values, low=list(values), families=FAMILIES) == (
        "Leaving one family out gives +1.00 to +10.00 of +7.00."
    )
    carried = without_a_family(values | {"c": -1.0}, low=list(values), families=FAMILIES)
    assert carried == "The family f carries it: the difference is -1.00 without, +6.33 with it."
    assert without_a_family({"a": 1.0, "b": 2.0}, low=["a", "b"], families=FAMILIES) == ""
