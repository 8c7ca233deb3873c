"""Activation statistics against a plain computation, one segment at a time without batches or padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import architectures
import numpy as np
import pytest
import torch
from evenbits.errors import CorpusError, ModelError, NonFiniteError, NotApplicableError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations import collection
from evenbits.observe.activations.batches import batches_of, sequences_of
from evenbits.observe.activations.collection import measure
from evenbits.observe.activations.features import aligned_similarity, language_features, participation_ratio
from evenbits.observe.activations.hooks import packs, read
from evenbits.observe.activations.lookup import activation_statistics, activations
from evenbits.observe.activations.spikes import spike_peaks
from evenbits.observe.activations.statistics import token_parity
from evenbits.observe.activations.writes import WriteSums
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.studies.h035.rounding import measure_errors
from evenbits.variants.quantization.grids import quantize
from evenbits.variants.quantization.spec import parse_spec

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
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Zażółć gęślą jaźń",
    "x",
    "Вопрос в том, сколько байтов в одном предложении, решается по-разному.",
    "The the he an in " * 6,
)


@pytest.fixture(scope="module")
def load_tiny(tiny_model, tmp_path_factory):
    """`load_tiny(architecture)`: 4 layers in float32, loaded once. Read-only."""
    made = {}

    def make(architecture="llama"):
        if architecture not in made:
            folder = tiny_model(architecture, layers=4)
            store = Store(tmp_path_factory.mktemp("resolved") / "store")
            made[architecture] = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
        return made[architecture]

    return make


class Recorded:
    """Inputs and outputs of every module for each text on its own, text tokens only, float64 [tokens, channels]."""

    def __init__(self, loaded, texts):
        self.inputs, self.outputs, self.attention = {}, {}, {}
        handles = [
            module.register_forward_hook(self._keeper(name), with_kwargs=True)
            for name, module in loaded.model.named_modules()
        ]
        self.tokens = []
        with torch.no_grad():
            for text in texts:
                ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
                self.tokens.append(len(ids))
                loaded.model(torch.tensor([[loaded.tokenizer.bos_token_id, *ids]]), use_cache=False)
        for handle in handles:
            handle.remove()

    def _keeper(self, name):
        def keep(_, args, kwargs, output):
            x = args[0] if args else kwargs.get("hidden_states")
            self._add(self.inputs, name, x)
            self._add(self.outputs, name, output[0] if isinstance(output, tuple) else output)

        return keep

    @staticmethod
    def _add(into, name, x):
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() >= 2:
            into.setdefault(name, []).append(x.reshape(-1, x.shape[-1])[1:].double().numpy())

    def input(self, name):
        return np.concatenate(self.inputs[name])

    def output(self, name):
        return np.concatenate(self.outputs[name])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_statistic_equals_a_plain_computation(architecture, load_tiny):
    loaded = load_tiny(architecture)
    found = measure(loaded, TEXTS, language="xx", batch_tokens=70)
    plain = Recorded(loaded, TEXTS)
    assert found.tokens.tolist() == plain.tokens
    for linear in loaded.anatomy.linears:
        x = plain.input(linear.name)
        np.testing.assert_allclose(found.input_square[linear.name], (x**2).mean(axis=0), rtol=2e-4, atol=1e-8)
        np.testing.assert_allclose(found.input_peak[linear.name], np.abs(x).max(axis=0), rtol=2e-4, atol=1e-5)
    for block in loaded.anatomy.blocks:
        peak = np.abs(plain.output(block.mlp_output)).max(axis=0)
        np.testing.assert_allclose(found.output_peak[block.mlp_output], peak, rtol=2e-4, atol=1e-5)
        norm = np.linalg.norm(plain.input(block.name), axis=1)
        assert found.stream_norm[block.index] == pytest.approx(norm.mean(), rel=1e-4)
        heads = plain.input(block.attention_output).reshape(sum(plain.tokens), found.head_norm.shape[1], -1)
        expected = np.sqrt((heads**2).sum(axis=2).mean(axis=0))
        np.testing.assert_allclose(found.head_norm[block.index], expected, rtol=1e-4)
    for k, layer in enumerate(found.state_layers):
        means = [x.mean(axis=0) for x in plain.outputs[loaded.anatomy.layers[layer]]]
        np.testing.assert_allclose(found.segment_state[k], np.array(means), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_two_writes_are_all_that_a_layer_adds_to_the_stream(architecture, load_tiny):
    """Stream after = stream before + attention write + MLP write; found writes are relative to what they join."""
    loaded = load_tiny(architecture)
    from evenbits.observe.activations.hooks import write_modules

    found, plain = measure(loaded, TEXTS, language="xx"), Recorded(loaded, TEXTS)
    for block in loaded.anatomy.blocks:
        attention, mlp = (plain.output(name) for name in write_modules(loaded.model, block))
        before, after = plain.input(block.name), plain.output(block.name)
        np.testing.assert_allclose(before + attention + mlp, after, rtol=1e-3, atol=1e-4)
        joined = before if architecture == "gpt_neox" else before + attention

        def ratio(write, stream):
            return (np.linalg.norm(write, axis=1) / np.linalg.norm(stream, axis=1)).mean()

        assert found.attention_write[block.index] == pytest.approx(ratio(attention, before), rel=1e-3)
        assert found.mlp_write[block.index] == pytest.approx(ratio(mlp, joined), rel=1e-3)
        assert found.attention_norm[block.index] == pytest.approx(np.linalg.norm(attention, axis=1).mean(), rel=1e-3)
        assert found.mlp_norm[block.index] == pytest.approx(np.linalg.norm(mlp, axis=1).mean(), rel=1e-3)


QUICK = ("falcon_h1", "gemma4_text", "glm4", "granite", "llama", "nemotron_h")
WRITE_OTHERWISE = (
    "falcon_h1",
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
    "gemma4_unified_text",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "minimax",
)
"""A state space beside attention, inputs by layer and a scaled stream, two feed-forward parts beside each other, a
stream that is itself multiplied."""
WITHOUT_WEIGHTS = (
    "falcon",
    "falcon_mamba",
    "granitemoehybrid",
    "jamba",
    "lfm2",
    "lfm2_moe",
    "lfm2_vl",
    "mamba",
    "mamba2",
    "minimax",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
)
"""A state space, a convolution or linear attention mixes the tokens of some layers, or nothing does; Falcon hands no
weights out."""


@pytest.fixture
def of_type(tmp_path):
    """`of_type(architecture)`: a tiny model in float32."""

    def make(architecture):
        folder = architectures.build(architecture, tmp_path / "m")
        return load(resolve(parse_model(str(folder)), store=Store(tmp_path / "store")), dtype=torch.float32)

    return make


def inputs_of(loaded, architecture):
    """What every product reads, each text on its own; Mamba's steps, whose module nobody calls, by another way."""
    quantized = architecture in {"falcon_mamba", "jamba"}
    if quantized:
        loaded.model.config._is_quantized = True  # then these call the module
    plain = Recorded(loaded, TEXTS)
    if quantized:
        del loaded.model.config._is_quantized

    def of(name):
        path, _, product = name.rpartition(".")
        if architecture == "mamba" and product == "dt_proj":
            return plain.output(f"{path}.x_proj")[:, : loaded.model.get_parameter(f"{name}.weight").shape[1]]
        return plain.input(name)

    return of


