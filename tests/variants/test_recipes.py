"""Recipes are given to the tools they are for, and what they protect keeps its bytes."""

import json
import os
import subprocess

import pytest
import tiny_models
import torch
from evenbits.cells import Subject, measure_damage
from evenbits.errors import SpecError
from evenbits.models.layout import anatomy_of
from evenbits.models.outline import outline
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store
from evenbits.variants.recipes import protected_modules, recipes, shell, tensor_types
from evenbits.variants.registry import parse
from llama_cpp_builds import needs_llama_cpp

PROTECT = ("model.layers.1", "model.layers.0.mlp.down_proj")
NEEDS = "needs bitsandbytes and torchao: pip install 'evenbits[backends]'"
LLM_COMPRESSOR = os.environ.get("EVENBITS_LLM_COMPRESSOR", "")
"""A Python that has llmcompressor, which pins other versions than ours."""

ONESHOT = """
import json, sys
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier

model, output, group, ignore = json.loads(sys.argv[1])
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
recipe = QuantizationModifier(config_groups={"all": {"targets": ["Linear"], "weights": weights}}, ignore=ignore)
oneshot(model=model, recipe=recipe, output_dir=output)
"""


@pytest.fixture
def anatomy(tiny_llama):
    return anatomy_of(outline(tiny_llama))


