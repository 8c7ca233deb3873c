"""Headers of safetensors files, verified before a byte of weight is believed.

Layout (https://github.com/huggingface/safetensors): 8 bytes, little-endian length N of the header; N bytes of JSON
{name: {dtype, shape, data_offsets: [begin, end]}}; then the data, offsets counted from its first byte, without gaps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from evenbits.errors import IntegrityError
from evenbits.foreign import Entries, named, parse_json, read_object, shown

__all__ = ["MANIFEST", "QUANTIZED", "TensorEntry", "entries", "read_header", "weight_files"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MANIFEST, QUANTIZED = "evenbits.json", "quantized.safetensors"
"""Of a folder that `evenbits quantize` wrote: what its tensors mean, and the file that holds them."""
LONGEST_HEADER = 100_000_000  # bytes; the limit of the reference implementation
DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,15}")
PLAIN = re.compile(r"[^/\\\x00-\x1f]+\.safetensors")
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """Where a tensor lies: `begin` and `end` are bytes counted from the start of `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files that make up the model of `folder`: one, or all the index names.

    Of a folder with the manifest of `evenbits quantize` the file that it speaks of, whatever else lies there.

    Raises `IntegrityError` where the index cannot be read or names a file that is not there.
    """
    if (whole := _whole(folder)) is not None:
        return (whole,)
    index = folder / INDEX
    if not index.is_file():
        return ()
    names = sorted(set(_weight_map(index).values()))
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise IntegrityError(
            f"{index} names {len(names)} files of which {len(absent)} are not there: {', '.join(absent)}. "
            "The download was cut short; fetch the model again."
        )
    return tuple(folder / name for name in names)


def entries(folder: Path) -> dict[str, TensorEntry]:
    """Return every tensor of the model in `folder` by name, sorted, all headers verified."""
    found: dict[str, TensorEntry] = {}
    for file in weight_files(folder):
        for name, entry in read_header(file).items():
            if name in found:
                raise IntegrityError(f"tensor {name} is both in {found[name].file.name} and {file.name} of {folder}")
            found[name] = entry
    index = folder / INDEX
    if index.is_file() and _whole(folder) is None:
        for name, file_name in _weight_map(index).items():
            if name not in found or found[name].file.name != file_name:
                raise IntegrityError(f"{index} says that {name} is in {file_name}, but that file does not hold it")
    return dict(sorted(found.items()))


def _whole(folder: Path) -> Path | None:
    """Return the one file that holds every tensor, None where there is none."""
    if (folder / MANIFEST).is_file() and (folder / QUANTIZED).is_file():
        return folder / QUANTIZED
    return folder / SINGLE if (folder / SINGLE).is_file() else None


def read_header(file: Path) -> Mapping[str, TensorEntry]:
    """Return the tensors of one file. Raises `IntegrityError` with file and byte where header and file disagree."""
    status = file.stat()
    return _read_header(file, status.st_size, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=256)
def _read_header(file: Path, size: int, _version: tuple[int, ...]) -> Mapping[str, TensorEntry]:
    if size < 8:
        raise _broken(file, f"is {size} bytes long, ends inside the header length at byte {size}")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise _broken(file, f"claims a header of {length} bytes at byte 0, which no safetensors file has")
        if 8 + length > size:
            raise _broken(file, f"ends at byte {size}, inside its header of bytes 8 to {8 + length}")
        text = stream.read(length)
    header = Entries.of(
        parse_json(text, source=f"the header of {file}", error=_fetch_again, start=8),
        source=f"the header of {file}",
        error=_fetch_again,
    )
    if "__metadata__" in header.content:  # texts by name, which readers of the format insist on
        notes = header.entries("__metadata__")
        for name in notes.content:
            notes.text(name)
    names = [name for name in header.content if name != "__metadata__"]
    found = [_entry(file, name, header.entries(name), 8 + length) for name in names]
    _check_cover(file, sorted(found, key=lambda entry: (entry.begin, entry.end)), start=8 + length, size=size)
    return {entry.name: entry for entry in found}


def _entry(file: Path, name: str, described: Entries, start: int) -> TensorEntry:
    dtype, shape = described.text("dtype"), described.wholes("shape")
    begin, end = described.wholes("data_offsets", length=2)
    if not DTYPE.fullmatch(dtype):
        raise _broken(file, f"gives tensor {named(name)} the dtype {shown(dtype)}")
    # Formats below 8 bits and of days to come: their extent is believed here, and admission refuses them by name.
    expected = math.prod(shape) * ITEM_BYTES[dtype] if dtype in ITEM_BYTES else max(end - begin, 0)
    if end - begin != expected:
        raise _broken(
            file,
            f"gives tensor {named(name)} {end - begin} bytes from byte {start + begin}, but {dtype} {shown(shape)} "
            f"needs {shown(expected)}",
        )
    return TensorEntry(name=name, file=file, dtype=dtype, shape=shape, begin=start + begin, end=start + end)


def _check_cover(file: Path, found: list[TensorEntry], *, start: int, size: int) -> None:
    place = start
    for entry in found:
        if entry.begin != place:
            raise _broken(file, f"has tensor {entry.name} at byte {entry.begin}, expected at byte {place}")
        place = entry.end
    if place > size:
        cut = next(entry.name for entry in found if entry.end > size)
        raise _broken(file, f"ends at byte {size} of {place}, inside tensor {cut}")
    if place < size:
        raise _broken(file, f"has {size - place} bytes that belong to no tensor, from byte {place}")


def _weight_map(index: Path) -> Mapping[str, str]:
    """Return tensor name -> file name; a name with a folder in it would lead out of the model's own."""
    status = index.stat()
    return _read_weight_map(index, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=16)
def _read_weight_map(index: Path, _version: tuple[int, ...]) -> Mapping[str, str]:
    found = read_object(index, error=_fetch_again).entries("weight_map")
    files = {name: found.text(name) for name in found.content}
    for name, file in files.items():
        if not PLAIN.fullmatch(file):
            raise IntegrityError(
                f"{index} says that {named(name)} is in {shown(file)}, which is no name of a file beside it"
            )
    return files


def _fetch_again(what: str) -> IntegrityError:
    return IntegrityError(f"{what}. The file is truncated or altered; fetch it again.")


def _broken(file: Path, what: str) -> IntegrityError:
    return _fetch_again(f"{file} {what}")
