"""Scores equal an independent computation and lm-eval's, whatever the architecture and the batches."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evenbits.errors import ModelError, NonFiniteError
from evenbits.scoring import score

ARCHITECTURES = (
    "llama",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma3_text",
    "olmo2",
    "gpt_neox",
    "gpt2",
    "bloom",
    "opt",
    "xglm",
)
LEAN = ("llama", "qwen2", "qwen3", "smollm3")
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Zażółć gęślą jaźń",
    "x",
    "ニューラル機械翻訳の評価",
    "Разные языки по-разному теряют качество при квантовании моделей.",
    "The the he an in " * 8,
    "ħ",
)
IDS = tuple(f"s{i}" for i in range(len(TEXTS)))


def loaded_from(folder, *, dtype=torch.float32, **config):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **config).eval().requires_grad_(requires_grad=False)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SimpleNamespace(local=SimpleNamespace(text="tiny"), model=model, tokenizer=tokenizer)


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are slower on two threads than on one, and the tests may share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def load_tiny(tiny_model):
    """`load_tiny(architecture)`: 4 layers, so that SmolLM3 has one without rotary positions; a fresh copy."""

    def load(architecture="llama", **config):
        return loaded_from(tiny_model(architecture, layers=4), **config)

    return load


def naive_nll(loaded, text, *, context=256):
    """NLL by the model's own forward, one window at a time, full logits, float64 from there on."""
    tokens = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    read = [loaded.tokenizer.bos_token_id, *tokens]
    total = 0.0
    for start in range(0, len(tokens), context):
        end = min(start + context, len(tokens))
        first = max(0, end - context) if start else 0
        with torch.no_grad():
            logits = loaded.model(torch.tensor([read[first:end]]), use_cache=False).logits[0].double()
        log_p = logits[start - first :].log_softmax(dim=-1)
        total -= float(log_p[torch.arange(end - start), torch.tensor(tokens[start:end])].sum())
    return total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lean", [True, False])
def test_scores_equal_one_segment_at_a_time_with_full_logits(load_tiny, architecture, lean):
    loaded = load_tiny(architecture)
    losses, hidden = score(loaded, "en", IDS, TEXTS, lean=lean)
    assert hidden is None
    np.testing.assert_allclose(losses.nll, [naive_nll(loaded, text) for text in TEXTS], rtol=1e-5)
    assert losses.tokens.tolist() == [len(loaded.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS]
    assert losses.utf8_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert losses.segment_ids == IDS
    assert losses.language == "en"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "xglm", "bloom", "gemma3_text"])
@pytest.mark.parametrize("lean", [True, False])
def test_segments_longer_than_the_context_are_scored_whole(load_tiny, architecture, lean):
    loaded = load_tiny(architecture)
    losses, _ = score(loaded, "en", IDS, TEXTS, context=16, lean=lean)
    np.testing.assert_allclose(losses.nll, [naive_nll(loaded, text, context=16) for text in TEXTS], rtol=1e-5)


def test_the_models_own_limit_is_kept_where_the_context_is_larger(load_tiny):
    loaded = load_tiny("gpt2")  # 256 positions: a longer window would fail in the table of positions
    text = "abcdefgh " * 60
    losses, _ = score(loaded, "en", ["a"], [text], context=1024)
    assert losses.nll[0] == pytest.approx(naive_nll(loaded, text, context=256), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_composition_of_batches_does_not_matter_in_float32(load_tiny, architecture):
    loaded = load_tiny(architecture)
    together, _ = score(loaded, "en", IDS, TEXTS, batch_tokens=4096)
    for budget in (1, 50, 150):
        apart, _ = score(loaded, "en", IDS, TEXTS, batch_tokens=budget)
        np.testing.assert_allclose(apart.nll, together.nll, rtol=1e-5)


@pytest.mark.parametrize("lean", [True, False])
def test_permuted_segments_give_the_permuted_scores_exactly(load_tiny, lean):
    loaded = load_tiny()
    order = np.random.default_rng(3).permutation(len(TEXTS))
    straight, kept = score(loaded, "en", IDS, TEXTS, batch_tokens=100, lean=lean, keep_hidden=True)
    mixed, mixed_kept = score(
        loaded, "en", [IDS[i] for i in order], [TEXTS[i] for i in order], batch_tokens=100, lean=lean, keep_hidden=True
    )
    assert mixed.nll.tolist() == straight.nll[order].tolist()
    ends = np.cumsum(straight.tokens)
    rows = np.concatenate([np.arange(ends[i] - straight.tokens[i], ends[i]) for i in order])
    assert torch.equal(mixed_kept.hidden, kept.hidden[torch.from_numpy(rows)])


@pytest.mark.parametrize("architecture", ["llama", "opt", "bloom"])
def test_scores_equal_lm_eval_also_beyond_the_context(load_tiny, architecture):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    loaded = load_tiny(architecture)
    lm = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        max_length=48,
        batch_size=1,
        add_bos_token=False,
        dtype="float32",
    )
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0, metadata=("t", 0, 1))
        for text in TEXTS
    ]
    expected = [-value for value in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    losses, _ = score(loaded, "en", IDS, TEXTS, context=48)
    assert max(losses.tokens) > 96  # three windows at least
    np.testing.assert_allclose(losses.nll, expected, rtol=1e-4)


@pytest.mark.parametrize("architecture", LEAN)
def test_the_lean_forward_gives_the_hidden_states_of_the_models_own(load_tiny, architecture):
    from evenbits.scoring.batches import windows_of
    from evenbits.scoring.body import final_hidden
    from evenbits.scoring.packed import supports

    loaded = load_tiny(architecture)
    assert supports(loaded.model, context=256)
    tokens = loaded.tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
    batch = windows_of(tokens, prefix=0, context=64)
    with torch.inference_mode():
        lean = final_hidden(loaded.model, batch, pack=True)
        own = final_hidden(loaded.model, batch, pack=False)
    assert lean.shape == (sum(map(len, tokens)), 32)
    torch.testing.assert_close(lean, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(LEAN)))
