"""Reading a quantized model back: dequantized weights, and a model in memory that scores as it did when measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evenbits.errors import IntegrityError, ModelError
from evenbits.models import LoadedModel, LocalModel, load
from evenbits.variants.export.matrices import PARTS, PackedMatrix, unpacked
from evenbits.variants.export.writing import FORMAT, MANIFEST, METHOD, WEIGHTS
from evenbits.variants.quantization.spec import parse_spec

__all__ = ["dequantized", "load_quantized", "read_manifest"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder that `evenbits quantize` wrote, its weights checked against their checksum.

    `ModelError` for a folder that is none, or of a newer format; `IntegrityError` for damaged files.
    """
    path, weights = folder / MANIFEST, folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} has no {MANIFEST}: it was not written by `evenbits quantize`")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, expected = int(manifest["format"]), str(manifest["weights_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); quantize the model again") from error
    if found > FORMAT:
        raise ModelError(f"{folder} has format {found}; this evenbits reads up to {FORMAT}. Read it with a newer one.")
    if not weights.is_file():
        raise IntegrityError(f"{weights} is missing; quantize the model again")
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise IntegrityError(f"{weights} is truncated or altered: its checksum is not that of {MANIFEST}")
    return manifest


def dequantized(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (tensor name of the checkpoint, values): quantized matrices in float32, all others as they were stored.

    A matrix has the orientation that the checkpoint has. One matrix is in memory at a time.
    """
    yield from _tensors(folder, read_manifest(folder))


def _tensors(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    rows = {row["tensor"]: row for row in manifest["matrices"]}
    parts = {f"{name}.{part}" for name in rows for part in PARTS}
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            stored = set(file.keys())
            for name in sorted(stored - parts):
                yield name, file.get_tensor(name)
            for name, row in rows.items():
                found = {part: file.get_tensor(f"{name}.{part}") for part in PARTS if f"{name}.{part}" in stored}
                yield name, _matrix(name, row, found)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise IntegrityError(f"{folder / WEIGHTS} does not hold what {MANIFEST} says: {error}") from error


def _matrix(name: str, row: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> torch.Tensor:
    grid = parse_spec(str(row["grid"])).grid
    assert grid is not None  # noqa: S101 - a manifest names grids, never full precision
    rows, columns = row["shape"]
    values_OI = unpacked(PackedMatrix.of(name, (rows, columns), grid, found))
    return values_OI.t().contiguous() if row["transposed"] else values_OI


def load_quantized(folder: Path, *, dtype: torch.dtype) -> LoadedModel:
    """Return the quantized model in `folder` as a model to score, its weights dequantized and written in `dtype`.

    In the dtype of the run that measured the spec, scores are those of that run.
    """
    manifest = read_manifest(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    local = LocalModel(
        text=str(folder), folder=folder, fingerprint=str(manifest["weights_sha256"]), model_type=config["model_type"],
        parameters=0,
    )  # fmt: skip
    loaded = load(local, dtype=dtype, weights=dict(_tensors(folder, manifest)), quantized=METHOD)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return replace(loaded, local=replace(local, parameters=parameters))
