"""Codes of a quantized checkpoint as the plain weights that they stand for.

transformers has ways of its own for FP8 in blocks and for compressed-tensors, and neither is used: it takes one scheme
for all layers where a checkpoint mixes several (8-bit codes read as 4-bit ones), divides rows evenly where blocks do
not divide them (192 rows in blocks of 128 as 96 and 96), keeps FP8 and rounds activations on GPUs that multiply it, and
stumbles over scales of activations. Here each matrix is decoded by its own scheme, which leaves a plain checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evenbits.errors import EngineError, ModelError
from evenbits.models.checkpoint import stream

__all__ = ["plain_weights"]

CODES = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_global_scale")
"""Parts of a matrix in compressed-tensors, beside `weight` itself."""

ACTIVATIONS = re.compile(r"((input|output|activation|[qkv])_(scale|zero_point|global_scale))")
"""Parts that say how activations or a KV cache are rounded where it is deployed, which is not measured here."""

Tensors = dict[str, torch.Tensor]


def plain_weights(folder: Path, config: Mapping[str, Any], *, dtype: torch.dtype) -> Tensors:
    """Return every tensor of the checkpoint, matrices as weights of `dtype`, on the CPU.

    `config`: its `quantization_config`. `ModelError` names a matrix that lacks a part or whose parts do not fit.
    """
    modules: dict[str, Tensors] = {}
    for name, tensor in stream(folder):
        module, _, part = name.rpartition(".")
        if not ACTIVATIONS.fullmatch(part):
            modules.setdefault(module, {})[part] = tensor
    decode = _fp8(config) if config.get("quant_method") == "fp8" else _compressed(config)
    plain: Tensors = {}
    for module in list(modules):
        parts = modules.pop(module)
        for part, tensor in decode(module, parts, dtype).items():
            plain[f"{module}.{part}" if module else part] = tensor
    return plain


def _fp8(config: Mapping[str, Any]) -> Any:
    """Return what decodes the matrices of `quant_method: fp8`: scales of blocks, the last ones smaller, or of all."""
    block = config.get("weight_block_size")

    def decode(module: str, parts: Tensors, dtype: torch.dtype) -> Tensors:
        found = dict(parts)
        for part, weight in parts.items():
            if weight.dtype != torch.float8_e4m3fn:
                continue
            scale = found.pop(f"{part}_scale_inv", found.pop(f"{part}_scale", None))
            if scale is None:
                raise ModelError(f"{module} has FP8 codes in {part} and no scale of them. Fetch the checkpoint again.")
            found[part] = (weight.float() * _spread(module, weight, scale.float(), block)).to(dtype)
        return found

    return decode


def _spread(module: str, weight: torch.Tensor, scale: torch.Tensor, block: Any) -> torch.Tensor:
    """Return the scale of every weight, or what broadcasts to it."""
    if scale.numel() == 1:
        return scale.reshape(())
    if block is None:
        if scale.shape in {(weight.shape[0],), (*weight.shape[:-1], 1)}:
            return scale.reshape(*weight.shape[:-1], 1)
        needed = "one for each row, or one"
    else:
        rows, columns = (int(size) for size in block)
        blocks = (*weight.shape[:-2], -(-weight.shape[-2] // rows), -(-weight.shape[-1] // columns))
        if scale.shape == blocks:
            wide = scale.repeat_interleave(rows, dim=-2)[..., : weight.shape[-2], :]
            return wide.repeat_interleave(columns, dim=-1)[..., : weight.shape[-1]]
        needed = f"{blocks} for blocks of {rows} x {columns}"
    raise ModelError(
        f"{module} has {tuple(scale.shape)} scales for {tuple(weight.shape)} weights, where the format needs {needed}."
    )


def _compressed(config: Mapping[str, Any]) -> Any:
    """Return what decodes the matrices of compressed-tensors, each by the scheme whose targets name it."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_targets

    known = QuantizationConfig.model_validate({key: value for key, value in config.items() if key != "quant_method"})
    schemes = {target: scheme for scheme in known.config_groups.values() for target in scheme.targets}
    linear = torch.nn.Linear(1, 1, device="meta")

    def decode(module: str, parts: Tensors, dtype: torch.dtype) -> Tensors:
        codes = {part: tensor for part, tensor in parts.items() if part in {*CODES, "weight"}}
        if not set(codes) & set(CODES):
            return parts
        targets = match_targets(module, linear, schemes)
        if not targets:
            raise ModelError(f"{module} has codes, and no group of the checkpoint's quantization_config names it.")
        scheme = schemes[targets[0]]
        form = str(scheme.format or known.format)
        try:
            found = BaseCompressor.get_value_from_registry(form).decompress(codes, scheme)["weight"]
        except Exception as error:  # every format has errors of its own
            said = f"{type(error).__name__}, {error}"
            raise EngineError(
                f"compressed-tensors cannot decode {module}, {', '.join(codes)}, as {form}: {said}"
            ) from error
        return {**{part: parts[part] for part in parts if part not in codes}, "weight": found.to(dtype)}

    return decode
