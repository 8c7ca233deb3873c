"""Folders, GGUF files, wheels and reference models become one checked folder; what cannot leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import pytest
from evenbits.errors import IntegrityError, ModelError, UnsafeModelError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import SEAL, Store
from tiny_models import ARCHITECTURES


@pytest.fixture
def model(tiny_llama, tmp_path):
    """A copy of the tiny llama that a test may spoil."""
    return shutil.copytree(tiny_llama, tmp_path / "model")


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_a_folder_is_used_in_place(tiny_llama, store):
    local = resolve(parse_model(str(tiny_llama)), store=store)
    assert local.folder == tiny_llama
    assert (local.text, local.model_type, len(local.fingerprint)) == (str(tiny_llama), "llama", 64)
    # embedding 272 x 64 (tied); per layer q, o: 64 x 64, k, v: 32 x 64, three of 64 x 128, two norms; final norm
    assert local.parameters == 272 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64) + 64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_supported_architecture_is_admitted(architecture, tiny_model, store):
    assert resolve(parse_model(str(tiny_model(architecture))), store=store).model_type == architecture


def test_a_gguf_file_is_dequantized_once_and_gives_the_same_weights(tiny_gguf, tiny_llama, store, monkeypatch):
    import torch
    from evenbits.models import gguf
    from safetensors.torch import load_file

    local = resolve(parse_model(str(tiny_gguf)), store=store)
    found, expected = load_file(local.folder / "model.safetensors"), load_file(tiny_llama / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)  # float32 in, float32 out
    assert "quantization_config" not in json.loads((local.folder / "config.json").read_text())
    monkeypatch.setattr(gguf, "dequantize", lambda *_args, **_named: pytest.fail("dequantized again"))
    assert resolve(parse_model(str(tiny_gguf)), store=store) == local


def test_a_dequantized_model_scores_like_the_original(tiny_gguf, tiny_llama, store):
    import torch
    from evenbits.models.loading import load

    text = "The other one: Ünïcode ทดสอบ 123"
    logits = []
    for name in (tiny_gguf, tiny_llama):
        loaded = load(resolve(parse_model(str(name)), store=store), dtype=torch.float32)
        tokens = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert loaded.tokenizer.decode(tokens[0]) == text
        logits.append(loaded.model(tokens).logits)
    torch.testing.assert_close(logits[0], logits[1])


def test_a_gguf_file_that_is_truncated_names_tensor_and_byte(tiny_gguf, tmp_path, refuse):
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:-1000])
    refuse(path, IntegrityError, rf"cut\.gguf ends at byte {len(whole) - 1000}, but tensor .* reaches from byte \d+ to")
    path.write_bytes(whole[:300])
    refuse(path, IntegrityError, "ends at byte 300, inside its header")
    path.write_bytes(whole[:10])
    refuse(path, IntegrityError, "10 bytes long")


def test_a_gguf_file_with_another_beginning_is_refused(tiny_gguf, tmp_path, refuse):
    path = tmp_path / "other.gguf"
    path.write_bytes(b"GGML" + tiny_gguf.read_bytes()[4:])
    refuse(path, IntegrityError, r"begins with b'GGML' instead of b'GGUF' at byte 0")
    path.write_bytes(b"GGUF\x09\x00\x00\x00" + tiny_gguf.read_bytes()[8:])
    refuse(path, IntegrityError, "GGUF version 9 at byte 4")


def test_an_altered_gguf_header_is_refused(tiny_gguf, tmp_path, refuse):
    content = bytearray(tiny_gguf.read_bytes())
    content[8:16] = (1 << 60).to_bytes(8, "little")
    path = tmp_path / "altered.gguf"
    path.write_bytes(content)
    refuse(path, IntegrityError, f"claims {1 << 60} tensors")


def test_a_gguf_file_of_an_unknown_architecture_leaves_nothing(tmp_path, refuse):
    import gguf
    import numpy as np

    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "oddity")
    writer.add_block_count(1)
    writer.add_embedding_length(4)
    writer.add_head_count(1)
    writer.add_tensor("w", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refuse(path, ModelError, "cannot read the GGUF file .*oddity")


# Reference models -------------------------------------------------------------------------------------------------


def test_reference_models_are_folders_below_the_root(tiny_llama, store, tmp_path):
    root = tmp_path / "reference"
    shutil.copytree(tiny_llama, root / "b3")
    assert resolve(parse_model("reference"), store=store, root=root).folder == root / "b3"
    assert resolve(parse_model("reference:b3"), store=store, root=root).folder == root / "b3"
    with pytest.raises(ModelError, match="no reference model 'b4'; available: b3"):
        resolve(parse_model("reference:b4"), store=store, root=root)
    shutil.copytree(tiny_llama, root / "b5")
    with pytest.raises(ModelError, match=r"needs a name here.*available: b3, b5"):
        resolve(parse_model("reference"), store=store, root=root)


def test_without_reference_models_the_message_says_so(refuse, monkeypatch):
    monkeypatch.setattr("evenbits.models.shipped.GROUP", "evenbits.nothing")
    refuse("reference:b3", ModelError, "no reference model is installed")
    refuse("reference", ModelError, "no reference model is installed")


# Folders that are refused -----------------------------------------------------------------------------------------


def spoil_weights_to_pickle(folder):
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def test_a_pickle_checkpoint_is_refused_and_says_why_and_what_to_do(model, refuse):
    spoil_weights_to_pickle(model)
    refuse(model, UnsafeModelError, r"\(pytorch_model\.bin\).*can run any code.*save_pretrained")


def test_an_allowed_pickle_checkpoint_gives_the_same_weights(model, tiny_llama, store):
    import torch
    from safetensors.torch import load_file

    spoil_weights_to_pickle(model)
    local = resolve(parse_model(str(model)), store=store, allow_pickle=True)
    found, expected = load_file(local.folder / "model.safetensors"), load_file(tiny_llama / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert local.folder.is_relative_to(store.root)


def test_an_allowed_pickle_that_would_run_code_is_still_not_run(model, refuse, tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    spoil_weights_to_pickle(model)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Payload()}, protocol=2))
    refuse(model, UnsafeModelError, "without running code", allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_repository_code_is_refused_unless_allowed(model, refuse):
    edit(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    refuse(
        model,
        UnsafeModelError,
        r"config\.json has an auto_map: .*would run on this machine.*remove auto_map from a copy",
    )
    from evenbits.models.admission import admit

    assert admit(model, allow_code=True)["model_type"] == "llama"


def test_code_that_lies_elsewhere_is_refused_even_where_code_is_allowed(model):
    """Another repository's may change without the folder, whose fingerprint would stay."""
    from evenbits.models.admission import admit

    edit(model / "config.json", auto_map={"AutoModelForCausalLM": "owner/other--modeling_x.X"})
    with pytest.raises(UnsafeModelError, match=r"names code of another repository, .*owner/other--modeling_x\.X"):
        admit(model, allow_code=True)