@pytest.fixture
def subject(tiny_llama, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32", context=256)


def test_each_tool_gets_its_own_words(anatomy):
    found = recipes(anatomy, PROTECT)
    assert found["llama.cpp"] == [
        r"--tensor-type ^blk\.0\.ffn_down\.weight$=f16",
        r"--tensor-type ^blk\.1\.=f16",
    ]
    modules = [
        "model.layers.0.mlp.down_proj",
        *(
            f"model.layers.1.{part}"
            for part in (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            )
        ),
    ]
    assert found["bitsandbytes"] == {"llm_int8_skip_modules": ["lm_head", *modules]}
    assert found["llm-compressor"] == {"ignore": ["lm_head", *modules]}
    assert found["torchao"] == {"modules_to_not_convert": ["lm_head", *modules]}
    assert r"--tensor-type '^blk\.1\.=f16'" in shell(found)[0]


def test_layer_1_is_not_layer_10(tiny_model):
    anatomy = anatomy_of(outline(tiny_model("llama", layers=11, hidden=32)))
    assert {name.split(".")[2] for name in protected_modules(anatomy, ["model.layers.1"])} == {"1"}


def test_a_name_that_covers_nothing_is_refused(anatomy):
    with pytest.raises(SpecError, match=r"protect:model.layers.7 matches no linear layer"):
        recipes(anatomy, ["model.layers.7"])


def test_an_architecture_without_gguf_says_so(tiny_model):
    found = recipes(anatomy_of(outline(tiny_model("xglm"))), ["model.layers.0"])
    assert found["llama.cpp"] is None
    assert "GGUF has no model of type xglm" in found["llama.cpp_reason"]
    assert shell(found)


@pytest.mark.parametrize("spec", ["bnb:nf4", "bnb:int8", "torchao:int8", "torchao:int4-g32"])
def test_the_libraries_leave_what_is_protected(spec, subject, anatomy):
    pytest.importorskip("bitsandbytes", reason=NEEDS)
    pytest.importorskip("torchao", reason=NEEDS)
    from evenbits.variants.libraries import quantized_copy

    named = parse(spec + "".join(f"+protect:{name}" for name in PROTECT))
    assert parse(str(named)) == named
    copy, original = quantized_copy(subject, named), subject.loaded("float32")
    kept = protected_modules(anatomy, PROTECT)
    for linear in anatomy.linears:
        module = copy.model.get_submodule(linear.name)
        same = type(module.weight.data) is torch.Tensor and torch.equal(
            module.weight.data, original.model.get_submodule(linear.name).weight
        )
        assert same == (linear.name in kept), linear.name
    assert named.bits_per_weight(subject) > parse(spec).bits_per_weight(subject)


@needs_llama_cpp
def test_llama_cpp_writes_what_is_protected_in_f16(anatomy, tiny_gguf, tmp_path):
    import gguf
    import numpy as np
    from evenbits.variants.llama_cpp.quantizing import quantize_file

    pairs = tensor_types(anatomy, protected_modules(anatomy, PROTECT))
    quantize_file(tiny_gguf, tmp_path / "q.gguf", "Q4_0", overrides=pairs)
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    source = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    for name, tensor in written.items():
        if name.startswith("blk.") and len(tensor.shape) > 1:
            protected = name.startswith("blk.1.") or name == "blk.0.ffn_down.weight"
            assert (tensor.tensor_type.name == "F16") == protected, name
            if protected:
                np.testing.assert_array_equal(tensor.data, source[name].data.astype(np.float16))


@pytest.mark.slow
@needs_llama_cpp
def test_what_is_built_from_a_recipe_loses_what_its_plan_says_in_every_language(tmp_path):
    """Layer 7 of a1 kept: simulated, and as llama.cpp's quantizer and bitsandbytes make it and run it."""
    pytest.importorskip("bitsandbytes", reason=NEEDS)
    pytest.importorskip("libgguf", reason=NEEDS)
    from evenbits.text import load_corpus
    from evenbits.variants.llama_cpp.quantizing import quantize_file

    store, kept = Store(tmp_path / "store"), "model.layers.7"
    local = resolve(parse_model("reference:a1"), store=store)
    anatomy = anatomy_of(outline(local.folder))
    source = tiny_models.build_gguf(local.folder, tmp_path / "source.gguf")
    pairs = tensor_types(anatomy, protected_modules(anatomy, (kept,)))
    quantize_file(source, tmp_path / "kept.gguf", "Q3_K_S", overrides=pairs)
    built = {
        f"gguf:Q3_K_S+protect:{kept}": f"gguf:{tmp_path / 'kept.gguf'}",
        f"nf4-b64+protect:{kept}": f"bnb:nf4+protect:{kept}",
    }
    corpus = load_corpus("gettext", languages="de,en,fi,ga", segments=24, store=store)
    subject = Subject(local=local, store=store, dtype="float32", context=256)
    specs = [parse(spec) for spec in (*built, *built.values())]
    rows = {(row["spec"], row["language"]): row for row in measure_damage(subject, specs, corpus).rows(seed=0)}
    for plan, made in built.items():
        for tag in corpus.languages:
            found = rows[made, tag]["excess_bits"]
            assert found["low"] < rows[plan, tag]["excess_bits"]["value"] < found["high"]


@pytest.mark.slow
@pytest.mark.skipif(
    not LLM_COMPRESSOR,
    reason="needs llmcompressor: `tox run -e llm-compressor`, or EVENBITS_LLM_COMPRESSOR names a Python that has it",
)
def test_llm_compressor_leaves_what_is_ignored_and_loses_what_the_plan_says(tmp_path):
    """Layer 7 of a1 kept, W4A16 in groups of 32, no calibration; the plan is ours, its steps absmax / 7, not / 7.5."""
    pytest.importorskip("compressed_tensors", reason="needs compressed-tensors: pip install 'evenbits[backends]'")
    from evenbits.text import load_corpus
    from safetensors.torch import load_file

    store, kept, made = Store(tmp_path / "store"), "model.layers.7", tmp_path / "made"
    local = resolve(parse_model("reference:a1"), store=store)
    anatomy = anatomy_of(outline(local.folder))
    asked = [str(local.folder), str(made), 32, recipes(anatomy, (kept,))["llm-compressor"]["ignore"]]
    subprocess.run([LLM_COMPRESSOR, "-c", ONESHOT, json.dumps(asked)], check=True, cwd=tmp_path)
    source, written = load_file(local.folder / "model.safetensors"), load_file(made / "model.safetensors")
    rounded = {linear.name for linear in anatomy.linears} - set(protected_modules(anatomy, (kept,)))
    assert {name.removesuffix(".weight_packed") for name in written if name.endswith("_packed")} == rounded
    left = [name for name in source if name.removesuffix(".weight") not in rounded]
    assert sum(name.startswith(f"{kept}.") for name in left) > 7
    for name in left:
        assert written[name].dtype == source[name].dtype
        assert torch.equal(written[name].view(torch.uint8), source[name].view(torch.uint8)), name
    plan, spec = f"int4-g32+protect:{kept}", f"checkpoint:{made}"
    corpus = load_corpus("gettext", languages="de,en,fi,ga", segments=24, store=store)
    subject = Subject(local=local, store=store, dtype="float32", context=256)
    found = measure_damage(subject, [parse(plan), parse(spec)], corpus).rows(seed=0)
    rows = {(row["spec"], row["language"]): row for row in found}
    assert rows[spec, "en"]["bits_per_weight"] == pytest.approx(rows[plan, "en"]["bits_per_weight"], abs=0.02)
    for tag in corpus.languages:
        excess = rows[spec, tag]["excess_bits"]
        assert excess["low"] < rows[plan, tag]["excess_bits"]["value"] < excess["high"]
