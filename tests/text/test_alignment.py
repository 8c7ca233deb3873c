"""From texts by language and id to aligned segments."""

import pytest
from evenbits.errors import CorpusError
from evenbits.text.alignment import REPEATED, align
from hypothesis import example, given
from hypothesis import strategies as st

LANGUAGES = ("de", "en", "fr")
KEYS = st.sampled_from("abcdefgh")
TEXTS = st.sampled_from(["one", "two", "eins", "zwei", "un", "", " "])
ROWS = st.fixed_dictionaries({tag: st.dictionaries(KEYS, TEXTS, max_size=8) for tag in LANGUAGES})


def aligned(rows, languages=LANGUAGES):
    try:
        return align(name="test", source="here", rows=rows, languages=languages)
    except CorpusError:
        return None


@given(ROWS)
@example({"de": {"a": "eins"}, "en": {"a": "one"}, "fr": {"a": "un"}})
def test_a_segment_says_in_every_language_what_its_id_says_there(rows):
    corpus = aligned(rows)
    if corpus is None:
        return
    for tag in LANGUAGES:
        assert corpus.texts[tag] == tuple(rows[tag][key] for key in corpus.segment_ids)
        assert all(text.strip() for text in corpus.texts[tag])
    for tag in ("de", "fr"):
        assert not any(a.strip() == b.strip() for a, b in zip(corpus.texts[tag], corpus.texts["en"], strict=True))


@given(ROWS)
def test_every_id_is_either_kept_or_counted(rows):
    corpus = aligned(rows)
    if corpus is None:
        return
    candidates = set().union(*rows.values())
    dropped = sum(entry.count for entry in corpus.left_out if entry.language is None)
    assert len(corpus) + dropped == len(candidates)
    for tag in LANGUAGES:
        missing = sum(
            entry.count
            for entry in corpus.left_out
            if entry.language == tag and entry.reason == "missing in this language"
        )
        assert missing == len(candidates - set(rows[tag]))


@given(ROWS)
def test_the_order_in_which_a_language_is_read_changes_nothing(rows):
    corpus = aligned(rows)
    reversed_german = rows | {"de": dict(reversed(rows["de"].items()))}
    if corpus is not None and set(rows["de"]) <= set(rows["en"]):
        assert aligned(reversed_german) == corpus


@given(ROWS)
@example({"de": {"a": "eins", "b": "eins"}, "en": {"a": "one", "b": "two"}, "fr": {"a": "un", "b": "deux"}})
def test_no_text_stands_twice_in_any_language(rows):
    """It would be in the probe half and in the evaluation half, and count as two."""
    corpus = aligned(rows)
    if corpus is not None:
        for tag in LANGUAGES:
            assert len({text.strip() for text in corpus.texts[tag]}) == len(corpus)


def test_of_segments_with_one_text_the_first_stays_and_the_others_are_counted_by_language():
    german = {"a": "eins", "b": "eins ", "c": "drei", "d": "vier", "e": "zwei"}
    english = {"a": "one", "b": "two", "c": "three", "d": "three", "e": "two"}
    corpus = aligned({"de": german, "en": english}, languages=("de", "en"))
    # b repeats a in German, d repeats c in English; the text of b, which went, is no earlier one to e
    assert corpus.segment_ids == ("a", "c", "e")
    counted = [(entry.language, entry.count, entry.reason) for entry in corpus.left_out]
    assert counted == [("de", 1, REPEATED), ("en", 1, REPEATED), (None, 2, "not usable in every language")]


def test_a_language_that_only_repeats_itself_is_refused_and_does_not_empty_the_corpus():
    english = {str(number): f"number {number}" for number in range(9)}
    with pytest.raises(CorpusError, match=r"in de 8 of 9 segments repeat the text of another .* leave de out"):
        align(
            name="t",
            source="here",
            rows={"de": dict.fromkeys(english, "kommt noch"), "en": english},
            languages=("de", "en"),
        )
    both = {"de": dict.fromkeys(english, "ja"), "en": dict.fromkeys(english, "yes")}
    assert len(aligned(both, languages=("de", "en"))) == 1  # nothing else is said in English either


@given(ROWS)
def test_fewer_languages_never_lose_a_segment_but_repeated_ones(rows):
    three, two = aligned(rows), aligned(rows, languages=("de", "en"))
    if three is not None and two is not None and REPEATED not in {entry.reason for entry in two.left_out}:
        assert set(three.segment_ids) <= set(two.segment_ids)


def test_without_english_nothing_counts_as_a_copy():
    corpus = aligned({"de": {"a": "taxi"}, "fr": {"a": "taxi"}}, languages=("de", "fr"))
    assert len(corpus) == 1
    assert corpus.left_out == ()
