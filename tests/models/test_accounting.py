"""What a folder holds is the model its configuration describes: the rest refuses it, by file, tensor and entry."""

from __future__ import annotations

import json
import shutil

import pytest
from evenbits.errors import ModelError, NonFiniteError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of a llama of two layers, 32 wide, that a test may spoil."""
    return shutil.copytree(tiny_model("llama", tie_word_embeddings=False), tmp_path / "model")


def change_weights(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ones(*shape):
    import torch

    return torch.ones(*shape)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_with_nan_or_infinity_are_refused_by_name_and_place(bad, model, refuse):
    change_weights(
        model, lambda tensors: tensors[UP].index_put_((ones(1).long() * 5, ones(1).long() * 7), ones(1) * bad)
    )
    refuse(model, NonFiniteError, rf"tensor {UP} holds {bad} at \[5, 7\]")


def test_a_missing_tensor_is_named(model, refuse):
    change_weights(model, lambda tensors: tensors.pop(UP))
    # embedding, head, final norm, two layers of nine
    refuse(model, ModelError, rf"lacks 1 of 21 weights of this llama model: {UP}\. .*random numbers")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(model, refuse):
    change_weights(model, lambda tensors: tensors.update({UP: ones(7, 32)}))
    refuse(model, ModelError, rf"{UP} is \[7, 32\] in the file, \[64, 32\] in the model")


def test_a_model_of_absurd_width_is_refused_without_making_room_for_it(model, refuse):
    edit(model / "config.json", hidden_size=10**9, intermediate_size=10**9)
    refuse(
        model, ModelError, r"another shape than config\.json gives .* is \[272, 32\] in the file, \[272, 1000000000\]"
    )


@pytest.mark.parametrize(
    ("left", "meant"),
    [
        ("model.layers.0.extra.weight", r"ignored\."),
        ("model.layers.2.mlp.up_proj.weight", r"ignored: config\.json says 2 layers, the file has 3\."),
        ("model.layers.0.mlp.up_proj.weight_scale", "already quantized: give the original"),
        ("model.layers.0.mlp.up_proj.SCB", "already quantized: give the original"),
        ("model.layers.0.mlp.up_proj.weight.absmax", "already quantized: give the original"),
        ("model.layers.0.self_attn.q_proj.bias", r"ignored\."),
    ],
)
def test_a_tensor_without_a_place_is_refused_and_what_it_means_is_said(left, meant, model, refuse):
    change_weights(model, lambda tensors: tensors.update({left: ones(3)}))
    refuse(model, ModelError, rf"holds 1 tensors that are no part of this llama model: {left}\. .*{meant}")


def test_what_older_checkpoints_carry_along_is_no_reason_to_refuse(model, store):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ones(4)
        tensors["model.layers.0.self_attn.masked_bias"] = ones(1)

    plain = resolve(parse_model(str(model)), store=store)
    change_weights(model, add)
    assert resolve(parse_model(str(model)), store=store).parameters == plain.parameters


def test_a_head_of_its_own_is_not_dropped_where_the_configuration_ties_it(model, refuse, store):
    edit(model / "config.json", tie_word_embeddings=True)
    refuse(
        model,
        ModelError,
        r"other numbers in lm_head\.weight than in model\.embed_tokens\.weight, but config\.json ties",
    )
    change_weights(
        model, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    )
    assert (
        resolve(parse_model(str(model)), store=store).parameters
        == 272 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 64) + 32
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"attention_window_size": 16}, "has attention_window_size = 16, which"),
        ({"logits_scaling": 8.0}, r"sets logits_scaling to 8\.0"),
        ({"num_local_experts": 8}, "has num_local_experts = 8"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            r'has layer_types = \["full_attention", "sliding_attention"\]',
        ),
        ({"rope_parameters": {"rope_type": "unheard_of"}}, "transformers cannot build a model from .*unheard_of"),
        ({"num_key_value_heads": "two"}, "transformers cannot build a model from .*num_key_value_heads"),
        ({"dtype": "\x1b[2J"}, r"transformers cannot build a model from [ -~]*u001b\[2J"),
    ],
)
def test_an_entry_that_changes_the_function_and_would_not_reach_it_is_refused(entries, message, model, refuse):
    edit(model / "config.json", **entries)
    refuse(model, ModelError, message)


def test_entries_that_mean_nothing_pass(model, store):
    edit(
        model / "config.json",
        sliding_window=None,
        rope_interleaved=False,
        residual_multiplier=1.0,
        layer_types=["full_attention"] * 2,
        num_experts=0,
        is_causal=True,
        made_by="somebody",
    )
    assert resolve(parse_model(str(model)), store=store).model_type == "llama"


def test_a_damaged_tokenizer_is_refused(model, refuse):
    (model / "tokenizer.json").write_text('{"version": "1.0"')
    refuse(model, ModelError, r"the tokenizer in .* cannot be loaded")


class PanicException(BaseException):
    """What a panic inside the tokenizers library comes as: no Exception."""


def test_a_tokenizer_that_its_library_panics_at_is_refused(model, refuse, monkeypatch):
    def panic(*_, **__):
        raise PanicException("range end index out of range")

    monkeypatch.setattr("evenbits.models.loading.AutoTokenizer.from_pretrained", panic)
    refuse(model, ModelError, r"the tokenizer in .* cannot be loaded: range end index out of range")


def test_the_tokenizer_of_another_model_is_refused(model, refuse):
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"].update({f"[{i}]": i for i in range(268, 273)})
    (model / "tokenizer.json").write_text(json.dumps(content))
    refuse(model, ModelError, r"token numbers up to 272, \[272\], but the model embeds only 272")


def add_token(folder, content, number, *, special):
    described = json.loads((folder / "tokenizer.json").read_text())
    token = {
        "id": number,
        "content": content,
        "special": special,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
    }
    described["added_tokens"].append({**token, "normalized": not special})
    for between in range(268, number):  # the tokenizers library numbers what is added by itself, in order
        described["model"]["vocab"][f"[{between}]"] = between
    (folder / "tokenizer.json").write_text(json.dumps(described))


def test_a_word_added_beyond_the_embedding_is_refused(model, refuse):
    add_token(model, "bread", 272, special=False)
    refuse(model, ModelError, "token numbers up to 272, bread, but .*added without resizing the model")


def test_a_special_token_beyond_the_embedding_passes_and_a_text_that_asks_for_it_is_named(model, store):
    import torch
    from evenbits.errors import CorpusError
    from evenbits.models.loading import load
    from evenbits.scoring.likelihood import score

    add_token(model, "<picture>", 272, special=True)
    loaded = load(resolve(parse_model(str(model)), store=store), dtype=torch.float32)
    with pytest.raises(CorpusError, match=r"segment b in en holds the token <picture>, number 272, but .* only 272"):
        score(loaded, "en", ("a", "b"), ("plain", "a <picture>"))


def test_a_tokenizer_without_a_first_token_is_refused(model, refuse):
    edit(model / "tokenizer_config.json", bos_token=None, eos_token=None)
    for name in ("special_tokens_map.json",):
        (model / name).unlink(missing_ok=True)
    refuse(model, ModelError, "has neither a BOS nor an EOS token")


def test_a_model_is_accounted_for_once(model, store, monkeypatch):
    from evenbits.models import accounting

    first = resolve(parse_model(str(model)), store=store)
    monkeypatch.setattr(accounting, "account", lambda *_args, **_named: pytest.fail("again"))
    assert resolve(parse_model(str(model)), store=store) == first


def test_entries_that_change_no_score_but_cannot_be_loaded_are_refused_after_a_sound_one(model, store):
    resolve(parse_model(str(model)), store=store)
    edit(model / "config.json", use_cache=7)
    with pytest.raises(ModelError, match=r"transformers cannot build a model from .*use_cache"):
        resolve(parse_model(str(model)), store=store)


def test_a_tokenizer_that_takes_no_text_is_refused(model, refuse):
    edit(model / "tokenizer_config.json", model_max_length=["a"])
    refuse(model, ModelError, "takes no text")


@pytest.mark.parametrize("architecture", ["llava", "gemma3"])
def test_an_entry_that_a_text_part_would_ignore_is_named_with_its_place(architecture, tmp_path, refuse):
    import architectures

    folder = architectures.build(architecture, tmp_path / "model")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config={**text, "local_attention_window": 16})
    refuse(folder, ModelError, r"config.json has text_config.local_attention_window = 16, which \w+ models do not read")


@pytest.mark.parametrize("where", ["top", "rope_parameters"])
def test_a_share_of_heads_to_rotate_is_refused_where_it_would_be_ignored(where, model, refuse):
    """Every configuration takes the entry; llama's rotation has all 8 frequencies of a head of 16 with it, too."""
    described = json.loads((model / "config.json").read_text())
    entry = {"partial_rotary_factor": 0.5}
    edit(model / "config.json", **(entry if where == "top" else {where: described["rope_parameters"] | entry}))
    refuse(model, ModelError, r"has partial_rotary_factor = 0\.5, which llama models do not read")


@pytest.mark.parametrize(("architecture", "share"), [("llama", 1.0), ("gpt_neox", 0.5)])
def test_a_share_of_heads_to_rotate_is_taken_where_it_is_all_or_heeded(
    architecture, share, tiny_model, store, tmp_path
):
    folder = shutil.copytree(tiny_model(architecture), tmp_path / "model")
    described = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", rope_parameters=described["rope_parameters"] | {"partial_rotary_factor": share})
    assert resolve(parse_model(str(folder)), store=store).model_type == architecture
