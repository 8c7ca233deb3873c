"""What fixtures learned, merged over workers."""

import pytest
from evenbits.errors import ReportError
from evenbits.report.contributions import Contributions
from hypothesis import given
from hypothesis import strategies as st


def row(language="sw", **values):
    return {"model": "m", "spec": "s", "language": language, **values}


def test_the_same_row_from_two_workers_is_one_row():
    merged = Contributions()
    merged.add("damage", [row(tokens=3)])
    merged.add("damage", row(tokens=3))
    assert merged.entries("damage") == [row(tokens=3)]


def test_the_same_row_with_other_numbers_is_an_error_that_names_row_and_number():
    merged = Contributions()
    merged.add("damage", row(tokens=3, segments=1))
    with pytest.raises(ReportError, match=r"damage of model m, spec s, language sw with different tokens;"):
        merged.add("damage", row(tokens=4, segments=1))


def test_a_row_without_its_key_is_an_error():
    with pytest.raises(ReportError, match="damage lacks language"):
        Contributions().add("damage", {"model": "m", "spec": "s"})


def test_an_unknown_section_is_an_error():
    with pytest.raises(ReportError, match="'damages' is no section"):
        Contributions().add("damages", [])


def test_two_corpora_in_one_run_contradict_each_other():
    merged = Contributions()
    merged.add("corpus", {"digest": "a"})
    with pytest.raises(ReportError, match="corpus of corpus with different digest"):
        merged.add("corpus", {"digest": "b"})


def test_processes_may_differ_in_their_environment():
    merged = Contributions()
    merged.add("environment", {"device": "cpu", "threads": 2})
    merged.add("environment", {"device": "cuda:0", "threads": 2})
    assert merged.mapping("environment") == {"device": ["cpu", "cuda:0"], "threads": 2}


@given(st.permutations([row("sw"), row("de"), row("ka"), row("de")]))
def test_entries_do_not_depend_on_the_order_in_which_workers_report(rows):
    merged = Contributions()
    for one in rows:
        merged.add("damage", one)
    assert merged.entries("damage") == [row("de"), row("ka"), row("sw")]
