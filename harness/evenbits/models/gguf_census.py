"""Census of a GGUF file: which types its tensors really have, and what a weight costs. A label is no format."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

from evenbits.foreign import named, shown
from evenbits.models.gguf_header import read_gguf_header

__all__ = ["GgufCensus", "census_of", "census_of_files"]

LABEL = "general.file_type"


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufCensus:
    """`tensors`: number of tensors by type. `bits_per_weight`: of the quantized matrices, as damage rows count it.

    `file_bits_per_weight`: of all tensors, as llama.cpp prints it. `label`: what the file calls itself, if anything.
    Matrices are the two-dimensional weights of the blocks; embedding and head count only in the file's figure.
    """

    tensors: Mapping[str, int]
    bits_per_weight: float
    file_bits_per_weight: float
    label: str | None = None

    def __str__(self) -> str:
        listed = ", ".join(f"{count} x {name}" for name, count in self.tensors.items())
        return f"{listed}; {self.bits_per_weight:.2f} bits per weight"


def census_of(tensors: Iterable[tuple[str, str, tuple[int, ...]]], *, label: str | None = None) -> GgufCensus:
    """Return the census of (name, type, shape) rows; shapes are rows x columns, columns being the quantized axis."""
    counts: Counter[str] = Counter()
    bits = {"blocks": 0.0, "all": 0.0}
    weights = {"blocks": 0, "all": 0}
    for name, kind, shape in tensors:
        counts[kind] += 1
        size = math.prod(shape)
        here = size * bits_of(kind)
        groups = ("all", "blocks") if name.startswith("blk.") and len(shape) > 1 else ("all",)
        for group in groups:
            bits[group] += here
            weights[group] += size
    return GgufCensus(
        tensors=dict(sorted(counts.items(), key=lambda row: (-row[1], row[0]))),
        bits_per_weight=bits["blocks"] / max(weights["blocks"], 1),
        file_bits_per_weight=bits["all"] / max(weights["all"], 1),
        label=label,
    )


def bits_of(kind: str) -> float:
    """Return what a weight of ggml type `kind` takes, scales included."""
    size, stored = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return 8 * float(stored) / float(size)


def census_of_files(paths: Sequence[Path]) -> GgufCensus:
    """Return the census of a GGUF file, in one part or several; `IntegrityError` where one cannot be read."""
    headers = [read_gguf_header(path) for path in paths]
    labels = [
        _label(header.metadata["general.file_type"]) for header in headers if "general.file_type" in header.metadata
    ]
    rows = [(tensor.name, tensor.kind, tensor.shape) for header in headers for tensor in header.tensors]
    return census_of(rows, label=labels[0] if labels else None)


def _label(number: object) -> str:
    known = {int(kind): str(kind.name).removeprefix("MOSTLY_") for kind in gguf.LlamaFileType}
    return known.get(number, named(str(number))) if isinstance(number, int) else shown(number)