def test_other_architectures_use_their_own_forward(load_tiny, architecture):
    from evenbits.scoring.packed import supports

    assert not supports(load_tiny(architecture).model, context=256)


def test_short_attention_windows_and_listeners_send_a_model_to_its_own_forward(load_tiny):
    from evenbits.scoring.packed import supports

    sliding = load_tiny("qwen2", sliding_window=8, layer_types=["full_attention", "sliding_attention"] * 2)
    assert supports(sliding.model, context=8)
    assert not supports(sliding.model, context=9)
    losses, _ = score(sliding, "en", IDS, TEXTS)
    np.testing.assert_allclose(losses.nll, [naive_nll(sliding, text) for text in TEXTS], rtol=1e-5)

    loaded = load_tiny()
    seen = []
    hook = loaded.model.model.layers[1].mlp.register_forward_hook(lambda *_: seen.append("mlp"))
    score(loaded, "en", IDS, TEXTS)
    assert seen
    hook.remove()
    assert supports(loaded.model, context=256)


def test_hooks_on_linear_layers_are_heard_by_the_lean_forward(load_tiny):
    loaded = load_tiny()
    seen = []
    for layer in loaded.model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            getattr(layer.self_attn, name).register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[-1]))
    score(loaded, "en", IDS, TEXTS)
    assert seen == [32] * 16  # 4 layers x 4 projections, one batch, inputs of width 32


def test_patched_weights_count_at_the_next_call(load_tiny):
    loaded = load_tiny()
    before, _ = score(loaded, "en", IDS, TEXTS)
    weight = loaded.model.model.layers[2].mlp.down_proj.weight
    kept = weight.data.clone()
    weight.data.mul_(0.5)
    after, _ = score(loaded, "en", IDS, TEXTS)
    np.testing.assert_allclose(after.nll, [naive_nll(loaded, text) for text in TEXTS], rtol=1e-5)
    assert not np.allclose(after.nll, before.nll, rtol=1e-3)
    weight.data.copy_(kept)
    again, _ = score(loaded, "en", IDS, TEXTS)
    assert again.nll.tolist() == before.nll.tolist()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_bfloat16_scores_are_near_those_of_float32_on_the_same_weights(load_tiny, architecture):
    half = load_tiny(architecture, dtype=torch.bfloat16)
    full = load_tiny(architecture, dtype=torch.bfloat16)
    full.model.float()
    rough, kept = score(half, "en", IDS, TEXTS, keep_hidden=True)
    exact, _ = score(full, "en", IDS, TEXTS)
    assert kept.hidden.dtype is torch.bfloat16
    # Rounding is 2^-9 of a value, and these random models are sharp: a few per cent of a short segment's NLL.
    np.testing.assert_allclose(rough.nll, exact.nll, rtol=0.05)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_products_widened_to_float32_round_like_bfloat16_products(load_tiny, architecture):
    from evenbits.scoring.arithmetic import WidenedProducts

    loaded = load_tiny(architecture, dtype=torch.bfloat16)
    ids = torch.tensor([loaded.tokenizer(TEXTS[0])["input_ids"]])
    with torch.inference_mode():
        own = loaded.model(ids).logits
        with WidenedProducts():
            widened = loaded.model(ids).logits
    assert widened.dtype is torch.bfloat16
    assert float((own - widened).float().abs().max()) <= 0.03 * float(own.float().abs().max())


