"""Checkpoints in formats that are deployed, made of a plain one as their makers lay them out."""

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

GROUP = 32


def copied(folder, target, *, tensors=None, config=None):
    """A copy of a model folder with other tensors, or entries added to its config."""
    shutil.copytree(folder, target)
    if tensors is not None:
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    described = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(described | (config or {})), encoding="utf-8")
    return target


def rounded(weight):
    """Codes -8 to 7 in groups of 32 inputs, and their scales in bfloat16."""
    rows, columns = weight.shape
    groups = weight.view(rows, columns // GROUP, GROUP)
    scale = (groups.abs().amax(2) / 7).bfloat16()
    codes = (groups / scale.float()[..., None]).round().clamp(-8, 7).view(rows, columns)
    return codes, scale


def is_linear(name):
    return name.endswith("_proj.weight")


def coded(folder, parts_of):
    """The tensors of a model folder, each linear's weight replaced by `parts_of(weight)`: tensors by part."""
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if is_linear(name):
            base = name.removesuffix("weight")
            tensors |= {f"{base}{part}": tensor for part, tensor in parts_of(weight.float()).items()}
        else:
            tensors[name] = weight
    return tensors


def w4a16(folder, target):
    """compressed-tensors' packed 4-bit codes, eight in an int32, offset 8."""

    def parts_of(weight):
        codes, scale = rounded(weight)
        eights = (codes + 8).to(torch.int32).view(codes.shape[0], -1, 8)
        packed = sum(eights[:, :, i] << (4 * i) for i in range(8)).to(torch.int32)
        return {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor(codes.shape)}

    tensors = coded(folder, parts_of)
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
        "dynamic": False,
    }
    return copied(
        folder, target, tensors=tensors, config={"quantization_config": compressed("pack-quantized", weights)}
    )


def fp8(folder, target):
    """compressed-tensors' FP8 weights, a scale for each row, with activations to be quantized as they come."""

    def parts_of(weight):
        scale = weight.abs().amax(1, keepdim=True) / 448
        return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale.bfloat16()}

    tensors = coded(folder, parts_of)
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
    config = compressed("float-quantized", weights, inputs)
    return copied(folder, target, tensors=tensors, config={"quantization_config": config})


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def four_bit_floats(weight):
    """NVFP4 of a matrix: codes (place in `FP4`, 8 more for minus), a scale in FP8 for 16 inputs, one for the matrix."""
    groups = weight.float().view(weight.shape[0], -1, 16)
    whole = 448 * 6 / groups.abs().max()
    scale = (groups.abs().amax(2) / 6 * whole).to(torch.float8_e4m3fn)
    steps = groups / (scale.float() / whole)[..., None]
    codes = (steps.abs()[..., None] - FP4).abs().argmin(-1) + 8 * (steps < 0)
    return codes.flatten(1), scale, whole


def values_of_four_bit_floats(codes, scale, whole):
    """The numbers that NVFP4's codes stand for, rounded to the bfloat16 that they are read in."""
    signed = torch.where(codes < 8, 1.0, -1.0) * FP4[codes % 8]
    return (signed.view(*scale.shape, 16) * (scale.float() / whole)[..., None]).flatten(1).bfloat16()


def nvfp4(folder, target):
    """compressed-tensors' NVFP4 weights, two codes in a byte, the first in its low half."""

    def parts_of(weight):
        codes, scale, whole = four_bit_floats(weight)
        packed = (codes[:, ::2] + 16 * codes[:, 1::2]).to(torch.uint8)
        return {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": whole.reshape(1)}

    tensors = coded(folder, parts_of)
    weights = {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group",
        "group_size": 16,
        "dynamic": False,
    }
    config = compressed("nvfp4-pack-quantized", weights)
    return copied(folder, target, tensors=tensors, config={"quantization_config": config})


def compressed(form, weights, inputs=None):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


needs_compressed_tensors = pytest.mark.skipif(
    importlib.util.find_spec("compressed_tensors") is None,
    reason="needs compressed-tensors: pip install 'evenbits[backends]'",
)
