"""The checkpoint's tensor is found for every module, whatever the checkpoint calls it."""

from __future__ import annotations

import json
import shutil

import pytest
from evenbits.errors import ModelError
from tiny_models import ARCHITECTURES

# How checkpoints published before transformers 5 begin their names -> what transformers saves today.
PUBLISHED = {
    "gpt2": {"transformer.": ""},
    "bloom": {"transformer.": ""},
    "opt": {"model.decoder.": "decoder."},
    "xglm": {"model.": ""},
    "gpt_neox": {"lm_head.": "embed_out."},
}


def rename(folder, changes):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    for new, old in changes.items():
        tensors = {old + name.removeprefix(new) if name.startswith(new) else name: t for name, t in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def check_names(folder):
    import torch
    from evenbits.models import checkpoint
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import weight_names
    from evenbits.models.quiet import quiet_transformers

    with quiet_transformers():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    anatomy = anatomy_of(model)
    names = weight_names(folder)
    modules = [*(linear.name for linear in (*anatomy.linears, *anatomy.projections)), anatomy.embedding, anatomy.head]
    assert list(names) == modules
    for module in modules:
        assert torch.equal(model.get_submodule(module).weight, checkpoint.read(folder, names[module])), module
    return names, anatomy


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_module_finds_its_own_tensor(architecture, tiny_model):
    names, anatomy = check_names(tiny_model(architecture))
    assert (names[anatomy.head] == names[anatomy.embedding]) == anatomy.tied


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_names_of_older_checkpoints_are_understood(architecture, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model(architecture), tmp_path / "model")
    rename(folder, PUBLISHED[architecture])
    check_names(folder)


def test_projections_of_opt_are_mapped(tiny_model):
    names, _ = check_names(tiny_model("opt", word_embed_proj_dim=16, do_layer_norm_before=False))
    assert {"model.decoder.project_in", "model.decoder.project_out"} <= set(names)


def test_the_outline_holds_no_numbers_and_the_right_count(tiny_llama):
    from evenbits.models.outline import outline

    model = outline(tiny_llama)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    # embedding 272 x 64 (tied); per layer q, o: 64 x 64, k, v: 32 x 64, three of 64 x 128, two norms; final norm
    expected = 272 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_a_missing_tensor_is_named(tiny_model, tmp_path):
    from evenbits.models.outline import weight_names

    folder = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"lacks 9 of 30 weights of this llama model: model\.layers\.2\."):
        weight_names(folder)
