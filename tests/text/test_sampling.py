"""Choosing and dividing segments by seed."""

import pytest
from evenbits.errors import CorpusError, UsageError
from evenbits.records import Corpus
from evenbits.text import sample, split
from hypothesis import given
from hypothesis import strategies as st

IDS = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=40, unique=True)
SEEDS = st.integers(min_value=0, max_value=2**32)


def corpus(ids, languages=("de", "en")):
    texts = {tag: tuple(f"{tag} {segment_id}" for segment_id in ids) for tag in languages}
    return Corpus(name="test", source="here", languages=tuple(languages), segment_ids=tuple(ids), texts=texts)


@given(IDS, SEEDS)
def test_halves_are_disjoint_complete_and_equal_to_one_segment(ids, seed):
    probe, evaluation = split(corpus(ids), seed=seed)
    assert set(probe.segment_ids) | set(evaluation.segment_ids) == set(ids)
    assert not set(probe.segment_ids) & set(evaluation.segment_ids)
    assert len(evaluation) - len(probe) == len(ids) % 2
    assert (probe.part, evaluation.part) == ("probe", "evaluation")


@given(IDS, SEEDS)
def test_halves_do_not_depend_on_the_languages_or_the_order(ids, seed):
    halves = split(corpus(ids), seed=seed)
    others = split(corpus(ids[::-1], languages=("fr",)), seed=seed)
    for half, other in zip(halves, others, strict=True):
        assert set(half.segment_ids) == set(other.segment_ids)


@given(IDS, SEEDS, st.integers(min_value=1, max_value=45))
def test_a_sample_keeps_order_and_texts_and_counts_the_rest(ids, seed, size):
    whole = corpus(ids)
    drawn = sample(whole, size, seed=seed)
    assert len(drawn) == min(size, len(ids))
    places = [ids.index(segment_id) for segment_id in drawn.segment_ids]
    assert places == sorted(places)
    assert drawn.texts["de"] == tuple(f"de {segment_id}" for segment_id in drawn.segment_ids)
    assert sum(entry.count for entry in drawn.left_out) == len(ids) - len(drawn)


def test_a_larger_sample_holds_the_smaller_one():
    whole = corpus([f"s{number}" for number in range(50)])
    small, large = (set(sample(whole, size, seed=3).segment_ids) for size in (10, 20))
    assert small < large


def test_another_seed_draws_and_divides_differently():
    whole = corpus([f"s{number}" for number in range(50)])
    assert sample(whole, 10, seed=0).segment_ids != sample(whole, 10, seed=1).segment_ids
    assert split(whole, seed=0)[0].segment_ids != split(whole, seed=1)[0].segment_ids


def test_a_sample_is_not_one_of_the_halves():
    # With one lot for both uses, a sample of half the segments would be the probe half itself.
    whole = corpus([f"s{number}" for number in range(100)])
    drawn = sample(whole, 50, seed=0)
    probe, _ = split(whole, seed=0)
    shared = set(drawn.segment_ids) & set(probe.segment_ids)
    # Independent lots share about 25; 10 to 40 is six standard deviations (2.5) around that.
    assert 10 <= len(shared) <= 40


def test_one_segment_more_moves_at_most_one_segment_to_the_other_half():
    ids = [f"s{number}" for number in range(60)]
    probe = set(split(corpus(ids), seed=0)[0].segment_ids)
    with_one_more = set(split(corpus([*ids, "new"]), seed=0)[0].segment_ids)
    assert len((probe ^ with_one_more) - {"new"}) <= 1


def test_each_segment_falls_into_either_half_about_equally_often():
    whole = corpus([f"s{number}" for number in range(10)])
    times = sum("s0" in split(whole, seed=seed)[0].segment_ids for seed in range(400))
    # Binomial(400, 1/2): mean 200, standard deviation 10; the band is five deviations.
    assert 150 <= times <= 250


def test_a_single_segment_cannot_be_divided():
    with pytest.raises(CorpusError, match="test has 1 segment; probe and evaluation need at least one each"):
        split(corpus(["only"]), seed=0)


def test_impossible_sizes_and_seeds_are_refused():
    with pytest.raises(UsageError, match="--segments 0"):
        sample(corpus(["a", "b"]), 0, seed=0)
    with pytest.raises(UsageError, match="--seed -1"):
        split(corpus(["a", "b"]), seed=-1)


def test_halves_divide_no_document():
    whole = corpus([f"s{number}" for number in range(60)])
    named = Corpus(
        **{name: getattr(whole, name) for name in ("name", "source", "languages", "segment_ids", "texts")},
        documents=tuple(f"d{number // 5}" for number in range(60)),
    )
    probe, evaluation = split(named, seed=3)
    assert not set(probe.documents) & set(evaluation.documents)
    assert len(probe) == len(evaluation) == 30
    assert probe.documents == tuple(f"d{int(one[1:]) // 5}" for one in probe.segment_ids)


def test_text_of_a_single_document_is_divided_by_segment():
    whole = corpus(["a", "b", "c"])
    one = Corpus(
        **{name: getattr(whole, name) for name in ("name", "source", "languages", "segment_ids", "texts")},
        documents=("d",) * 3,
    )
    assert len(split(one, seed=0)[0]) == 1


def test_documents_are_of_all_segments_or_of_none():
    whole = corpus(["a", "b", "c"])
    with pytest.raises(CorpusError, match="2 documents for 3 segments"):
        Corpus(
            **{name: getattr(whole, name) for name in ("name", "source", "languages", "segment_ids", "texts")},
            documents=("d", "e"),
        )
