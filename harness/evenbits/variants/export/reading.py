"""Reading a quantized model back: dequantized weights, and a model in memory that scores as it did when measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evenbits.errors import IntegrityError, ModelError, SpecError
from evenbits.foreign import Entries, read_object, shown
from evenbits.models.admission import read_config
from evenbits.models.anatomy import Linear
from evenbits.models.headers import MANIFEST, QUANTIZED
from evenbits.models.loading import load
from evenbits.models.records import LoadedModel, LocalModel
from evenbits.variants.export.matrices import PARTS, PackedMatrix, unpacked
from evenbits.variants.export.writing import FORMAT, METHOD
from evenbits.variants.quantization.spec import Grid, parse_spec

__all__ = ["dequantized", "load_quantized", "read_manifest"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder that `evenbits quantize` wrote, its weights checked against their checksum.

    `ModelError` for a folder that is none, or of a newer format; `IntegrityError` for damaged files.
    """
    path, weights = folder / MANIFEST, folder / QUANTIZED
    if not path.is_file():
        raise ModelError(f"{folder} has no {MANIFEST}: it was not written by `evenbits quantize`")
    manifest = read_object(path, error=_damaged)
    found, expected = manifest.whole("format", least=1), manifest.text("weights_sha256")
    if found > FORMAT:
        raise ModelError(f"{folder} has format {found}; this evenbits reads up to {FORMAT}. Read it with a newer one.")
    if not weights.is_file():
        raise IntegrityError(f"{weights} is missing; quantize the model again")
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise IntegrityError(f"{weights} is truncated or altered: its checksum is not that of {MANIFEST}")
    return dict(manifest.content)


def dequantized(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (tensor name of the checkpoint, values): quantized matrices in float32, all others as they were stored.

    A matrix has the orientation that the checkpoint has; experts of a product are one tensor, as in the model, however
    the checkpoint has them. One matrix is in memory at a time.
    """
    yield from _tensors(folder, read_manifest(folder))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """What the manifest says of a matrix: how it lies in the checkpoint, its shape O x I, its grid."""

    linear: Linear
    shape: tuple[int, int]
    grid: Grid

    @classmethod
    def of(cls, row: Entries) -> _Row:
        text = row.text("grid")
        try:
            grid = parse_spec(text).grid
        except SpecError as error:
            raise row.error(f"{row.source}: grid {error}") from error
        if grid is None or str(grid) != text:
            raise row.error(f"{row.source}: grid must name one, not {shown(text)}")
        rows, columns = row.wholes("shape", length=2)
        if not rows * columns:
            raise row.error(f"{row.source}: shape {rows} x {columns} holds no weight")
        experts = row.whole("experts", 0)
        if experts and rows % experts:
            raise row.error(f"{row.source}: {rows} rows are not those of {experts} experts")
        transposed = row.flag("transposed")
        name = row.text("tensor")
        linear = Linear(name=name, layer=None, part="mlp", role="", transposed=transposed, experts=experts)
        return cls(linear=linear, shape=(rows, columns), grid=grid)


def _rows(folder: Path, manifest: Mapping[str, Any]) -> dict[str, _Row]:
    """Return what the manifest says of each matrix, by tensor; at least one, each once."""
    entries = Entries(manifest, str(folder / MANIFEST), _damaged)
    rows = [_Row.of(row) for row in entries.rows("matrices")]
    if not rows or len({row.linear.name for row in rows}) < len(rows):
        raise _damaged(f"{folder / MANIFEST} names {'a matrix twice' if rows else 'no quantized matrix'}")
    return {row.linear.name: row for row in rows}


def _tensors(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    rows = _rows(folder, manifest)
    parts = {f"{name}.{part}" for name in rows for part in PARTS}
    try:
        with safe_open(folder / QUANTIZED, framework="pt") as file:
            stored = set(file.keys())
            for name in sorted(stored - parts):
                yield name, file.get_tensor(name)
            for name, row in rows.items():
                found = {part: file.get_tensor(f"{name}.{part}") for part in PARTS if f"{name}.{part}" in stored}
                values_OI = unpacked(PackedMatrix.of(name, row.shape, row.grid, found))
                yield name, row.linear.stored(values_OI).contiguous()
    except SafetensorError as error:
        raise IntegrityError(f"{folder / QUANTIZED} does not hold what {MANIFEST} says: {error}") from error


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(f"{what}. It is damaged; quantize the model again.")


def load_quantized(folder: Path, *, dtype: torch.dtype) -> LoadedModel:
    """Return the quantized model in `folder` as a model to score, its weights dequantized and written in `dtype`.

    In the dtype of the run that measured the spec, scores are those of that run.
    """
    manifest = read_manifest(folder)
    config = read_config(folder)
    local = LocalModel(
        text=str(folder),
        folder=folder,
        fingerprint=str(manifest["weights_sha256"]),
        model_type=config["model_type"],
        parameters=0,
    )
    loaded = load(local, dtype=dtype, weights=dict(_tensors(folder, manifest)), quantized=METHOD)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return replace(loaded, local=replace(local, parameters=parameters))
