import numpy as np
import pytest
import torch
from evenbits.errors import SpecError
from evenbits.variants.gguf_rounding import GgufRounding, gguf_names, parse_gguf_rounding, rounded, rounded_rows
from evenbits.variants.quantization.importance import MeasuredImportance

libgguf = pytest.importorskip("libgguf", reason="needs libgguf: pip install 'evenbits[backends]'")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("gguf:Q4_K_M", "gguf:Q4_K_M"),
        ("gguf:Q4_K", "gguf:Q4_K_M"),
        ("gguf:IQ4_XS@imatrix", "gguf:IQ4_XS@imatrix"),
        ("gguf:Q3_K_S@imatrix[fr,de]", "gguf:Q3_K_S@imatrix[de,fr]"),
        ("gguf:Q3_K_S+protect:model.layers.1+protect:model.layers.0", None),
    ],
)
def test_the_text_round_trips(text, canonical):
    spec = parse_gguf_rounding(text)
    assert str(spec) == (canonical or "gguf:Q3_K_S+protect:model.layers.0+protect:model.layers.1")
    assert parse_gguf_rounding(str(spec)) == spec


@pytest.mark.parametrize("text", ["gguf:model.gguf", "gguf:/tmp/Q4_K_M.gguf", "gguf:Q9_K"])
def test_what_is_no_file_type_is_left_to_others(text):
    assert parse_gguf_rounding(text) is None


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "Q5_0", "F16"])
def test_rounded_rows_are_what_gguf_reads_from_the_file(kind):
    import gguf

    rows = np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32)
    ours = rounded_rows(rows, kind)
    if kind == "F16":
        np.testing.assert_array_equal(ours, rows.astype(np.float16))
        return
    packed = libgguf.quantize_rows(rows, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(ours, gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind]))
    assert 0 < np.abs(ours - rows).max() < 0.5


def test_an_imatrix_moves_error_to_the_columns_that_matter_less():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(64, 256)).astype(np.float32)
    weight = np.ones(256, dtype=np.float32)
    weight[::2] = 100.0
    plain, guided = rounded_rows(rows, "Q3_K"), rounded_rows(rows, "Q3_K", imatrix=weight)

    def error(values):
        return ((values - rows) ** 2)[:, ::2].mean()

    assert error(guided) < 0.9 * error(plain)


def test_every_matrix_of_the_file_is_rounded_and_put_back(loaded_tiny):
    before = {name: parameter.clone() for name, parameter in loaded_tiny.model.named_parameters()}
    with rounded(loaded_tiny, GgufRounding(file_type="Q8_0")) as plan:
        for name, parameter in loaded_tiny.model.named_parameters():
            # a tied head appears as a parameter of its own while it is patched
            changed = not torch.equal(parameter, before.get(name, before["model.embed_tokens.weight"]))
            assert changed == (parameter.ndim == 2), name
        head, embedding = loaded_tiny.anatomy.head, loaded_tiny.anatomy.embedding
        tied = [loaded_tiny.model.get_submodule(path).weight for path in (head, embedding)]
        torch.testing.assert_close(*tied, rtol=0, atol=0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in loaded_tiny.model.named_parameters())
    assert plan.census.tensors == {"Q8_0": 22}  # 3 layers of 7 matrices, and the embedding
    assert plan.census.bits_per_weight == pytest.approx(8.5)  # 32 codes of 8 bits and a scale of 16


def test_a_protected_layer_stays_f16(loaded_tiny):
    spec = GgufRounding(file_type="Q4_0", protect=("model.layers.1",))
    module = loaded_tiny.model.model.layers[1].mlp.down_proj
    before = module.weight.clone()
    with rounded(loaded_tiny, spec) as plan:
        torch.testing.assert_close(module.weight, before.half().float(), rtol=0, atol=0)
        assert not torch.equal(loaded_tiny.model.model.layers[0].mlp.down_proj.weight.half().float(), before)
    assert plan.census.tensors["F16"] == 7
    # layers have equal size: two at 4.5 bits (32 codes of 4 bits and a scale of 16), one at 16
    assert plan.census.bits_per_weight == pytest.approx((4.5 * 2 + 16) / 3)


def test_a_protected_name_that_matches_nothing_is_refused(loaded_tiny):
    spec = GgufRounding(file_type="Q4_0", protect=("model.layers.9",))
    with pytest.raises(SpecError, match=r"protect:model.layers.9 matches no matrix"), rounded(loaded_tiny, spec):
        pass


def test_the_imatrix_is_that_of_the_chosen_languages(loaded_tiny):
    names = [linear.name for linear in loaded_tiny.anatomy.linears]
    sizes = {name: loaded_tiny.model.get_submodule(name).weight.shape[1] for name in names}
    rng = np.random.default_rng(3)
    moments = {tag: {name: rng.uniform(0.01, 9, size) for name, size in sizes.items()} for tag in ("de", "fr")}
    importance = MeasuredImportance(second_moment=moments)
    found = {}
    for languages in ((), ("de",), ("fr",)):
        spec = GgufRounding(file_type="Q4_0", imatrix=True, languages=languages)
        with rounded(loaded_tiny, spec, importance=importance):
            found[languages] = loaded_tiny.model.get_submodule(names[0]).weight.clone()
    assert not torch.equal(found["de",], found["fr",])
    expected = rounded_rows(
        loaded_tiny.model.get_submodule(names[0]).weight.detach().numpy(),
        "Q4_0",
        imatrix=importance.input_rms(names[0], ("de",)).double().square().float().numpy(),
    )
    np.testing.assert_array_equal(found["de",].numpy(), expected)


def test_an_imatrix_without_text_to_measure_on_is_refused(loaded_tiny):
    spec = GgufRounding(file_type="Q4_0", imatrix=True)
    with pytest.raises(SpecError, match="probe texts"), rounded(loaded_tiny, spec):
        pass


@pytest.mark.parametrize(
    ("architecture", "module", "expected"),
    [
        ("gemma3_text", "model.layers.1.mlp.down_proj", "blk.1.ffn_down.weight"),
        ("gpt2", "transformer.h.0.attn.c_attn", "blk.0.attn_qkv.weight"),
        ("gpt_neox", "gpt_neox.layers.1.attention.dense", "blk.1.attn_output.weight"),
        ("bloom", "transformer.h.1.mlp.dense_4h_to_h", "blk.1.ffn_down.weight"),
        ("qwen3", "model.embed_tokens", "token_embd.weight"),
    ],
)
def test_modules_have_the_names_of_the_format(architecture, module, expected, tiny_model):
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline

    anatomy = anatomy_of(outline(tiny_model(architecture)))
    assert gguf_names([module], anatomy)[module] == expected


def test_an_architecture_without_gguf_names_is_refused(tiny_model):
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline

    with pytest.raises(SpecError, match="GGUF has no model of type xglm"):
        gguf_names([], anatomy_of(outline(tiny_model("xglm"))))