@pytest.mark.parametrize(
    "architecture", architectures.every_type("falcon_mamba", "jamba", "mamba", "olmo2", "qwen3_moe")
)
def test_inputs_and_errors_of_every_product_of_every_type_are_those_of_a_plain_computation(architecture, of_type):
    loaded = of_type(architecture)
    found, peaks = measure(loaded, TEXTS, language="xx"), spike_peaks(loaded, TEXTS)
    deltas = {linear.name: rounding_error(loaded, linear) for linear in loaded.anatomy.linears}
    errors = dict(zip(deltas, measure_errors(loaded, TEXTS, "xx", {"s": deltas})["s"].relative, strict=True))
    inputs = inputs_of(loaded, architecture)
    names = {linear.name for linear in loaded.anatomy.linears}
    assert set(found.input_square) == set(found.input_peak) == set(peaks) == names
    for linear in loaded.anatomy.linears:
        assert errors[linear.name] > 0
        if linear.experts:  # see test_experts.py
            continue
        x_NI, name = inputs(linear.name), linear.name
        w_OI = linear.matrix(loaded.model.get_parameter(linear.parameter)).double().numpy()
        np.testing.assert_allclose(found.input_square[name], (x_NI**2).mean(axis=0), rtol=2e-4, atol=1e-8)
        np.testing.assert_allclose(found.input_peak[name], np.abs(x_NI).max(axis=0), rtol=2e-4, atol=1e-5)
        lost = ((x_NI @ deltas[name].double().numpy().T) ** 2).sum() / ((x_NI @ w_OI.T) ** 2).sum()
        assert errors[name] == pytest.approx(lost, rel=1e-3)
        assert peaks[name].inputs.shape == (w_OI.shape[1],)
        assert peaks[name].outputs.shape == (w_OI.shape[0],)
        assert (peaks[name].inputs >= found.input_peak[name] * (1 - 1e-4)).all()


