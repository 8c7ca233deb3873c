"""Changing a model for a while and putting every byte back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evenbits.errors import NonFiniteError, SpecError, UsageError
from evenbits.models.device import CPU
from evenbits.models.layout import anatomy_of
from evenbits.variants.quantization.grids import quantize
from evenbits.variants.quantization.importance import MeasuredImportance
from evenbits.variants.quantization.matrices import quantize_planned
from evenbits.variants.quantization.patching import patched, plan_for, plan_loaded, quantized, zeroed
from evenbits.variants.quantization.spec import parse_spec

RAW = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def tiny(kind, *, tied=True):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=2))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=tied,
        )
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved = {}
    for kind in ("llama", "gpt2"):
        saved[kind] = tmp_path_factory.mktemp(kind)
        tiny(kind).save_pretrained(saved[kind])
    return saved


@pytest.fixture
def load(folders):
    def loaded(kind="llama", dtype=torch.float32, *, tied=True):
        model = tiny(kind, tied=tied).to(dtype).eval()
        local = SimpleNamespace(folder=folders[kind], allow_code=False)
        return SimpleNamespace(local=local, model=model, anatomy=anatomy_of(model), dtype=dtype, device=CPU)

    return loaded


def bytes_of(loaded):
    parameters = loaded.model.named_parameters(remove_duplicate=False)
    return {name: parameter.detach().view(RAW[parameter.dtype]).clone() for name, parameter in parameters}


def same(before, after):
    return set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)


def changed(before, loaded):
    after = bytes_of(loaded)
    return {name for name in before if not torch.equal(before[name], after[name])}


def linears(loaded, start=""):
    return {f"{linear.name}.weight" for linear in loaded.anatomy.linears if linear.name.startswith(start)}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exactly_the_decoder_linears_change_and_every_byte_comes_back(load, kind, dtype):
    loaded = load(kind, dtype)
    before, memory = bytes_of(loaded), {n: p.data_ptr() for n, p in loaded.model.named_parameters()}
    with quantized(loaded, parse_spec("int4-g16")):
        assert changed(before, loaded) == linears(loaded)
        assert all(parameter.dtype == dtype for parameter in loaded.model.parameters())
    assert same(before, bytes_of(loaded))
    assert {n: p.data_ptr() for n, p in loaded.model.named_parameters()} == memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_byte_comes_back_after_an_exception(load, dtype):
    loaded = load(dtype=dtype)
    before = bytes_of(loaded)
    with pytest.raises(KeyboardInterrupt), quantized(loaded, parse_spec("int2-row+include:head")):
        raise KeyboardInterrupt
    assert same(before, bytes_of(loaded))
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_every_byte_comes_back_when_quantizing_itself_fails_half_way(load):
    loaded = load()
    before = bytes_of(loaded)
    last = loaded.anatomy.linears[-1].name

    def source(name):
        weight = loaded.model.get_submodule(name).weight.detach()
        return weight * float("nan") if name == last else weight

    with pytest.raises(NonFiniteError, match=last), quantized(loaded, parse_spec("int4-row"), source=source):
        pytest.fail("a model with NaN must not be scored")
    assert same(before, bytes_of(loaded))


def test_a_model_in_bf16_is_quantized_from_the_checkpoint_in_float32(load):
    loaded = load(dtype=torch.bfloat16)
    name = loaded.anatomy.linears[0].name
    own = tiny("llama").get_submodule(name).weight.detach()  # what was saved, in float32
    spec = parse_spec("int4-g16")
    with quantized(loaded, spec):
        used = loaded.model.get_submodule(name).weight.detach().clone()
    assert torch.equal(used, quantize(own, spec.grid).values.bfloat16())
    from_rounded = quantize(own.bfloat16().float(), spec.grid).values.bfloat16()
    assert not torch.equal(used, from_rounded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transposed_matrix_is_quantized_along_its_inputs(load, dtype):
    loaded = load("gpt2", dtype)
    name = "transformer.h.0.mlp.c_fc"  # stored I x O = 32 x 128
    own_IO = tiny("gpt2").get_submodule(name).weight.detach()
    spec = parse_spec("int3-g16")
    with quantized(loaded, spec):
        used_IO = loaded.model.get_submodule(name).weight.detach().clone()
    assert used_IO.shape == (32, 128)
    assert torch.equal(used_IO, quantize(own_IO.t().contiguous(), spec.grid).values.t().to(dtype))


def test_a_tied_head_is_untied_for_the_duration(load):
    loaded = load()
    before = bytes_of(loaded)
    with quantized(loaded, parse_spec("int4-g16+only:lm_head+include:head")):
        assert changed(before, loaded) == {"lm_head.weight"}
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    with quantized(loaded, parse_spec("int4-g16+include:embedding+protect:model.layers")):
        assert changed(before, loaded) == {"model.embed_tokens.weight"}
    with quantized(loaded, parse_spec("int4-g16+include:embedding+include:head")):
        assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
        assert changed(before, loaded) == linears(loaded) | {"lm_head.weight", "model.embed_tokens.weight"}
    assert same(before, bytes_of(loaded))


def test_an_untied_head_keeps_its_bytes(load):
    loaded = load(tied=False)
    before = bytes_of(loaded)
    with quantized(loaded, parse_spec("int4-g16")):
        assert changed(before, loaded) == linears(loaded)


def test_protection_and_selection_name_what_changes(load):
    loaded = load()
    before = bytes_of(loaded)
    with quantized(loaded, parse_spec("int4-g16+protect:model.layers.0")):
        assert changed(before, loaded) == linears(loaded, "model.layers.1.")
    with quantized(loaded, parse_spec("int4-g16+only:model.layers.0.mlp")):
        assert changed(before, loaded) == linears(loaded, "model.layers.0.mlp")
    with quantized(loaded, parse_spec("none")):
        assert not changed(before, loaded)


def test_the_outputs_change_and_come_back(load):
    loaded = load()
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        full = loaded.model(tokens).logits
        with quantized(loaded, parse_spec("int2-row")):
            assert not torch.equal(loaded.model(tokens).logits, full)
        assert torch.equal(loaded.model(tokens).logits, full)


@pytest.mark.parametrize("scope", ["", "@global"])
def test_as_many_weights_are_kept_as_the_plan_says(load, scope):
    loaded = load()
    spec = parse_spec(f"int2-row+keep5%:magnitude{scope}")
    own = {linear.name: loaded.model.get_submodule(linear.name).weight.detach() for linear in loaded.anatomy.linears}
    kept = {matrix.name: matrix.kept for matrix in quantize_planned(plan_loaded(loaded, spec), own.__getitem__)}
    with quantized(loaded, spec) as plan:
        used = {name: loaded.model.get_submodule(name).weight.detach().reshape(-1) for name in own}
    if scope:  # 5 % of all 18432 together is 921.6
        assert plan.kept_globally == sum(map(len, kept.values())) == 922
    else:
        assert [tensor.kept for tensor in plan.quantized] == [len(kept[tensor.name]) for tensor in plan.quantized]
    for name, places in kept.items():
        assert torch.equal(used[name][places], own[name].reshape(-1)[places].half().float())
    left = {name: own[name].abs().reshape(-1).index_fill(0, places, 0) for name, places in kept.items()}
    if scope:  # one threshold for all tensors
        assert max(map(torch.max, left.values())) <= min(own[name].view(-1)[kept[name]].abs().min() for name in own)
    else:
        assert all(left[name].max() <= own[name].view(-1)[kept[name]].abs().min() for name in own)


def test_random_retention_follows_the_seed(load):
    loaded = load()
    spec = parse_spec("int2-row+keep5%:random")
    runs = []
    for seed in (0, 0, 1):
        with quantized(loaded, spec, seed=seed):
            runs.append(bytes_of(loaded))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_language_aware_specs_use_the_measurements_of_their_languages(load):
    loaded = load()
    rng = np.random.default_rng(0)
    moments = {
        tag: {
            linear.name: rng.random(loaded.model.get_submodule(linear.name).weight.shape[1]) ** 8
            for linear in loaded.anatomy.linears
        }
        for tag in ("de", "ka")
    }
    importance = MeasuredImportance(second_moment=moments)
    for form in ("int2-row+keep5%:activation[{}]", "int2-row+clip:mse[{}]"):
        runs = []
        for tag in ("de", "ka"):
            with quantized(loaded, parse_spec(form.format(tag)), importance=importance):
                runs.append(bytes_of(loaded))
        assert not same(*runs)


def test_a_spec_without_its_measurements_is_refused_and_nothing_changes(load):
    loaded = load()
    before = bytes_of(loaded)
    for text in ("int4-row+keep1%:activation", "int4-row+clip:mse[de]", "int4-row+keep1%:sensitivity@global"):
        with pytest.raises(SpecError, match="needs measurements"), quantized(loaded, parse_spec(text)):
            pytest.fail("must not be entered")
    assert same(before, bytes_of(loaded))


def test_a_group_that_does_not_divide_a_layer_is_refused_by_name(load):
    loaded = load()
    with pytest.raises(SpecError, match=r"model\.layers\.0\.self_attn\.q_proj has 32 inputs"):
        plan_loaded(loaded, parse_spec("int4-g64"))


def test_quantizing_a_quantized_model_is_refused(load):
    loaded = load()
    spec = parse_spec("int4-row")
    with quantized(loaded, spec):
        before = bytes_of(loaded)
        with pytest.raises(UsageError, match="patched already"), quantized(loaded, spec):
            pytest.fail("must not be entered")
        assert same(before, bytes_of(loaded))


def test_different_layers_can_be_quantized_one_inside_the_other(load):
    loaded = load()
    before = bytes_of(loaded)
    with quantized(loaded, parse_spec("int4-row+only:model.layers.0")):
        outer = bytes_of(loaded)
        with quantized(loaded, parse_spec("int2-row+only:model.layers.1")):
            assert changed(before, loaded) == linears(loaded)
        assert same(outer, bytes_of(loaded))
    assert same(before, bytes_of(loaded))


def test_zeroing_happens_inside_a_quantized_model_and_is_undone(load):
    loaded = load("gpt2")
    before = bytes_of(loaded)
    name = "transformer.h.0.mlp.c_fc"  # O x I = 128 x 32
    with quantized(loaded, parse_spec("int4-row")):
        inner = bytes_of(loaded)
        assert inner[f"{name}.weight"][0, 0] != 0
        assert inner[f"{name}.weight"][7, 6] != 0
        with zeroed(loaded, {name: torch.tensor([0, 6 * 32 + 7])}):
            w_IO = loaded.model.get_submodule(name).weight
            assert w_IO[0, 0] == 0
            assert w_IO[7, 6] == 0
            assert int((w_IO.view(torch.int32) != inner[f"{name}.weight"]).sum()) == 2
            assert changed(inner, loaded) == {f"{name}.weight"}
        assert same(inner, bytes_of(loaded))
    assert same(before, bytes_of(loaded))


def test_any_parameter_can_be_patched_by_its_path(load):
    loaded = load("gpt2", torch.bfloat16)
    before = bytes_of(loaded)
    values_OI = torch.arange(128.0 * 32).view(128, 32)
    with patched(
        loaded,
        {"transformer.h.0.mlp.c_fc": values_OI, "transformer.ln_f.bias": torch.ones(32), "lm_head": torch.ones(96, 32)},
    ):
        assert torch.equal(loaded.model.transformer.h[0].mlp.c_fc.weight, values_OI.t().bfloat16())
        assert changed(before, loaded) == {"transformer.h.0.mlp.c_fc.weight", "transformer.ln_f.bias", "lm_head.weight"}
    assert same(before, bytes_of(loaded))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("model.nothing", torch.ones(1), "no module or parameter|no parameter"),
        ("model.layers.0", torch.ones(1), "no parameter"),
        ("model.norm", torch.ones(31), r"shape \(32,\), the patch has \(31,\)"),
    ],
)
def test_an_impossible_patch_is_refused_by_name(load, name, values, message):
    loaded = load()
    before = bytes_of(loaded)
    good = torch.ones(32)
    with (
        pytest.raises(UsageError, match=message),
        patched(loaded, {"model.layers.0.input_layernorm": good, name: values}),
    ):
        pytest.fail("must not be entered")
    assert same(before, bytes_of(loaded))


def test_places_outside_a_matrix_are_refused(load):
    loaded = load()
    name = loaded.anatomy.linears[0].name
    for place in (-1, 32 * 32):
        with pytest.raises(UsageError, match="indices must be 0 to 1023"), zeroed(loaded, {name: [place]}):
            pytest.fail("must not be entered")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_plan_from_the_folder_equals_the_plan_of_the_loaded_model(load, kind):
    loaded = load(kind)
    spec = parse_spec("int4-g16+keep1%:magnitude")
    assert plan_for(loaded.local, spec) == plan_loaded(loaded, spec)
