"""Packing: codes of a few bits side by side in bytes, without gaps.

Code n stands in bits n * b to n * b + b - 1 of the stream, its lowest bit first; bit k of the stream is bit k % 8 (from
the lowest) of byte k // 8. The last byte is filled up with zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack", "packed_bytes", "unpack"]

Bytes = NDArray[np.uint8]

BLOCK = 1 << 20
"""Codes handled at once: eight bytes each while they are taken apart. A multiple of 8, so that blocks end at bytes."""


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes `count` codes of `bits` bits take."""
    return -(-count * bits // 8)


def pack(codes: Bytes, bits: int) -> Bytes:
    """Return `codes` (one axis, each below 2^bits) packed; `ValueError` for a code that does not fit."""
    if len(codes) and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit into {bits} bits")
    found = np.empty(packed_bytes(len(codes), bits), dtype=np.uint8)
    for start in range(0, len(codes), BLOCK):
        block = codes[start : start + BLOCK]
        stream = np.unpackbits(block[:, None], axis=1, bitorder="little")[:, :bits]
        first = start * bits // 8
        found[first : first + packed_bytes(len(block), bits)] = np.packbits(stream.ravel(), bitorder="little")
    return found


def unpack(packed: Bytes, count: int, bits: int) -> Bytes:
    """Return the `count` codes that `pack` was given; `ValueError` where `packed` has another length."""
    if len(packed) != packed_bytes(count, bits):
        raise ValueError(f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, got {len(packed)}")
    codes = np.empty(count, dtype=np.uint8)
    for start in range(0, count, BLOCK):
        here = min(BLOCK, count - start)
        first = start * bits // 8
        stream = np.unpackbits(packed[first : first + packed_bytes(here, bits)], count=here * bits, bitorder="little")
        codes[start : start + here] = np.packbits(stream.reshape(here, bits), axis=1, bitorder="little")[:, 0]
    return codes
