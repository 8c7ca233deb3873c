"""llama.cpp's own quantizer on a GGUF file, in a process of its own: for files to ship, and to check our rounding by.

From a shell: `python -m evenbits.variants.llama_cpp.quantizing IN.gguf OUT.gguf Q4_K_M [PATTERN=TYPE ...]`, the
patterns being those of llama-quantize's `--tensor-type`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from evenbits.errors import EngineError
from evenbits.variants.llama_cpp.library import Library, LibraryError, find_library

__all__ = ["quantize_file"]

Q8_0 = 7  # the default file type: what the parameters are known by
FILE_TYPE, ALLOW_REQUANTIZE = 1, 16  # word, byte
IMATRIX, OVERRIDES = 3, 5  # eight-byte words


class _Parameters(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * 32),)


class _Imatrix(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


class _Override(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))


def quantize_file(
    source: Path,
    target: Path,
    file_type: str,
    *,
    overrides: Sequence[tuple[str, str]] = (),
    imatrix: Mapping[str, NDArray[np.float32]] | None = None,
    library: str | None = None,
) -> None:
    """Write `source` (F32, F16 or BF16, or whatever is to be rounded again) as `file_type` into `target`.

    `overrides`: (pattern, type) as `--tensor-type`. `imatrix`: mean square of each input by tensor name.
    Raises `EngineError` with llama.cpp's words where it refuses or dies; then nothing is left at `target`.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "imatrix.npz"
        if imatrix is not None:
            named: dict[str, Any] = {name: np.asarray(values, dtype=np.float32) for name, values in imatrix.items()}
            np.savez(table, **named)
        order = {
            "library": library,
            "source": str(source),
            "target": str(target),
            "file_type": file_type,
            "overrides": list(overrides),
            "imatrix": str(table) if imatrix is not None else None,
        }
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "evenbits.variants.llama_cpp.quantizing", json.dumps(order)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        target.unlink(missing_ok=True)
        how = f" ({signal.Signals(-done.returncode).name})" if done.returncode < 0 else ""
        lines = [line for line in done.stderr.splitlines() if line.strip()][-2:]
        raise EngineError(f"llama.cpp could not write {target.name} as {file_type}{how}: {' / '.join(lines)}")


def _quantize(order: Mapping[str, Any]) -> None:
    """Do what `quantize_file` asked for, in this process."""
    c: Any = Library(find_library(order["library"])).c
    c.llama_model_quantize_default_params.restype = _Parameters
    c.llama_model_quantize.restype = ctypes.c_uint32
    c.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters)]
    parameters = c.llama_model_quantize_default_params()
    bytes_ = ctypes.cast(ctypes.pointer(parameters), ctypes.POINTER(ctypes.c_uint8))
    words = ctypes.cast(ctypes.pointer(parameters), ctypes.POINTER(ctypes.c_uint32))
    if words[FILE_TYPE] != Q8_0 or words[2] != words[3] or any(parameters.words[place] for place in range(3, 7)):
        raise LibraryError("this llama.cpp has its quantizer's parameters in an order that evenbits does not know")
    words[FILE_TYPE] = int(gguf.LlamaFileType[f"MOSTLY_{order['file_type']}"])
    bytes_[ALLOW_REQUANTIZE] = 1
    types = gguf.GGMLQuantizationType
    rows = [_Override(pattern.encode(), int(types[kind.upper()])) for pattern, kind in order["overrides"]]
    overrides = (_Override * (len(rows) + 1))(*rows, _Override(None, 0))
    if rows:
        parameters.words[OVERRIDES] = ctypes.addressof(overrides)
    table, kept = _imatrix(order["imatrix"])
    if table is not None:
        parameters.words[IMATRIX] = ctypes.addressof(table)
    code = c.llama_model_quantize(os.fsencode(order["source"]), os.fsencode(order["target"]), parameters)
    del kept  # alive until here: the table points into it
    if code:
        raise LibraryError(f"llama_model_quantize returned {code}")


def _imatrix(path: str | None) -> tuple[Any, list[NDArray[np.float32]]]:
    """Return the table for the quantizer, ended by an empty row, and the arrays that it points into."""
    if path is None:
        return None, []
    with np.load(path) as found:
        arrays = {name: np.ascontiguousarray(found[name]) for name in found.files}
    rows = [
        _Imatrix(name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
        for name, values in arrays.items()
    ]
    return (_Imatrix * (len(rows) + 1))(*rows, _Imatrix(None, None, 0)), list(arrays.values())


def _from_shell(arguments: Sequence[str]) -> None:
    if len(arguments) == 1:
        _quantize(json.loads(arguments[0]))
        return
    source, target, file_type, *pairs = arguments
    overrides = [(pattern, kind) for pattern, _, kind in (pair.rpartition("=") for pair in pairs)]
    quantize_file(Path(source), Path(target), file_type, overrides=overrides)


if __name__ == "__main__":
    try:
        _from_shell(sys.argv[1:])
    except (LibraryError, EngineError) as failure:
        sys.exit(str(failure))
