"""Which type each tensor of a label gets. What llama.cpp's own quantizer writes is the reference, where one is here."""

import re

import architectures
import pytest
from evenbits.errors import SpecError
from evenbits.models.outline import outline_anatomy
from evenbits.variants.gguf_rounding import _first_group, parse_gguf_rounding, planned_types
from evenbits.variants.gguf_types import FILE_TYPES, GgufShape, TensorRow, choose_types, tensor_role
from llama_cpp_builds import needs_llama_cpp
from transformers import FalconConfig, Lfm2Config, LlamaConfig


def llama(*, layers, columns=256, tied=True):
    """The matrices of a llama; rows and columns all alike."""
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = ["token_embd.weight", *([] if tied else ["output.weight"])]
    names += [f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts]
    return [TensorRow(name=name, rows=columns, columns=columns) for name in names]


def layers_with(chosen, part, kind):
    return [int(name.split(".")[1]) for name, found in chosen.items() if f".{part}." in name and found == kind]


def test_q4_k_m_gives_more_bits_to_the_ends_and_every_third_layer_between():
    chosen = choose_types(llama(layers=16), "Q4_K_M", GgufShape(layers=16, group=1))
    # first eighth: 0, 1; last eighth: 14, 15; between, (layer - 2) % 3 == 2: 4, 7, 10, 13
    assert layers_with(chosen, "ffn_down", "Q6_K") == [0, 1, 4, 7, 10, 13, 14, 15]
    assert layers_with(chosen, "attn_v", "Q6_K") == [0, 1, 4, 7, 10, 13, 14, 15]
    assert {chosen["token_embd.weight"]} == {"Q6_K"}  # tied: it is the head, too
    assert chosen["blk.3.attn_q.weight"] == "Q4_K"


def test_an_untied_embedding_is_not_rounded_as_the_head_is():
    chosen = choose_types(llama(layers=2, tied=False), "Q4_K_M", GgufShape(layers=2, group=1))
    assert [chosen["output.weight"], chosen["token_embd.weight"]] == ["Q6_K", "Q4_K"]


def test_rows_that_are_no_multiple_of_256_fall_back_to_other_types():
    """The label stays: a Q4_K_M of a model 640 wide holds Q5_0 and Q8_0."""
    chosen = choose_types(llama(layers=8, columns=640), "Q4_K_M", GgufShape(layers=8, group=1))
    assert set(chosen.values()) == {"Q5_0", "Q8_0"}
    assert (
        choose_types(llama(layers=1, columns=48), "Q8_0", GgufShape(layers=1, group=1))["blk.0.attn_q.weight"] == "F16"
    )  # not even blocks of 32


def test_shared_value_heads_get_more_bits():
    def values(group, file_type="IQ4_XS"):
        return choose_types(llama(layers=1), file_type, GgufShape(layers=1, group=group))["blk.0.attn_v.weight"]

    assert (values(1), values(4)) == ("IQ4_XS", "Q5_K")


def falcon(file_type, *, tied=False):
    parts = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    names = ["token_embd.weight", *([] if tied else ["output.weight"])]
    names += [f"blk.{layer}.{part}.weight" for layer in range(32) for part in parts]
    rows = [TensorRow(name=name, rows=256, columns=256) for name in names]
    return choose_types(rows, file_type, GgufShape(layers=32, group=71, falcon=True))


def test_falcon_has_rules_of_its_own():
    """As llama.cpp's quantizer writes them: the head in 8 bits, less for ffn_down and attn_output."""
    chosen = falcon("Q4_K_M")
    assert [chosen["output.weight"], falcon("Q2_K", tied=True)["token_embd.weight"]] == ["Q8_0", "Q8_0"]
    # of 32 layers the first sixteenth: 0, 1; the ends: 2, 3, 28 to 31; between, (layer - 4) % 3 == 2: 6, 9, ..., 27
    assert layers_with(chosen, "ffn_down", "Q6_K") == [0, 1]
    assert layers_with(chosen, "ffn_down", "Q5_K") == [2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert layers_with(falcon("Q3_K_M"), "ffn_down", "Q3_K") == layers_with(chosen, "ffn_down", "Q4_K")
    assert layers_with(falcon("Q4_K_S"), "ffn_down", "Q5_K") == []
    outputs = {label: falcon(label)["blk.0.attn_output.weight"] for label in ("Q2_K", "Q3_K_M", "Q3_K_L")}
    assert outputs == {"Q2_K": "Q2_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q4_K"}


def lfm2(layer_types):
    return Lfm2Config(num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, layer_types=layer_types)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(num_attention_heads=8, num_key_value_heads=2), 4),
        (FalconConfig(num_attention_heads=71), 71),  # one key-value head for all of them
        (FalconConfig(num_attention_heads=8, num_kv_heads=2, new_decoder_architecture=True), 4),
        (FalconConfig(num_attention_heads=8, multi_query=False), 1),
        (lfm2(["conv", "full_attention"]), 0),
        (lfm2(["full_attention", "conv"]), 4),
    ],
)
def test_heads_are_shared_as_in_the_first_layer(config, expected):
    """llama.cpp asks that layer alone, and a convolution has no such heads."""
    assert _first_group(config) == expected


