"""Squared gradients, spikes and importance against plain computations."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from evenbits.errors import CorpusError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations.gradients import gradient_squares, measure_gradients
from evenbits.observe.activations.importance import ActivationImportance
from evenbits.observe.activations.spikes import spike_peaks
from evenbits.records import Corpus
from evenbits.store import Store

TEXTS = ("The quick brown fox.", "jumps over", "the lazy dog again and again")
CORPUS = Corpus(
    name="c",
    source="test",
    languages=("de", "en"),
    segment_ids=("a", "b", "c"),
    texts={"en": TEXTS, "de": ("Der schnelle Fuchs.", "springt über", "den faulen Hund immer wieder")},
)


@pytest.fixture(scope="module")
def load_tiny(tiny_model, tmp_path_factory):
    """`load_tiny(architecture)`: a tiny model in float32, loaded once. Read-only."""
    made = {}

    def make(architecture="llama"):
        if architecture not in made:
            store = Store(tmp_path_factory.mktemp("resolved") / "store")
            folder = tiny_model(architecture)
            made[architecture] = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
        return made[architecture]

    return make


def naive_gradients(loaded, texts):
    """Mean over segments of the squared gradient of the summed NLL, by autograd with every gradient at once."""
    names = [linear.name for linear in loaded.anatomy.linears]
    weights = [loaded.model.get_submodule(name).weight for name in names]
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    for weight in weights:
        weight.requires_grad_()
    for text in texts:
        ids = torch.tensor([[0, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        log_p = loaded.model(ids).logits[0, :-1].log_softmax(-1)
        nll = -log_p.gather(1, ids[0, 1:, None]).sum()
        gradients = torch.autograd.grad(nll, weights)
        sums = [total + gradient.double() ** 2 for total, gradient in zip(sums, gradients, strict=True)]
    for weight in weights:
        weight.requires_grad_(requires_grad=False)
    return {name: total / len(texts) for name, total in zip(names, sums, strict=True)}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom", "opt"])
def test_squared_gradients_equal_autograd_segment_by_segment(architecture, load_tiny):
    loaded = load_tiny(architecture)
    expected = naive_gradients(loaded, TEXTS)
    found = measure_gradients(loaded, TEXTS, language="en")
    for linear in loaded.anatomy.linears:
        plain = expected[linear.name].T if linear.transposed else expected[linear.name]
        np.testing.assert_allclose(found[linear.name], plain, rtol=1e-3, atol=1e-5 * float(plain.max()))


def test_measuring_gradients_leaves_the_model_without_any(load_tiny):
    loaded = load_tiny()
    measure_gradients(loaded, TEXTS, language="en")
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in loaded.model.parameters())


def test_gradients_are_measured_once_and_read_back(load_tiny, store):
    loaded = load_tiny()
    first = gradient_squares(loaded, {"en": TEXTS}, store=store)
    again = gradient_squares(loaded, {"en": TEXTS}, store=store)
    assert (store.misses, store.hits) == (1, 1)
    name = loaded.anatomy.linears[0].name
    assert torch.equal(first[name], again[name])
    with pytest.raises(KeyError, match="lm_head"):
        first["lm_head"]


def test_gradients_of_some_products_at_a_time_are_the_same_in_one_file_for_all_languages(
    load_tiny, tmp_path, monkeypatch
):
    import evenbits.observe.activations.gradients as module

    loaded = load_tiny()
    whole = gradient_squares(loaded, dict(CORPUS.texts), store=Store(tmp_path / "whole"))
    monkeypatch.setattr(module, "HELD_BYTES", 1)  # every product alone
    parts = gradient_squares(loaded, dict(CORPUS.texts), store=Store(tmp_path / "parts"))
    for linear in loaded.anatomy.linears:
        assert torch.equal(whole[linear.name], parts[linear.name])
    # one file a product, not one for each language too
    assert len(list((tmp_path / "parts" / "gradients").rglob("*.npy"))) == len(loaded.anatomy.linears)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_spike_peaks_are_the_largest_activations_prefix_included(architecture, load_tiny):
    loaded = load_tiny(architecture)
    seen = {}

    def keep(name):
        def hook(_, args, output):
            for what, x in (("in", args[0]), ("out", output)):
                peak = x.detach().reshape(-1, x.shape[-1]).abs().amax(0).numpy()
                seen[name, what] = np.maximum(seen.get((name, what), 0), peak)

        return hook

    handles = [
        loaded.model.get_submodule(linear.name).register_forward_hook(keep(linear.name))
        for linear in loaded.anatomy.linears
    ]
    for text in TEXTS:
        loaded.model(torch.tensor([[0, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]]))
    for handle in handles:
        handle.remove()
    for name, peaks in spike_peaks(loaded, TEXTS).items():
        np.testing.assert_allclose(peaks.inputs, seen[name, "in"], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(peaks.outputs, seen[name, "out"], rtol=1e-3, atol=1e-5)


def test_importance_weighs_languages_equally(load_tiny, store):
    loaded = load_tiny()
    importance = ActivationImportance(loaded, CORPUS, store=store)
    name = "model.layers.1.mlp.down_proj"
    both, german, english = (importance.input_rms(name, languages) for languages in (None, ("de",), ("en",)))
    torch.testing.assert_close(both**2, (german**2 + english**2) / 2)
    assert both.dtype == torch.float32
    squares = importance.gradient_square(name, None)
    expected = [measure_gradients(loaded, CORPUS.texts[tag], language=tag)[name] for tag in CORPUS.languages]
    torch.testing.assert_close(squares, (expected[0] + expected[1]) / 2, rtol=1e-3, atol=1e-7)


def test_asking_twice_gives_the_same_importance_and_measures_once(load_tiny, store):
    importance = ActivationImportance(load_tiny(), CORPUS, store=store)
    name = "model.layers.0.self_attn.q_proj"
    assert torch.equal(importance.gradient_square(name, ("en",)), importance.gradient_square(name, ("en",)))
    assert torch.equal(importance.input_rms(name, None), importance.input_rms(name, None))
    misses = store.misses
    again = ActivationImportance(load_tiny(), CORPUS, store=store)
    assert torch.equal(again.gradient_square(name, ("en",)), importance.gradient_square(name, ("en",)))
    assert store.misses == misses


class Heard:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.said = []

    @contextmanager
    def task(self, description, total=None):
        self.said.append((description.rpartition("  ")[2], total))
        yield self

    def doing(self, what):
        self.said.append(what)

    def advance(self, n=1):
        self.said.append(n)


def test_whoever_waits_is_told_which_language_is_measured(load_tiny, store):
    heard = Heard()
    importance = ActivationImportance(load_tiny(), CORPUS, store=store, progress=heard)
    name = "model.layers.0.self_attn.q_proj"
    for _ in range(2):  # the second time nothing is measured
        importance.gradient_square(name, None)
        importance.input_rms(name, None)
    languages = ["de", 1, "en", 1]
    assert heard.said == [("gradients", 2), *languages, ("activations", 2), *languages]


def test_importance_fits_what_quantization_asks_for(load_tiny, store):
    """Every retention criterion that needs measurements plans on it, for every product of the model."""
    from evenbits.variants.quantization.retention import retention_scores
    from evenbits.variants.quantization.spec import parse_spec

    loaded = load_tiny("gpt2")
    importance = ActivationImportance(loaded, CORPUS, store=store)
    for criterion in ("activation", "sensitivity", "superweight"):
        keep = parse_spec(f"int4-row+keep1%:{criterion}").keep
        for linear in loaded.anatomy.linears:
            weight = loaded.model.get_submodule(linear.name).weight
            w_OI = (weight.T if linear.transposed else weight).float()
            scores = retention_scores(
                w_OI, keep, name=linear.name, rounded=lambda w=w_OI: w.round(), importance=importance, seed=0
            )
            assert scores.shape == w_OI.shape


def test_a_language_without_probe_text_is_named(load_tiny, store):
    with pytest.raises(CorpusError, match="no probe text in fr; there is text in de, en"):
        ActivationImportance(load_tiny(), CORPUS, store=store).input_rms("model.layers.0.mlp.down_proj", ("fr",))
