"""Header of a GGUF file, verified before a byte of weight is believed: metadata, and where each tensor lies.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. As in ggml's own reader, tensors follow one another
without gaps, each from a multiple of the alignment. Needs no torch; memory and time are bounded by the file's size.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError
from evenbits.foreign import named, shown

__all__ = ["GgufHeader", "GgufTensor", "read_gguf_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MOST_TENSORS, MOST_ENTRIES = 1 << 20, 1 << 16
LONGEST_KEPT = 1 << 12  # entries; per-layer settings are kept, vocabularies counted
LONGEST_TEXT = 1 << 24  # bytes; chat templates have some thousands
MOST_DIMENSIONS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTensor:
    """`kind`: ggml type, such as Q4_K. `shape`: as torch has it, slowest first. `begin`, `end`: bytes of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """`metadata`: values by key; an array of texts, or of more than 4096 numbers, stands as its length."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(path: Path) -> GgufHeader:
    """Return the header of a whole GGUF file.

    Raises `IntegrityError` with file and byte where the magic, the header or a tensor's extent does not fit.
    """
    size = path.stat().st_size
    if size < 24:
        raise _broken(path, f"is {size} bytes long and ends inside the GGUF header at byte {size}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Cursor(path=path, data=data, size=size).header()


@dataclass(kw_only=True, slots=True)
class _Cursor:
    """A place in the mapped header; moving beyond the end is an `IntegrityError`."""

    path: Path
    data: mmap.mmap
    size: int
    place: int = 0
    order: str = "<"

    def header(self) -> GgufHeader:
        magic = self.data[:4]
        if magic != MAGIC:
            raise _broken(self.path, f"begins with {magic!r} instead of {MAGIC!r} at byte 0, so it is not GGUF")
        self.place = 4
        version = self.number("I")
        if version not in VERSIONS and version & 0xFFFF == 0:
            self.order, self.place = ">", 4
            version = self.number("I")
        if version not in VERSIONS:
            raise _broken(self.path, f"has GGUF version {version} at byte 4; versions {VERSIONS} can be read")
        tensors, pairs = self.number("Q"), self.number("Q")
        if tensors > MOST_TENSORS or pairs > MOST_ENTRIES:
            raise _broken(self.path, f"claims {tensors} tensors and {pairs} entries at byte 8")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name = self.text()
            if name in metadata:
                raise _broken(self.path, f"has the entry {named(name)} twice")
            metadata[name] = self.value(self.number("I"))
        rows = [self.tensor() for _ in range(tensors)]
        return GgufHeader(path=self.path, metadata=metadata, tensors=self.placed(rows, metadata))

    def tensor(self) -> tuple[str, str, tuple[int, ...], int, int]:
        """Return name, type, shape, first byte (from the start of the data) and length in bytes of the next tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        begun = self.place
        name = self.text()
        dimensions = self.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise _broken(self.path, f"gives tensor {named(name)} {dimensions} dimensions at byte {begun}")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        number = self.number("I")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise _broken(self.path, f"gives tensor {named(name)} the unknown type {number} at byte {begun}") from error
        block, width = GGML_QUANT_SIZES[kind]
        if not all(shape) or (shape and shape[-1] % block):
            raise _broken(
                self.path, f"gives tensor {named(name)} the shape {list(shape)}, but {kind.name} has blocks of {block}"
            )
        return name, kind.name, shape, self.number("Q"), math.prod(shape) * width // block

    def placed(
        self, rows: list[tuple[str, str, tuple[int, ...], int, int]], metadata: Mapping[str, Any]
    ) -> tuple[GgufTensor, ...]:
        """Return the tensors with their bytes in the file, held to follow one another and to end where it ends."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise _broken(self.path, f"asks for an alignment of {shown(alignment)} bytes")
        start = expected = -(-self.place // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, kind, shape, offset, length in rows:
            begin, end = start + offset, start + offset + length
            if name in tensors:
                raise _broken(self.path, f"has the tensor {named(name)} twice")
            if begin != expected:
                raise _broken(self.path, f"has tensor {named(name)} at byte {begin}, expected at byte {expected}")
            if end > self.size:
                raise _broken(
                    self.path,
                    f"ends at byte {self.size}, but tensor {named(name)} reaches from byte {begin} to {end}",
                )
            tensors[name] = GgufTensor(name=name, kind=kind, shape=shape, begin=begin, end=end)
            expected = start + -(-(offset + length) // alignment) * alignment
        if self.size > max(expected, self.place):
            raise _broken(self.path, f"has {self.size - expected} bytes that belong to no tensor, from byte {expected}")
        return tuple(tensors.values())

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise _broken(self.path, f"has an entry of unknown type {kind} at byte {self.place - 4}")
        inner, length = self.number("I"), self.number("Q")
        if inner in SCALARS:
            begun, width = self.place, struct.calcsize(SCALARS[inner])
            self.skip(length * width)
            if length > LONGEST_KEPT:
                return length
            return struct.unpack_from(f"{self.order}{length}{SCALARS[inner]}", self.data, begun)
        if inner != STRING or length > self.size // 8:
            raise _broken(self.path, f"claims an array of {length} entries of type {inner} at byte {self.place - 12}")
        for _ in range(length):
            self.skip(self.number("Q"))
        return length

    def number(self, code: str) -> Any:
        width = struct.calcsize(code)
        begun = self.place
        self.skip(width)
        return struct.unpack_from(self.order + code, self.data, begun)[0]

    def text(self) -> str:
        length = self.number("Q")
        begun = self.place
        self.skip(length)
        if length > LONGEST_TEXT:
            raise _broken(self.path, f"has a text of {length} bytes at byte {begun}")
        return self.data[begun : self.place].decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        if self.place + length > self.size:
            raise _broken(self.path, f"ends at byte {self.size}, inside its header at byte {self.place}")
        self.place += length


def _broken(path: Path, what: str) -> IntegrityError:
    return IntegrityError(f"{path} {what}. The file is truncated or altered; fetch it again.")
