"""GGUF: checked by its own header, dequantized once to float32 safetensors in the store.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError, ModelError
from evenbits.models.quiet import bars_of, quiet_transformers
from evenbits.progress import Progress, Silent

__all__ = ["check", "dequantize", "read_metadata"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LONGEST = 1 << 32  # no count or length in a real file comes near


def check(path: Path) -> dict[str, Any]:
    """Return the metadata of a whole GGUF file (arrays as their lengths).

    Raises `IntegrityError` with file and byte where the magic, the header or a tensor's extent does not fit.
    """
    size = path.stat().st_size
    if size < 24:
        raise _broken(path, f"is {size} bytes long and ends inside the GGUF header at byte {size}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(path=path, data=data, size=size)
        metadata, tensors = cursor.header()
        alignment = int(metadata.get("general.alignment", 32))
        if alignment <= 0:
            raise _broken(path, f"asks for an alignment of {alignment} bytes")
        start = -(-cursor.place // alignment) * alignment
    for name, begin, length in tensors:
        if start + begin + length > size:
            raise _broken(
                path,
                f"ends at byte {size}, but tensor {name} reaches from byte {start + begin} to {start + begin + length}",
            )
    return metadata


read_metadata = check


def dequantize(path: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Write the model of GGUF file `path` into folder `target` as float32 safetensors, config and tokenizer.

    About half a minute for 135 million parameters on 2 cores, most of it reading the vocabulary and mapping names.
    """
    import torch  # noqa: PLC0415 - heavy
    import transformers  # noqa: PLC0415 - heavy

    shown = progress or Silent()
    arguments: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    # Newer transformers keep weights packed unless told otherwise.
    unpack = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    try:
        with (
            shown.task(f"Dequantizing {path.name}", 3) as steps,
            quiet_transformers(shown),
            _one_reading(shown),
            _alone(path) as folder,
        ):
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, **unpack, **arguments
            )
            steps.advance()
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **arguments)
            steps.advance()
            # A model that says it is quantized refuses to be saved; it no longer is.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
            steps.advance()
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"transformers {transformers.__version__} cannot read the GGUF file {path}: {error}. Give the original "
            "safetensors model instead."
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Yield a folder that holds a link to the file and nothing else: transformers prefers a tokenizer beside it."""
    with tempfile.TemporaryDirectory(prefix="evenbits-gguf-") as name:
        folder = Path(name)
        (folder / path.name).symlink_to(path.absolute())
        yield folder


@contextmanager
def _one_reading(progress: Progress) -> Iterator[None]:
    """Have transformers parse the file once, and show its bar: it makes a new reader for each of its steps.

    A reader walks through every token of the vocabulary in Python, some seconds each time; it only reads, so sharing
    one is safe.
    """
    gguf: Any = import_module("gguf")
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    original, bar = gguf.GGUFReader, getattr(reading, "tqdm", None)
    readers: dict[str, Any] = {}

    def shared(path: Any, mode: str = "r") -> Any:  # noqa: ANN401 - the signature of the reader
        if mode != "r":
            return original(path, mode)
        if str(path) not in readers:
            readers[str(path)] = original(path, mode)
        return readers[str(path)]

    gguf.GGUFReader = shared
    if bar is not None:  # not one of the bars that transformers lets others draw
        reading.tqdm = bars_of(progress)
    try:
        yield
    finally:
        gguf.GGUFReader = original
        if bar is not None:
            reading.tqdm = bar


@dataclass(kw_only=True, slots=True)
class _Cursor:
    """A place in the mapped header; moving beyond the end is an `IntegrityError`."""

    path: Path
    data: mmap.mmap
    size: int
    place: int = 0
    order: str = "<"

    def header(self) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
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
        if max(tensors, pairs) > LONGEST:
            raise _broken(self.path, f"claims {tensors} tensors and {pairs} entries at byte 8")
        metadata = {}
        for _ in range(pairs):
            name = self.text()
            metadata[name] = self.value(self.number("I"))
        return metadata, [self.tensor() for _ in range(tensors)]

    def tensor(self) -> tuple[str, int, int]:
        """Return name, first byte (from the start of the data) and length in bytes of the next tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415 - only needed here

        begun = self.place
        name = self.text()
        dimensions = self.number("I")
        if dimensions > 8:
            raise _broken(self.path, f"gives tensor {name} {dimensions} dimensions at byte {begun}")
        count = 1
        for _ in range(dimensions):
            count *= self.number("Q")
        kind = self.number("I")
        try:
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except ValueError as error:
            raise _broken(self.path, f"gives tensor {name} the unknown type {kind} at byte {begun}") from error
        return name, self.number("Q"), count * width // block

    def value(self, kind: int) -> Any:  # noqa: ANN401 - any metadata type
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, length = self.number("I"), self.number("Q")
            if inner in SCALARS:
                self.skip(length * struct.calcsize(SCALARS[inner]))
            elif length > LONGEST:
                raise _broken(self.path, f"claims an array of {length} entries at byte {self.place - 8}")
            else:
                for _ in range(length):
                    if inner == STRING:
                        self.skip(self.number("Q"))
                    else:
                        self.value(inner)
            return length
        raise _broken(self.path, f"has an entry of unknown type {kind} at byte {self.place - 4}")

    def number(self, code: str) -> Any:  # noqa: ANN401 - int, float or bool by code
        width = struct.calcsize(code)
        begun = self.place
        self.skip(width)
        return struct.unpack_from(self.order + code, self.data, begun)[0]

    def text(self) -> str:
        length = self.number("Q")
        begun = self.place
        self.skip(length)
        return self.data[begun : self.place].decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        if self.place + length > self.size:
            raise _broken(self.path, f"ends at byte {self.size}, inside its header at byte {self.place}")
        self.place += length


def _broken(path: Path, what: str) -> IntegrityError:
    return IntegrityError(f"{path} {what}. The file is truncated or altered; fetch it again.")