def rounding_error(loaded, linear):
    w_OI = linear.matrix(loaded.model.get_parameter(linear.parameter)).detach().contiguous()
    return w_OI - quantize(w_OI, parse_spec("int4-row").grid).values


def test_a_product_that_does_not_run_is_named_and_not_measured_as_nothing(of_type, monkeypatch):
    loaded = of_type("mamba")
    monkeypatch.setattr("evenbits.observe.activations.hooks.UNCALLED", ())
    with pytest.raises(
        ModelError, match=r"layers\.0\.mixer\.dt_proj.* of a MambaForCausalLM did not run as modules do"
    ):
        measure(loaded, TEXTS, language="xx")


@pytest.mark.parametrize("architecture", architectures.every_type(*QUICK))
def test_writes_of_every_type_are_what_its_layers_add_or_are_refused(architecture, of_type):
    found = measure(of_type(architecture), TEXTS, language="xx")
    assert (found.sink_mass is None) == (found.head_norm is None) == (architecture in WITHOUT_WEIGHTS)
    if architecture in WRITE_OTHERWISE:
        assert (found.unexplained > 0.05).any()
        with pytest.raises(
            NotApplicableError,
            match=r"what layer \d adds to the residual stream is not .* write: the difference is \d+%",
        ):
            found.writes()
        assert language_features(found)["layer_usage_entropy"] is None
        return
    assert found.unexplained.max() < 1e-3
    np.testing.assert_array_equal(found.writes()[0], found.attention_write + found.mlp_write)


