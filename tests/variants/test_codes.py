"""Codes that stand for weights: each format beside a plain checkpoint that holds their values."""

import json

import architectures
import pytest
import torch
from deployed_checkpoints import GROUP, compressed, copied, fp8, is_linear, needs_compressed_tensors
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EngineError, ModelError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.codes import plain_weights
from evenbits.variants.registry import parse
from safetensors.torch import load_file

TEXTS = {"de": ("the inner thing an other", "er hat in an"), "en": ("he is in the inn", "an inner one")}
INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP, "dynamic": False}
INT8 = {**INT4, "num_bits": 8}


def measured(folder, store, *made):
    corpus = Corpus(name="t", source="here", languages=tuple(TEXTS), segment_ids=("1", "2"), texts=TEXTS)
    local = resolve(parse_model(str(folder)), store=store)
    subject = Subject(local=local, store=store, dtype="float32", context=256)
    found = measure_damage(subject, [parse(f"checkpoint:{one}") for one in made], corpus)
    return [found.excess_bits(f"checkpoint:{one}") for one in made]


def values_in(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def packed(codes, bits):
    """Codes as compressed-tensors packs them: as many as an int32 holds, offset by half their range."""
    count = 32 // bits
    parts = (codes + (1 << (bits - 1))).to(torch.int64).view(codes.shape[0], -1, count)
    joined = sum(parts[:, :, place] << (bits * place) for place in range(count))
    return torch.where(joined >= 1 << 31, joined - (1 << 32), joined).to(torch.int32)


@needs_compressed_tensors
@pytest.mark.parametrize("order", [("most", "down"), ("down", "most")])
def test_matrices_of_several_schemes_are_each_decoded_by_its_own(order, tiny_llama, tmp_path):
    """Four bits, and eight for `down_proj`: read as four bits, those were off by as much as the largest weight."""
    codes, plain = {}, {}
    for name, weight in load_file(tiny_llama / "model.safetensors").items():
        codes[name] = plain[name] = weight
        if not is_linear(name):
            continue
        bits, base = 8 if "down_proj" in name else 4, name.removesuffix(".weight")
        groups = weight.float().view(weight.shape[0], -1, GROUP)
        scale = (groups.abs().amax(2) / (2 ** (bits - 1) - 1)).bfloat16()
        steps = (groups / scale.float()[..., None]).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        del codes[name]
        codes[f"{base}.weight_packed"] = packed(steps.view_as(weight), bits)
        codes[f"{base}.weight_scale"] = scale
        codes[f"{base}.weight_shape"] = torch.tensor(weight.shape)
        plain[name] = (steps.bfloat16() * scale[..., None]).view_as(weight).float()
    groups = {
        "most": {"targets": ["re:.*(q|k|v|o|gate|up)_proj$"], "weights": INT4},
        "down": {"targets": ["re:.*down_proj$"], "weights": INT8},
    }
    config = {**compressed("pack-quantized", INT4), "config_groups": {name: groups[name] for name in order}}
    mixed = copied(tiny_llama, tmp_path / "mixed", tensors=codes, config={"quantization_config": config})
    beside = copied(tiny_llama, tmp_path / "plain", tensors=plain)
    found, expected = measured(tiny_llama, Store(tmp_path / "store"), mixed, beside)
    assert found == pytest.approx(expected, abs=1e-3)
    assert abs(expected).max() > 0.01


@needs_compressed_tensors
def test_scales_of_activations_and_of_a_cache_are_no_part_of_the_weights(tiny_llama, tmp_path):
    made = fp8(tiny_llama, tmp_path / "made")
    tensors = load_file(made / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight_scale")]:
        tensors[name.replace("weight_scale", "input_scale")] = torch.ones(1)
    for layer in range(2):
        tensors |= {f"model.layers.{layer}.self_attn.{one}_scale": torch.ones(1) for one in "kv"}
    static = copied(made, tmp_path / "static", tensors=tensors)
    found, expected = measured(tiny_llama, Store(tmp_path / "store"), static, made)
    assert (found == expected).all()
    rotated = copied(made, tmp_path / "rotated", tensors=tensors | {"model.layers.0.mlp.R4_input.weight": torch.eye(4)})
    with pytest.raises(ModelError, match=r"has left over 1 tensors, such as model\.layers\.0\.mlp\.R4_input\.weight"):
        measured(tiny_llama, Store(tmp_path / "other"), rotated)


@needs_compressed_tensors
def test_codes_that_no_group_names_and_formats_that_nobody_knows_are_refused_by_name(tiny_llama, tmp_path):
    made = fp8(tiny_llama, tmp_path / "made")
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    group = config["config_groups"]["group_0"]
    elsewhere = {**config, "config_groups": {"group_0": {**group, "targets": ["re:.*nothing"]}}}
    with pytest.raises(ModelError, match=r"layers\.\d\.\S+_proj has codes, and no group"):
        plain_weights(made, elsewhere, dtype=torch.float32)
    with pytest.raises(EngineError, match=r"cannot decode model\.layers\S+, .* as pack-quantized: KeyError"):
        plain_weights(made, {**config, "format": "pack-quantized"}, dtype=torch.float32)


@needs_compressed_tensors
@pytest.mark.parametrize("architecture", ["mistral3", "qwen2_5_vl"])
def test_a_model_that_reads_images_too_is_loaded_with_all_its_parts(architecture, tmp_path):
    """Its other tower has matrices that are called as those of layers are and have other parts."""
    folder = architectures.build(architecture, tmp_path / "model")
    codes, plain = {}, {}
    for name, weight in values_in(folder).items():
        codes[name] = plain[name] = weight.contiguous()
        if is_linear(name) and ".layers." in name and "vis" not in name:
            scale = (weight.float().abs().amax(1, keepdim=True) / 448).bfloat16()
            codes[name] = (weight.float() / scale.float()).to(torch.float8_e4m3fn)
            codes[f"{name}_scale"] = scale
            plain[name] = (codes[name].bfloat16() * scale).to(weight.dtype)
    scheme = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    config = {**compressed("float-quantized", scheme), "ignore": ["lm_head", "re:.*vis.*"]}
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    made = copied(folder, tmp_path / "codes", tensors=codes, config={"quantization_config": config})
    beside = copied(folder, tmp_path / "plain", tensors=plain)
    found, expected = measured(beside, Store(tmp_path / "store"), made, beside)
    assert found == pytest.approx(expected, abs=1e-3)


def blocks_of(weight, rows, columns):
    """FP8 codes of a matrix in blocks, the last ones smaller, their scales, and the values that they stand for."""
    tall, wide = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    whole = torch.zeros(tall * rows, wide * columns)
    whole[: weight.shape[0], : weight.shape[1]] = weight.float()
    parts = whole.view(tall, rows, wide, columns)
    scale = parts.abs().amax((1, 3)) / 448
    codes = (parts / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    values = (codes.float() * scale[:, None, :, None]).view_as(whole)
    cut = (slice(weight.shape[0]), slice(weight.shape[1]))
    return codes.view(whole.shape)[cut].contiguous(), scale, values[cut].contiguous()


@pytest.mark.parametrize("block", [(16, 32), (48, 40), (1000, 1000), None])
def test_fp8_in_blocks_that_do_not_divide_a_matrix_is_decoded_block_by_block(block, tiny_llama, tmp_path):
    """64 rows in blocks of 48 are 48 and 16; they were taken for 32 and 32, or not read at all."""
    codes, plain = {}, {}
    for name, weight in load_file(tiny_llama / "model.safetensors").items():
        codes[name] = plain[name] = weight
        if is_linear(name):
            codes[name], scale, plain[name] = blocks_of(weight, *(block or weight.shape))
            codes[f"{name}_scale_inv"] = scale if block else scale.reshape(())
            codes[f"{name.removesuffix('weight')}activation_scale"] = torch.ones(())
    config = {"quant_method": "fp8", "weight_block_size": block, "activation_scheme": "static"}
    made = copied(tiny_llama, tmp_path / "fp8", tensors=codes, config={"quantization_config": config})
    beside = copied(tiny_llama, tmp_path / "plain", tensors=plain)
    found, expected = measured(tiny_llama, Store(tmp_path / "store"), made, beside)
    assert found == pytest.approx(expected, abs=1e-5)
    decoded = plain_weights(made, config, dtype=torch.float32)
    assert all(torch.equal(decoded[name], plain[name].float()) for name in plain if is_linear(name))


def test_fp8_codes_without_a_scale_or_with_scales_of_other_blocks_are_refused_by_name(tiny_llama, tmp_path):
    tensors = load_file(tiny_llama / "model.safetensors")
    name = next(filter(is_linear, tensors))
    codes, scale, _ = blocks_of(tensors[name], 16, 16)
    config = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    alone = copied(tiny_llama, tmp_path / "alone", tensors=tensors | {name: codes})
    with pytest.raises(ModelError, match=rf"{name.removesuffix('.weight')} has FP8 codes in weight and no scale"):
        plain_weights(alone, config, dtype=torch.float32)
    scaled = copied(tiny_llama, tmp_path / "scaled", tensors=tensors | {name: codes, f"{name}_scale_inv": scale})
    with pytest.raises(ModelError, match=r"scales for .* weights, where the format needs .* for blocks of 32 x 32"):
        plain_weights(scaled, config | {"weight_block_size": [32, 32]}, dtype=torch.float32)