def test_an_override_is_found_anywhere_in_the_name_and_the_first_one_decides():
    chosen = choose_types(
        llama(layers=12),
        "Q4_K_S",
        GgufShape(layers=12, group=1),
        overrides=(("blk\\.1\\.", "Q8_0"), ("ffn_down", "F16")),
    )
    assert chosen["blk.1.ffn_down.weight"] == "Q8_0"
    assert chosen["blk.11.ffn_down.weight"] == "F16"
    assert chosen["blk.10.attn_q.weight"] == "Q4_K"
    # Q4_K_S spends Q5_K on the first four value matrices that no override names: 0, 2, 3, 4
    assert layers_with(chosen, "attn_v", "Q5_K") == [0, 2, 3, 4]


def test_types_that_need_an_imatrix_are_refused_without_one():
    with pytest.raises(SpecError, match=r"IQ2_XXS \(blk.0.attn_k.weight\) only with .* write gguf:IQ2_XXS@imatrix"):
        choose_types(llama(layers=1), "IQ2_XXS", GgufShape(layers=1, group=1))


def test_an_unknown_label_lists_the_known_ones():
    with pytest.raises(SpecError, match=re.escape(", ".join(FILE_TYPES[:3]))):
        choose_types([], "Q9_K", GgufShape(layers=1, group=1))


def test_roles_are_those_of_the_names():
    assert tensor_role("blk.3.attn_qkv.weight") == "attn_qkv"
    assert tensor_role("blk.3.ffn_down_exps.weight") == "ffn_down"
    assert tensor_role("blk.3.attn_q_norm.weight") == "other"


LABELS = ["Q4_K_M", "Q3_K_L", "IQ4_XS", "Q5_0"]


@needs_llama_cpp
@pytest.mark.parametrize(
    "label", [*LABELS, *(pytest.param(x, marks=pytest.mark.slow) for x in FILE_TYPES if x not in LABELS)]
)
@pytest.mark.parametrize("imatrix", [False, True])
def test_types_and_bytes_are_those_of_llama_cpps_quantizer(label, imatrix, tiny_model, tmp_path):
    import gguf
    import numpy as np
    import tiny_models
    from evenbits.errors import EngineError
    from evenbits.variants.llama_cpp.quantizing import quantize_file

    libgguf = pytest.importorskip("libgguf", reason="needs libgguf: pip install 'evenbits[backends]'")
    folder = tiny_model("llama", layers=9, hidden=256)
    source = tiny_models.build_gguf(folder, tmp_path / "f32.gguf")
    matrices = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors if len(tensor.shape) > 1}
    rows = [TensorRow(name=n, rows=int(t.shape[1]), columns=int(t.shape[0])) for n, t in matrices.items()]
    rng = np.random.default_rng(0)
    weights = {row.name: rng.uniform(0.1, 2, row.columns).astype(np.float32) for row in rows if "blk" in row.name}
    given = weights if imatrix else None
    try:
        expected = choose_types(rows, label, GgufShape(layers=9, group=2), imatrix=imatrix)
    except SpecError:
        with pytest.raises(EngineError):  # both refuse
            quantize_file(source, tmp_path / "q.gguf", label, imatrix=given)
        return
    quantize_file(source, tmp_path / "q.gguf", label, imatrix=given)
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    assert {name: written[name].tensor_type.name for name in expected} == expected
    for name, tensor in matrices.items():
        ours = libgguf.quantize_rows(
            np.asarray(tensor.data), written[name].tensor_type, imatrix=(given or {}).get(name)
        )
        assert ours.tobytes() == written[name].data.tobytes(), name


@needs_llama_cpp
def test_a_quantizer_that_refuses_is_a_sentence_and_leaves_no_file(tmp_path):
    from evenbits.errors import EngineError
    from evenbits.variants.llama_cpp.quantizing import quantize_file

    (tmp_path / "bad.gguf").write_bytes(b"GGUF nothing more")
    with pytest.raises(EngineError, match=r"could not write q.gguf as Q8_0"):
        quantize_file(tmp_path / "bad.gguf", tmp_path / "q.gguf", "Q8_0")
    assert not (tmp_path / "q.gguf").exists()


def test_models_with_experts_are_refused_with_what_to_do(tmp_path):
    anatomy = outline_anatomy(architectures.build("qwen3_moe", tmp_path / "model"))
    with pytest.raises(SpecError, match=r"gguf:Q4_K_M: .* in models with experts, .* --spec gguf:FILE"):
        planned_types(parse_gguf_rounding("gguf:Q4_K_M"), anatomy, {}, None)