def test_weights_of_another_name_are_refused(model, refuse):
    """transformers would read that file, and everything else here model.safetensors."""
    edit(model / "config.json", transformers_weights="other.safetensors")
    refuse(model, ModelError, r"transformers_weights = \"other\.safetensors\".*remove the entry")


def test_code_of_a_tokenizer_is_refused_too(model, refuse):
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    refuse(model, UnsafeModelError, r"tokenizer_config\.json has an auto_map")


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, r"a bert model .*an encoder without"),
        ({"model_type": "t5", "is_encoder_decoder": True}, r"a t5 model, an encoder-decoder"),
        ({"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]}, r"a rwkv model"),
        (
            {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
            r"no causal language model head",
        ),
    ],
)
def test_other_kinds_of_model_are_refused_with_the_supported_ones(config, what, model, refuse):
    (model / "config.json").write_text(json.dumps(config))
    refuse(model, ModelError, rf"{what}.*supported are decoder-only .*bloom, .*gemma3_text, .*gpt2, .*llama, .*olmo2")


def test_an_already_quantized_model_is_refused(model, refuse):
    edit(model / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refuse(model, ModelError, r"already quantized \(gptq\)")


@pytest.mark.parametrize(
    ("entries", "method"),
    [
        ({"quantization_config": "gptq"}, "gptq"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
    ],
)
def test_an_entry_that_speaks_of_quantization_is_enough(entries, method, model, refuse):
    edit(model / "config.json", **entries)
    refuse(model, ModelError, rf"is already quantized \({method}\)")


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"])
def test_a_file_that_speaks_of_quantization_is_enough(name, model, refuse):
    (model / name).write_text("{}")
    refuse(model, ModelError, rf"is already quantized \({name}\)")


def recoded(folder, change):
    """Write the model's weights anew, each tensor as `change(name, tensor)`."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({name: change(name, tensor) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("dtype", "code"), [("float8_e4m3fn", "F8_E4M3"), ("int8", "I8"), ("uint8", "U8"), ("int32", "I32")]
)
def test_weights_that_are_codes_are_refused_with_or_without_scales(dtype, code, model, refuse):
    import torch

    recoded(model, lambda name, tensor: tensor.to(getattr(torch, dtype)) if name.endswith("_proj.weight") else tensor)
    # three layers of seven products, 21 of 3 x 9 + 2 tensors
    refuse(
        model,
        ModelError,
        rf"21 of 29 tensors are codes, such as model\.layers\.0\.\w+\.\w+\.weight, stored as {code}\.",
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architectures": 5}, "architectures must be a list of texts, not 5"),
        ({"num_hidden_layers": "four"}, 'num_hidden_layers must be a whole number from 1 to [0-9]+, not "four"'),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a whole number from 1"),
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers is 1000000, but the checkpoint has 29 tensors"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number from 1"),
        ({"hidden_size": 1e9}, "hidden_size must be a whole number"),
        ({"vocab_size": 1 << 40}, "vocab_size must be a whole number from 1 to 2147483648, not 1099511627776"),
        ({"text_config": {"n_layer": 1_000_000}}, "text_config: n_layer is 1000000"),
    ],
)
def test_sizes_that_are_none_are_refused_at_once_with_file_and_entry(entries, message, model, refuse):
    edit(model / "config.json", **entries)
    refuse(model, ModelError, rf"config\.json: {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[" * 100_000, "config.json is nested more than 64 levels deep; fetch the model again"),
        ("config.json", '{"model_type": ' + "1" * 5000 + "}", "config.json holds a whole number of 5000 digits"),
        ("config.json", "5", "config.json names no model_type"),
        ("tokenizer_config.json", "5", "tokenizer_config.json must be an object, not 5"),
        ("tokenizer_config.json", '{"a":' * 100_000, "tokenizer_config.json is nested more than 64 levels deep"),
        ("tokenizer_config.json", '{"a": "' + "\\ud800" + '"}', "tokenizer_config.json holds .* which is no Unicode"),
        ("generation_config.json", "[1]", r"generation_config.json must be an object, not \[1\]"),
    ],
)
def test_files_of_the_folder_that_cannot_be_meant_are_named(name, content, message, model, refuse):
    (model / name).write_text(content)
    refuse(model, (IntegrityError, ModelError), message)


def test_code_of_a_part_of_the_model_is_refused_too(model, refuse):
    edit(model / "config.json", text_config={"auto_map": {"AutoModel": "x.Y"}})
    refuse(model, UnsafeModelError, r"config\.json has an auto_map")


def test_a_folder_without_config_or_with_a_broken_one_is_refused(model, refuse, tmp_path):
    (model / "adapter_config.json").write_text("{}")
    refuse(model, ModelError, "an adapter beside its model")
    (model / "adapter_config.json").unlink()
    (model / "config.json").write_text('{"model_type": ')
    refuse(model, IntegrityError, r"config\.json is not JSON at byte 15")
    (model / "config.json").write_text("{}")
    refuse(model, ModelError, "names no model_type")
    (model / "config.json").unlink()
    refuse(model, ModelError, r"has no config\.json")
    (model / "adapter_config.json").write_text("{}")
    refuse(model, ModelError, "an adapter without its base model")
    only_gguf = tmp_path / "gguf"
    only_gguf.mkdir()
    (only_gguf / "m.gguf").write_bytes(b"")
    refuse(only_gguf, ModelError, r"holds m\.gguf: give the path of that file")


def test_a_folder_without_tokenizer_or_weights_is_refused(model, refuse):
    for name in ("tokenizer.json", "vocab.json", "tokenizer.model"):
        (model / name).unlink(missing_ok=True)
    refuse(model, ModelError, "has no tokenizer")
    (model / "model.safetensors").unlink()
    refuse(model, ModelError, "has no weights")


def test_truncated_weights_are_refused_by_file_and_byte(model, refuse):
    path = model / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    refuse(model, IntegrityError, rf"model\.safetensors ends at byte {size // 2} of {size}, inside tensor")


def test_weights_that_do_not_belong_to_the_configuration_are_refused(model, refuse):
    edit(model / "config.json", num_hidden_layers=4)
    refuse(model, ModelError, r"lacks 9 of 38 weights .*model\.layers\.3\.")


def test_a_pooled_store_knows_the_models_of_a_run_by_their_names_whoever_named_them(store, tmp_path):
    """A family names its models itself, so a merge cannot say of them that they were measured elsewhere."""
    ref = parse_model("reference:a1")
    measured = resolve(ref, store=store)
    store.keep(tmp_path / "pool")
    (tmp_path / "pool" / SEAL).touch()
    known = resolve(ref, store=Store(tmp_path / "pool"), root=tmp_path / "no such folder")
    assert (known.text, known.fingerprint, known.exposure) == ("reference:a1", measured.fingerprint, measured.exposure)
