"""Loading gives a model that is ready to score, or an error that names what does not fit."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from evenbits.errors import ModelError, NonFiniteError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from tiny_models import ARCHITECTURES


def change_weights(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_loads_and_gives_logits(architecture, tiny_model, store):
    import torch

    local = resolve(parse_model(str(tiny_model(architecture))), store=store)
    loaded = load(local, dtype=torch.float32)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == local.parameters
    tokens = torch.tensor([loaded.tokenizer("ab", add_special_tokens=False)["input_ids"]])
    assert loaded.model(tokens).logits.shape == (1, 2, 272)
    assert loaded.model.config._attn_implementation == ("eager" if architecture in {"bloom", "xglm"} else "sdpa")
    assert (loaded.anatomy.model_type, loaded.unused) == (architecture, ())


def test_the_dtype_is_the_one_asked_for(tiny_model, store):
    import torch

    local = resolve(parse_model(str(tiny_model("llama"))), store=store)
    loaded = load(local, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16


def test_models_load_in_several_threads_at_once(tiny_model, store):
    import torch

    # unguarded, heads came out untied or in the dtype of another thread
    local = resolve(parse_model(str(tiny_model("llama"))), store=store)
    dtypes = [torch.float32, torch.bfloat16] * 12
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda dtype: load(local, dtype=dtype), dtypes))
    for loaded, dtype in zip(models, dtypes, strict=True):
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}
        assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert torch.get_default_dtype() == torch.float32


def test_threads_are_set(tiny_model, store):
    import torch

    before = torch.get_num_threads()
    try:
        load(resolve(parse_model(str(tiny_model("llama"))), store=store), dtype=torch.float32, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_loading_says_nothing_on_the_terminal(tiny_model, store, capfd):
    import torch

    load(resolve(parse_model(str(tiny_model("llama"))), store=store), dtype=torch.float32)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_missing_tensor_is_named(model, store):
    import torch

    local = resolve(parse_model(str(model)), store=store)
    change_weights(model, lambda tensors: tensors.pop("model.norm.weight"))  # altered after it was checked
    with pytest.raises(ModelError, match=r"1 missing: model\.norm\.weight.*random numbers"):
        load(local, dtype=torch.float32)


def test_numbers_that_are_none_are_named_also_where_they_came_after_the_check(model, store):
    import torch

    def spoil(tensors):
        tensors["model.norm.weight"][5] = float("nan")

    local = resolve(parse_model(str(model)), store=store)
    change_weights(model, spoil)
    with pytest.raises(NonFiniteError, match=r"tensor model\.norm\.weight holds nan at \[5\]"):
        load(local, dtype=torch.float32)


def test_the_tokenizer_is_read_once_for_all_loads_of_a_model_and_again_for_another(model, store, monkeypatch):
    import torch
    from evenbits.models import loading

    read = []
    original = loading.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        loading.AutoTokenizer, "from_pretrained", lambda *args, **named: read.append(args) or original(*args, **named)
    )
    local = resolve(parse_model(str(model)), store=store)
    first, second = (load(local, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert len(read) == 1
    assert first.tokenizer is second.tokenizer
    edit = json.loads((model / "tokenizer.json").read_text())
    edit["added_tokens"] = [token for token in edit["added_tokens"] if token["content"] != "<unk>"]
    (model / "tokenizer.json").write_text(json.dumps(edit))
    changed = load(resolve(parse_model(str(model)), store=store), dtype=torch.float32)
    assert len(read) == 2
    assert changed.tokenizer is not first.tokenizer
