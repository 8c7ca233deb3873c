"""Tokens, windows and batches: every token scored once, in lm-eval's windows, in an order that depends on nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from evenbits.errors import CorpusError, ModelError, UsageError
from evenbits.scoring.batches import Window, batched, context_limit, prefix_token, tokenize, windows_of
from hypothesis import given, settings
from hypothesis import strategies as st

TOKENS = st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=40), max_size=8)


@settings(deadline=None)
@given(tokens=TOKENS, context=st.integers(1, 12))
def test_every_token_is_scored_once_and_in_order(tokens, context):
    windows = windows_of(tokens, prefix=1, context=context)
    assert [token for window in windows for token in window.targets] == [token for ids in tokens for token in ids]
    starts = [window.start for window in windows]
    lengths = [len(window.targets) for window in windows]
    assert starts == [sum(lengths[:i]) for i in range(len(lengths))]


@settings(deadline=None)
@given(tokens=TOKENS, context=st.integers(1, 12))
def test_windows_are_those_of_lm_eval(tokens, context):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    expected = []
    for ids in tokens:
        for pair in get_rolling_token_windows(token_list=ids, prefix_token=1, max_seq_len=context, context_len=1):
            before, scored = make_disjoint_window(pair)
            # HFLM reads context and continuation but the last token, at most `context` of them.
            expected.append(((before + scored)[-(context + 1) :][:-1], scored))
    windows = windows_of(tokens, prefix=1, context=context)
    assert [(list(window.inputs), list(window.targets)) for window in windows] == expected


def test_a_long_segment_is_read_in_disjoint_windows_with_the_last_one_filled_up():
    # 7 tokens, context 3: [p a b] -> a b c, [c d e] -> d e f, and the last token g is read after e and f.
    windows = windows_of([[10, 11, 12, 13, 14, 15, 16]], prefix=1, context=3)
    assert [(window.inputs, window.targets) for window in windows] == [
        ((1, 10, 11), (10, 11, 12)),
        ((12, 13, 14), (13, 14, 15)),
        ((13, 14, 15), (16,)),
    ]


@settings(deadline=None)
@given(tokens=TOKENS, budget=st.integers(1, 60), padded=st.booleans(), seed=st.randoms(use_true_random=False))
def test_batches_hold_every_window_once_keep_the_budget_and_ignore_the_order(tokens, budget, padded, seed):
    windows = windows_of(tokens, prefix=1, context=16)
    batches = list(batched(windows, tokens=budget, padded=padded))
    assert sorted(w.start for batch in batches for w in batch) == sorted(w.start for w in windows)
    for batch in batches:
        cost = max(map(len, batch)) * len(batch) if padded else sum(map(len, batch))
        assert cost <= budget or len(batch) == 1
    shuffled = list(tokens)
    seed.shuffle(shuffled)
    again = batched(windows_of(shuffled, prefix=1, context=16), tokens=budget, padded=padded)
    assert [[w.inputs for w in batch] for batch in again] == [[w.inputs for w in batch] for batch in batches]


def test_prefix_is_bos_else_eos_else_an_error():
    assert prefix_token(SimpleNamespace(bos_token_id=0, eos_token_id=2), "m") == 0
    assert prefix_token(SimpleNamespace(bos_token_id=None, eos_token_id=2), "m") == 2
    with pytest.raises(ModelError, match=r"m: the tokenizer has neither a BOS nor an EOS token"):
        prefix_token(SimpleNamespace(bos_token_id=None, eos_token_id=None), "m")


def test_tokens_cover_every_byte_and_add_nothing(tiny_tokenizer):
    text = "The Straße ist 漢字 \U0001f600\n" * 40  # longer than the tokenizer's own limit of 256
    (ids,) = tokenize(tiny_tokenizer, [text], ["a"], "de")
    assert tiny_tokenizer.decode(ids) == text
    assert not set(ids) & set(tiny_tokenizer.all_special_ids)


def test_a_segment_without_tokens_is_refused_by_name(tiny_tokenizer):
    with pytest.raises(CorpusError, match="segment b in de has no token"):
        tokenize(tiny_tokenizer, ["x", ""], ["a", "b"], "de")


def test_context_is_cut_to_the_models_limit_only_where_it_has_one():
    assert context_limit(SimpleNamespace(max_position_embeddings=256), 1024) == 256
    assert context_limit(SimpleNamespace(max_position_embeddings=8192), 1024) == 1024
    assert context_limit(SimpleNamespace(), 1024) == 1024
    with pytest.raises(UsageError, match="at least 1"):
        context_limit(SimpleNamespace(), 0)


def test_impossible_budgets_and_windows_are_refused():
    with pytest.raises(UsageError, match="batch_tokens"):
        list(batched([], tokens=0, padded=True))
    with pytest.raises(ValueError, match="cannot score"):
        Window(inputs=(1,), targets=(2, 3), start=0)