def test_widened_products_keep_the_dtype_of_the_activations():
    from evenbits.scoring.arithmetic import WidenedProducts
    from torch.nn import functional

    w = torch.randn(3, 5, dtype=torch.bfloat16)
    x = torch.randn(2, 5)
    with pytest.raises(RuntimeError):
        functional.linear(x, w)
    with WidenedProducts():
        torch.testing.assert_close(functional.linear(x, w), x @ w.float().T)
        assert functional.linear(x.bfloat16(), w).dtype is torch.bfloat16
        assert functional.linear(x, w.float()).dtype is torch.float32


def test_a_soft_cap_of_the_logits_is_applied(load_tiny):
    loaded = load_tiny("gemma3_text", final_logit_softcapping=3.0)
    capped, _ = score(loaded, "en", IDS, TEXTS)
    np.testing.assert_allclose(capped.nll, [naive_nll(loaded, text) for text in TEXTS], rtol=1e-5)
    loaded.model.config.final_logit_softcapping = None
    plain, _ = score(loaded, "en", IDS, TEXTS)
    assert not np.allclose(plain.nll, capped.nll, rtol=1e-3)


def test_a_head_with_a_bias_counts_its_bias(load_tiny):
    loaded = load_tiny("gpt_neox")
    head = loaded.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.linspace(-3, 3, head.weight.shape[0]), requires_grad=False)
    losses, _ = score(loaded, "en", IDS, TEXTS)
    np.testing.assert_allclose(losses.nll, [naive_nll(loaded, text) for text in TEXTS], rtol=1e-5)


def test_heads_that_scoring_cannot_reproduce_are_refused(load_tiny):
    loaded = load_tiny()
    loaded.model.config.output_multiplier_scale = 0.0625
    with pytest.raises(ModelError, match=r"tiny: output_multiplier_scale in config\.json"):
        score(loaded, "en", IDS, TEXTS)
    loaded.model.config.output_multiplier_scale = 1.0
    score(loaded, "en", IDS, TEXTS)
    loaded.model.lm_head = torch.nn.Sequential(loaded.model.lm_head)
    with pytest.raises(ModelError, match="tiny: the output head is a Sequential"):
        score(loaded, "en", IDS, TEXTS)


def test_nan_is_named_by_segment_and_language(load_tiny):
    loaded = load_tiny()
    rare = loaded.tokenizer("x", add_special_tokens=False)["input_ids"][0]
    loaded.model.model.embed_tokens.weight.data = loaded.model.model.embed_tokens.weight.data.clone()
    loaded.model.lm_head.weight = torch.nn.Parameter(loaded.model.lm_head.weight.data.clone(), requires_grad=False)
    loaded.model.model.embed_tokens.weight.data[rare] = math.nan
    with pytest.raises(NonFiniteError, match=r"nll is nan at segment b in hu"):
        score(loaded, "hu", ["a", "b"], ["the", "xy"])


def test_no_segments_give_no_scores(load_tiny):
    losses, _ = score(load_tiny(), "en", (), ())
    assert losses.nll.shape == (0,)


def test_ids_and_texts_must_pair_up(load_tiny):
    with pytest.raises(ValueError, match="en: 1 segment ids for 2 texts"):
        score(load_tiny(), "en", ["a"], ["x", "y"])


@pytest.mark.slow
@pytest.mark.skipif("EVENBITS_TEST_MODEL" not in os.environ, reason="EVENBITS_TEST_MODEL names no model folder")
def test_a_real_checkpoint_scores_as_lm_eval_does():
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    loaded = loaded_from(os.environ["EVENBITS_TEST_MODEL"])
    texts = (*TEXTS, TEXTS[4] * 30)
    lm = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        max_length=512,
        batch_size=1,
        add_bos_token=False,
        dtype="float32",
    )
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0, metadata=("t", 0, 1))
        for text in texts
    ]
    expected = [-value for value in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    for lean in (True, False):
        losses, _ = score(loaded, "mul", [str(i) for i in range(len(texts))], texts, context=512, lean=lean)
        assert max(losses.tokens) > 1024
        np.testing.assert_allclose(losses.nll, expected, rtol=1e-4)
