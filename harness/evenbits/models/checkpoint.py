"""Checkpoint: tensors of a safetensors folder, read one at a time by memory map.

A tensor returned here is a private view of the file: its pages are read when touched and given back when the tensor is
dropped, so that going through a checkpoint needs the memory of one tensor, or of `rows` of one.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from evenbits.errors import ModelError, NonFiniteError
from evenbits.models.headers import TensorEntry, entries

__all__ = ["check_finite", "dtype_of", "read", "shapes", "stream", "tensor_names", "tensors"]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FINITE_CHUNK = 1 << 20  # numbers looked at together; 4 MiB of float32 stay in cache


def tensor_names(folder: Path) -> tuple[str, ...]:
    """Return the names of all tensors in the checkpoint, sorted."""
    return tuple(entries(folder))


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor as stored, by name."""
    return {name: entry.shape for name, entry in entries(folder).items()}


def read(folder: Path, name: str, *, rows: slice | None = None) -> torch.Tensor:
    """Return tensor `name` in its stored dtype, or only `rows` (contiguous) of its first dimension.

    Writing to it changes neither the file nor a second reading. Raises `ModelError` for an unknown name.
    """
    return _read(_entry(folder, name), rows)


def dtype_of(folder: Path, name: str) -> torch.dtype:
    """Return the dtype in which tensor `name` is stored. Raises `ModelError` for an unknown name."""
    return DTYPES[_entry(folder, name).dtype]


def stream(folder: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) for `names` in their order, or for the whole checkpoint sorted by name."""
    known = entries(folder)
    for name in known if names is None else names:
        yield name, _read(known[name] if name in known else _entry(folder, name), None)


tensors = stream


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise `NonFiniteError`, naming the tensor and the first bad place, where `tensor` holds NaN or infinity."""
    if not tensor.is_floating_point():
        return
    flat = tensor.detach().reshape(-1)
    if flat.device.type != "cpu" and flat.element_size() > 1 and bool(torch.isfinite(flat).all()):
        return  # one wait for the device; where something is wrong, its place is looked for below
    for start in range(0, flat.numel(), FINITE_CHUNK):
        chunk = flat[start : start + FINITE_CHUNK]
        if chunk.element_size() == 1:  # float8 has no isfinite
            chunk = chunk.float()
        # One pass, several times faster than asking each number: NaN comes through, infinity is an extreme.
        if not all(math.isfinite(extreme) for extreme in torch.aminmax(chunk)):
            finite = torch.isfinite(chunk)
            place = start + int((~finite).nonzero()[0])
            value = float(flat[place])
            where = ", ".join(str(int(i)) for i in np.unravel_index(place, tuple(tensor.shape)))
            raise NonFiniteError(
                f"tensor {name} holds {value} at [{where}]; a model with such weights gives no probabilities. "
                "Fetch the checkpoint again, or ask its author for one that is sound."
            )


def _entry(folder: Path, name: str) -> TensorEntry:
    known = entries(folder)
    if name not in known:
        raise ModelError(f"the checkpoint {folder} has no tensor {name!r}; it has {len(known)} others")
    return known[name]


def _read(entry: TensorEntry, rows: slice | None) -> torch.Tensor:
    dtype = DTYPES[entry.dtype]
    shape, begin = entry.shape, entry.begin
    if rows is not None:
        if not shape:
            raise ModelError(f"tensor {entry.name} is a single number and has no rows")
        first, last, step = rows.indices(shape[0])
        if step != 1:
            raise ModelError(f"rows of {entry.name} must be neighbours, got step {step}")
        begin += first * math.prod(shape[1:]) * dtype.itemsize
        shape = (max(last - first, 0), *shape[1:])
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    page = begin - begin % mmap.ALLOCATIONGRANULARITY
    with entry.file.open("rb") as file:
        # A private copy-on-write map: torch wants writable memory, the file stays as it is.
        mapped = mmap.mmap(file.fileno(), begin - page + count * dtype.itemsize, access=mmap.ACCESS_COPY, offset=page)
    if begin % dtype.itemsize:  # headers of odd length exist; torch needs aligned numbers
        data = bytearray(memoryview(mapped)[begin - page :])
        return torch.frombuffer(data, dtype=dtype, count=count).reshape(shape)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=begin - page).reshape(shape)
