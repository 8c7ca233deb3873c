"""KL, top-1 changes and squared probability differences equal those of full logits in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evenbits.scoring import score

TEXTS = ("The quick brown fox jumps over the lazy dog.", "x", "ニューラル機械翻訳の評価", "The the he an in " * 4)
IDS = tuple(f"s{i}" for i in range(len(TEXTS)))


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are slower on two threads than on one, and the tests may share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def load_tiny(tiny_model):
    def load(architecture="llama", *, dtype=torch.float32, **config):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = tiny_model(architecture, layers=4)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **config).eval()
        model.requires_grad_(requires_grad=False)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return SimpleNamespace(local=SimpleNamespace(text="tiny"), model=model, tokenizer=tokenizer)

    return load


def log_probabilities(loaded, text):
    """Return true tokens and log-probabilities (T x V, float64) of one text."""
    tokens = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[0, *tokens[:-1]]]), use_cache=False).logits[0]
    return torch.tensor(tokens), logits.double().log_softmax(dim=-1)


def damage(loaded, *, by, seed=0):
    """Add noise of `by` standard deviations to every linear layer of the decoder."""
    generator = torch.Generator().manual_seed(seed)
    head = loaded.model.get_output_embeddings()
    for module in loaded.model.modules():
        if type(module).__name__ in {"Linear", "Conv1D"} and module is not head:
            weight = module.weight.data
            noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            weight.add_(noise * by * weight.float().std().to(weight.dtype))


def check(losses, before, after):
    """Hold `losses` against the log-probabilities (targets, T x V) before and after."""
    token_kl = []
    for i, ((targets, log_p), (_, log_q)) in enumerate(zip(before, after, strict=True)):
        row = torch.arange(len(targets))
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
        token_kl += kl.tolist()
        delta = log_q.exp()[row, targets] - log_p.exp()[row, targets]
        assert losses.nll[i] == pytest.approx(float(-log_q[row, targets].sum()), rel=1e-5)
        assert losses.kl[i] == pytest.approx(float(kl.sum()), rel=1e-4, abs=1e-6)
        assert losses.top1_changed[i] == int((log_p.argmax(dim=-1) != log_q.argmax(dim=-1)).sum())
        assert losses.delta_p[i] == pytest.approx(float(delta.sum()), rel=1e-3, abs=1e-6)
        assert losses.square_delta_p[i] == pytest.approx(float((delta**2).sum()), rel=1e-3, abs=1e-9)
    np.testing.assert_allclose(losses.token_kl, token_kl, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "bloom", "opt", "gpt_neox", "gemma3_text"])
def test_divergence_equals_that_of_full_logits(load_tiny, architecture):
    loaded = load_tiny(architecture)
    before = [log_probabilities(loaded, text) for text in TEXTS]
    full, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    assert full.kl is None
    damage(loaded, by=0.1)
    after = [log_probabilities(loaded, text) for text in TEXTS]
    losses, kept = score(loaded, "en", IDS, TEXTS, reference=hidden)
    assert kept is None
    check(losses, before, after)
    assert losses.top1_changed.sum() > 0  # else the comparison above would say little


@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_divergence_does_not_depend_on_batches_tiles_or_windows(load_tiny, batch_tokens, monkeypatch):
    from evenbits.scoring import head

    loaded = load_tiny()
    _, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True, context=16)
    damage(loaded, by=0.1)
    whole, _ = score(loaded, "en", IDS, TEXTS, reference=hidden, context=16)
    monkeypatch.setattr(head, "TILE_TOKENS", 7)
    monkeypatch.setattr(head, "TILE_VOCABULARY", 50)  # 272 entries: five full tiles and one of 22
    small, _ = score(loaded, "en", IDS, TEXTS, reference=hidden, context=16, batch_tokens=batch_tokens)
    for name in ("nll", "kl", "delta_p", "square_delta_p"):
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-4, err_msg=name)
    assert small.top1_changed.tolist() == whole.top1_changed.tolist()


@pytest.mark.parametrize("rows", [1, 5, 10_000])
def test_the_strips_in_which_logits_are_reduced_change_no_bit(load_tiny, rows, monkeypatch):
    from evenbits.scoring import head

    def scored():
        loaded = load_tiny()
        full, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
        damage(loaded, by=0.1)
        changed, _ = score(loaded, "en", IDS, TEXTS, reference=hidden)
        return [full.nll, changed.nll, changed.token_kl, changed.delta_p, changed.top1_changed]

    whole = scored()
    monkeypatch.setattr(head, "STRIP_TOKENS", rows)
    for before, now in zip(whole, scored(), strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unchanged_model_does_not_diverge(load_tiny, dtype):
    loaded = load_tiny(dtype=dtype)
    full, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    again, _ = score(loaded, "en", IDS, TEXTS, reference=hidden)
    assert again.nll.tolist() == full.nll.tolist()
    assert again.kl.max() < 1e-6
    assert again.top1_changed.sum() == 0
    assert again.square_delta_p.max() == 0


def test_full_precision_keeps_its_own_head_when_the_head_is_patched(load_tiny):
    loaded = load_tiny()
    before = [log_probabilities(loaded, text) for text in TEXTS]
    _, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    loaded.model.lm_head.weight = torch.nn.Parameter(loaded.model.lm_head.weight.data.clone(), requires_grad=False)
    loaded.model.lm_head.weight.data.mul_(0.7)  # also in place, in the very tensor scored before
    after = [log_probabilities(loaded, text) for text in TEXTS]
    losses, _ = score(loaded, "en", IDS, TEXTS, reference=hidden)
    check(losses, before, after)


def test_a_head_patched_in_place_leaves_the_kept_one_alone(load_tiny):
    loaded = load_tiny("olmo2")  # untied, so that only the head changes
    before = [log_probabilities(loaded, text) for text in TEXTS]
    _, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    loaded.model.lm_head.weight.data.mul_(0.7)
    after = [log_probabilities(loaded, text) for text in TEXTS]
    losses, _ = score(loaded, "en", IDS, TEXTS, reference=hidden)
    check(losses, before, after)


def test_languages_share_one_copy_of_the_head_until_it_changes(load_tiny):
    loaded = load_tiny("olmo2")
    _, first = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    _, second = score(loaded, "de", IDS, TEXTS, keep_hidden=True)
    assert first.head is second.head
    loaded.model.lm_head.weight.data.mul_(0.7)
    _, third = score(loaded, "de", IDS, TEXTS, keep_hidden=True)
    assert third.head is not first.head
    assert torch.equal(third.head.weight, loaded.model.lm_head.weight)
    assert torch.equal(first.head.weight * 0.7, third.head.weight)


def test_divergence_with_a_capped_and_biased_head_equals_that_of_full_logits(load_tiny):
    loaded = load_tiny("gemma3_text", final_logit_softcapping=5.0)
    head = loaded.model.lm_head
    head.bias = torch.nn.Parameter(torch.linspace(-1, 1, head.weight.shape[0]), requires_grad=False)
    before = [log_probabilities(loaded, text) for text in TEXTS]
    _, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    damage(loaded, by=0.1)
    after = [log_probabilities(loaded, text) for text in TEXTS]
    losses, _ = score(loaded, "en", IDS, TEXTS, reference=hidden)
    check(losses, before, after)


def test_hidden_states_of_other_text_or_context_are_refused(load_tiny):
    loaded = load_tiny()
    _, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True)
    for texts, context in ((TEXTS[::-1], 1024), (TEXTS, 8)):
        with pytest.raises(ValueError, match="en: the full-precision hidden states belong to other"):
            score(loaded, "en", IDS, texts, reference=hidden, context=context)


def test_hidden_states_are_a_row_per_scored_token_in_the_order_of_the_text(load_tiny):
    loaded = load_tiny()
    losses, hidden = score(loaded, "en", IDS, TEXTS, keep_hidden=True, batch_tokens=30)
    assert hidden.hidden.shape == (losses.tokens.sum(), 32)
    assert hidden.nbytes == losses.tokens.sum() * 32 * 4
    nll = (hidden.prediction.lse - hidden.prediction.target).numpy()
    ends = np.cumsum(losses.tokens)
    np.testing.assert_allclose([part.sum() for part in np.split(nll, ends[:-1])], losses.nll)
