"""Every supported architecture is taken apart completely: nothing found twice, nothing left out."""

from __future__ import annotations

import pytest
from evenbits.errors import ModelError
from evenbits.models.layout import anatomy_of
from tiny_models import ARCHITECTURES

LLAMA_LIKE = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "o_proj": "attention",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
FUSED = {"query_key_value": "attention", "dense": "attention", "dense_h_to_4h": "mlp", "dense_4h_to_h": "mlp"}
FAIRSEQ = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "out_proj": "attention",
    "fc1": "mlp",
    "fc2": "mlp",
}
ROLES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma3_text", "smollm3", "olmo2"), LLAMA_LIKE),
    **dict.fromkeys(("gpt_neox", "bloom"), FUSED),
    **dict.fromkeys(("opt", "xglm"), FAIRSEQ),
}
# GPT-2 has two products called c_proj, told apart by their part.
GPT2 = [("c_attn", "attention"), ("c_proj", "attention"), ("c_fc", "mlp"), ("c_proj", "mlp")]


def load_plain(folder):
    from evenbits.models.quiet import quiet_transformers
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_in_the_layers_is_found_exactly_once(architecture, tiny_model):
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    model = load_plain(tiny_model(architecture))
    anatomy = anatomy_of(model)
    expected = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and any(name.startswith(f"{layer}.") for layer in anatomy.layers)
    ]
    assert [linear.name for linear in anatomy.linears] == expected
    assert len(set(expected)) == len(expected)
    outside = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)} - set(expected)
    assert outside == {anatomy.head, *(linear.name for linear in anatomy.projections)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_and_roles_are_right(architecture, tiny_model):
    anatomy = anatomy_of(load_plain(tiny_model(architecture)))
    assert len(anatomy.layers) == 2
    for layer in range(2):
        found = [(linear.role, linear.part) for linear in anatomy.linears_of(layer)]
        expected = GPT2 if architecture == "gpt2" else list(ROLES[architecture].items())
        assert sorted(found) == sorted(expected)
        assert all(linear.transposed == (architecture == "gpt2") for linear in anatomy.linears_of(layer))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_named_modules_exist_and_write_into_the_residual_stream(architecture, tiny_model):
    model = load_plain(tiny_model(architecture))
    anatomy = anatomy_of(model)
    modules = dict(model.named_modules())
    width = 32
    assert modules[anatomy.embedding].weight.shape == (272, width)
    assert modules[anatomy.head].weight.shape == (272, width)
    assert modules[anatomy.final_norm].weight.shape == (width,)
    for block in anatomy.blocks:
        assert "Attention" in type(modules[block.attention]).__name__
        assert (block.mlp is None) == (architecture in {"opt", "xglm"})
        if block.mlp is not None:
            assert "MLP" in type(modules[block.mlp]).__name__
        transposed = architecture == "gpt2"
        for path in (block.attention_output, block.mlp_output):
            weight = modules[path].weight
            assert weight.shape[1 if transposed else 0] == width
        # The feed-forward output reads the wider hidden layer: 64, or 4 x 32 where the family fixes it.
        assert modules[block.mlp_output].weight.shape[0 if transposed else 1] in {64, 128}


@pytest.mark.parametrize(
    ("architecture", "changes", "tied"),
    [
        ("llama", {}, True),
        ("llama", {"tie_word_embeddings": False}, False),
        ("gpt2", {}, True),
        ("gpt_neox", {}, False),
    ],
)
def test_tied_heads_are_told_from_untied_ones(architecture, changes, tied, tiny_model):
    assert anatomy_of(load_plain(tiny_model(architecture, **changes))).tied is tied


def test_projections_of_opt_are_listed_and_its_missing_final_norm_is_none(tiny_model):
    model = load_plain(tiny_model("opt", word_embed_proj_dim=16, do_layer_norm_before=False))
    anatomy = anatomy_of(model)
    assert [
        (linear.role, linear.part, linear.layer) for linear in sorted(anatomy.projections, key=lambda x: x.role)
    ] == [
        ("project_in", "projection", None),
        ("project_out", "projection", None),
    ]
    assert anatomy.final_norm is None


def test_an_unknown_product_in_a_layer_is_refused_by_name(tiny_model):
    from torch import nn

    model = load_plain(tiny_model("llama"))
    model.model.layers[1].mlp.adapter = nn.Linear(32, 32)
    with pytest.raises(
        ModelError, match=r"model\.layers\.1\.mlp\.adapter \(Linear, 32 x 32\) is not a known part of a llama layer"
    ):
        anatomy_of(model)


def test_a_missing_product_is_refused_by_name(tiny_model):
    from torch import nn

    model = load_plain(tiny_model("llama"))
    model.model.layers[0].mlp.up_proj = nn.Identity()
    with pytest.raises(ModelError, match=r"layer model\.layers\.0 of this llama model has no mlp\.up_proj"):
        anatomy_of(model)


def test_an_unsupported_type_is_refused_with_the_list(tiny_model):
    model = load_plain(tiny_model("llama"))
    model.config.model_type = "xlstm"
    with pytest.raises(ModelError, match=r"'xlstm' are not supported; supported are .*bloom, .*gemma3_text, .*gpt2"):
        anatomy_of(model)
