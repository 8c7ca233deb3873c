"""From texts by language and id to aligned segments."""

from evenbits.errors import CorpusError
from evenbits.text.alignment import align
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
def test_fewer_languages_never_lose_a_segment(rows):
    three, two = aligned(rows), aligned(rows, languages=("de", "en"))
    if three is not None and two is not None:
        assert set(three.segment_ids) <= set(two.segment_ids)


def test_without_english_nothing_counts_as_a_copy():
    corpus = aligned({"de": {"a": "taxi"}, "fr": {"a": "taxi"}}, languages=("de", "fr"))
    assert len(corpus) == 1
    assert corpus.left_out == ()