def test_a_stream_in_half_precision_is_not_taken_for_something_else_that_is_added():
    """The stream is a hundred times as large as what is added to it: bfloat16 rounds a third of that away."""
    rng = torch.Generator().manual_seed(0)
    h_ND, a_ND, m_ND = (torch.randn(64, 32, generator=rng) * scale for scale in (100, 1, 1))
    h_ND = h_ND.bfloat16()
    out_ND = (h_ND + a_ND.bfloat16()) + m_ND.bfloat16()
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        sums = WriteSums(1, parallel=False, device=torch.device("cpu"))
        told = (x.bfloat16().float() for x in (h_ND, a_ND, m_ND, out_ND))
        sums.add(0, *told, dtype=dtype)
        found[dtype] = float(sums.finish(64).unexplained[0])
    assert found[torch.bfloat16] == 0
    assert found[torch.float32] > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sink_mass_equals_the_models_own_attention_to_its_first_token(architecture, load_tiny):
    loaded = load_tiny(architecture)
    found = measure(loaded, TEXTS, language="xx", sink_segments=3)
    before = loaded.model.config._attn_implementation
    masses = []
    loaded.model.set_attn_implementation("eager")
    for text in TEXTS[:3]:
        ids = [loaded.tokenizer.bos_token_id, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            weights = loaded.model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
        masses.append(np.stack([w[0, :, 1:, 0].double().numpy() for w in weights]))  # [L, H, T - 1]
    loaded.model.set_attn_implementation(before)
    expected = np.concatenate(masses, axis=2).mean(axis=2)
    np.testing.assert_allclose(found.sink_mass, expected, rtol=1e-3, atol=1e-6)
    assert found.sink_segments == 3


def count_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_the_model_is_left_without_new_hooks_and_with_its_own_attention(load_tiny):
    loaded = load_tiny()
    attention = loaded.model.config._attn_implementation
    ids = torch.tensor([[0, 5, 6, 7]])
    before = loaded.model(ids).logits
    hooks = count_hooks(loaded.model)
    measure(loaded, TEXTS, language="xx")
    assert loaded.model.config._attn_implementation == attention
    assert count_hooks(loaded.model) == hooks
    assert torch.equal(loaded.model(ids).logits, before)


def test_batches_of_any_size_give_the_same_statistics(load_tiny):
    loaded = load_tiny()
    small, large = (measure(loaded, TEXTS, language="xx", batch_tokens=n) for n in (1, 4096))
    for name, square in small.input_square.items():
        np.testing.assert_allclose(square, large.input_square[name], rtol=1e-4)
    np.testing.assert_allclose(small.participation, large.participation, rtol=1e-3)
    np.testing.assert_allclose(small.half_prediction, large.half_prediction, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(small.sink_mass, large.sink_mass, rtol=1e-4, atol=1e-7)


def test_packed_batches_give_what_padded_ones_give(loaded_tiny, monkeypatch):
    loaded = loaded_tiny
    assert packs(loaded)
    packed = measure(loaded, TEXTS, language="xx")
    monkeypatch.setattr(collection, "packs", lambda _loaded: False)
    padded = measure(loaded, TEXTS, language="xx")
    for field in fields(packed):
        one, other = getattr(packed, field.name), getattr(padded, field.name)
        if isinstance(one, Mapping):
            assert one.keys() == other.keys()
            one, other = (list(each.values()) for each in (one, other))
        for array, expected in zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]:
            if isinstance(array, np.ndarray):
                np.testing.assert_allclose(array, expected, rtol=2e-4, atol=1e-5, err_msg=field.name)
            else:
                assert array == expected, field.name


def test_a_module_that_the_lean_forward_does_not_call_is_named(loaded_tiny):
    loaded = loaded_tiny
    (batch,) = batches_of(loaded, sequences_of(loaded, ["abcd", "zz"], language="xx"), tokens=100, packed=True)
    with pytest.raises(ValueError, match="self_attn"):
        read(loaded, batch, after={loaded.anatomy.blocks[0].attention: print})


def test_participation_follows_the_covariance_of_hidden_states(load_tiny):
    """With many tokens the correction for few tokens is small: both forms agree to a few per cent."""
    loaded = load_tiny()
    rng = np.random.default_rng(0)
    texts = ["".join(chr(c) for c in rng.integers(97, 123, 120)) for _ in range(12)]
    found, plain = measure(loaded, texts, language="xx"), Recorded(loaded, texts)
    for layer, name in enumerate(loaded.anatomy.layers):
        h = plain.output(name)
        assert found.participation[layer] == pytest.approx(participation_ratio(np.cov(h.T)), rel=0.05)


def test_a_segment_longer_than_the_context_is_read_in_runs_and_never_cut(load_tiny):
    loaded = load_tiny()  # 256 positions
    text = "a b" * 400
    count = len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    sequences = sequences_of(loaded, [text], language="xx")
    assert max(len(s) for s in sequences) == 256
    assert sum(len(s) - 1 for s in sequences) == count
    assert {s.ids[0] for s in sequences} == {loaded.tokenizer.bos_token_id}
    assert measure(loaded, [text, "short"], language="xx").tokens[0] == count


def test_text_positions_of_a_batch_are_neither_prefix_nor_padding(load_tiny):
    loaded = load_tiny()
    sequences = sequences_of(loaded, ["abcd", "zz"], language="xx")
    (batch,) = batches_of(loaded, sequences, tokens=100)
    flat = batch.ids.reshape(-1)[batch.real].tolist()
    assert flat == [*sequences[0].ids[1:], *sequences[1].ids[1:]]
    assert batch.segments.tolist() == [0] * (len(sequences[0]) - 1) + [1] * (len(sequences[1]) - 1)


def test_statistics_are_stored_and_read_back_whole(load_tiny, store):
    loaded = load_tiny()
    first = activation_statistics(loaded, TEXTS, language="xx", store=store)
    again = activation_statistics(loaded, TEXTS, language="xx", store=store)
    assert (store.misses, store.hits) == (1, 1)
    np.testing.assert_array_equal(first.segment_state, again.segment_state)
    assert set(first.input_square) == {linear.name for linear in loaded.anatomy.linears} == set(again.input_square)
    for name, square in first.input_square.items():
        np.testing.assert_array_equal(square, again.input_square[name])
    activation_statistics(loaded, (*TEXTS[:-1], "other"), language="xx", store=store)
    assert store.misses == 2


def test_a_corpus_gives_statistics_and_token_parity_per_language(load_tiny, store):
    corpus = Corpus(
        name="c",
        source="test",
        languages=("en", "ru"),
        segment_ids=("a", "b"),
        texts={"en": ("good morning", "yes"), "ru": ("доброе утро", "да")},
    )
    found = activations(load_tiny(), corpus, store=store)
    parity = token_parity(found)
    assert parity["en"] == 1
    assert parity["ru"] == found["ru"].tokens.sum() / found["en"].tokens.sum()
    assert found["ru"].energy("model.layers.0.mlp.down_proj").sum() == pytest.approx(1)
    with pytest.raises(CorpusError, match="relative to en, which was not measured"):
        token_parity({"ru": found["ru"]})


def test_activations_that_overflow_name_the_module_and_the_language(tiny_model, tmp_path):
    loaded = load(resolve(parse_model(str(tiny_model("llama"))), store=Store(tmp_path)), dtype=torch.float32)
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.up_proj.weight.fill_(1e38)
    with pytest.raises(NonFiniteError, match=r"layers\.\d\.\S+ are not finite on the texts in xx"):
        measure(loaded, TEXTS, language="xx")


def test_no_text_and_text_without_tokens_are_refused(load_tiny):
    with pytest.raises(CorpusError, match="no segments in xx"):
        measure(load_tiny(), [], language="xx")
    with pytest.raises(CorpusError, match="segment 1 in xx has no token"):
        measure(load_tiny(), ["a", ""], language="xx")


def test_features_of_a_language_come_from_its_statistics_and_from_a_reference(load_tiny):
    loaded = load_tiny()
    found = measure(loaded, TEXTS, language="xx")
    features = language_features(found, reference=measure(loaded, TEXTS[::-1], language="en"))
    assert features["participation_early"] == pytest.approx(found.participation[:2].mean())  # 4 layers: 2, 1, 1
    assert features["participation_late"] == found.participation[3]
    assert features["sink_mass"] == pytest.approx(found.sink_mass.mean())
    expected = np.mean([aligned_similarity(state, state[::-1]) for state in found.segment_state])
    assert features["reference_similarity"] == pytest.approx(expected, abs=1e-4)
    assert language_features(found)["reference_similarity"] is None
    assert language_features(found, reference=found)["reference_similarity"] > features["reference_similarity"]
    alone = language_features(measure(loaded, TEXTS[:1], language="xx"))
    assert alone["half_prediction"] is None
    assert None not in {features[name] for name in features}
