"""The C interface of llama.cpp, bound with ctypes: a file is opened, token ids go in, logits come out.

Nothing is compiled and no header is needed. The two large parameter structs are passed through as opaque blocks; of the
context's parameters only a few are set, and those are found by the documented defaults around them, which every build
since 2025 has in this order (llama.h):

    n_ctx 512, n_batch 2048, n_ubatch 512, n_seq_max 1, ..., flash_attn_type -1, rope base 0, rope scale 0,
    yarn_ext_factor -1, yarn_attn_factor -1, yarn_beta_fast -1, yarn_beta_slow -1, yarn_orig_ctx 0, defrag_thold -1,
    cb_eval null, cb_eval_user_data null, type_k F16, type_v F16

A build whose defaults do not lie so is refused, never guessed at. This module needs numpy alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENVIRONMENT", "KV_TYPES", "Engine", "LibraryError", "OpenModel", "engine_at", "find_library"]

ENVIRONMENT = "EVENBITS_LLAMA_CPP"
KV_TYPES = {"f32": 0, "f16": 1}
"""Types of the key-value cache, by their numbers in ggml.h."""

PREFIX_KEYS = (b"tokenizer.ggml.bos_token_id", b"tokenizer.ggml.eos_token_id")
PADDED = 1024  # bytes; the largest parameter struct so far has 176
MINUS_ONE = struct.unpack("<I", struct.pack("<f", -1.0))[0]
YARN = (MINUS_ONE,) * 4
FLASH, TYPE_K, TYPE_V = -3, 10, 11  # words away from yarn_ext_factor
HEAD = (512, 2048, 512, 1)


class LibraryError(Exception):
    """The library, or the file it was given, cannot be used; the message is a sentence."""


class _Parameters(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint32 * (PADDED // 4)),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_POINTER, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_print_system_info": (_TEXT, ()),
    "llama_model_default_params": (_Parameters, ()),
    "llama_context_default_params": (_Parameters, ()),
    "llama_model_load_from_file": (_POINTER, (_TEXT, _Parameters)),
    "llama_model_free": (None, (_POINTER,)),
    "llama_model_get_vocab": (_POINTER, (_POINTER,)),
    "llama_model_desc": (_INT, (_POINTER, _TEXT, ctypes.c_size_t)),
    "llama_model_meta_val_str": (_INT, (_POINTER, _TEXT, _TEXT, ctypes.c_size_t)),
    "llama_init_from_model": (_POINTER, (_POINTER, _Parameters)),
    "llama_free": (None, (_POINTER,)),
    "llama_n_ctx": (ctypes.c_uint32, (_POINTER,)),
    "llama_n_batch": (ctypes.c_uint32, (_POINTER,)),
    "llama_set_n_threads": (None, (_POINTER, _INT, _INT)),
    "llama_get_memory": (_POINTER, (_POINTER,)),
    "llama_memory_clear": (None, (_POINTER, ctypes.c_bool)),
    "llama_batch_init": (_Batch, (_INT, _INT, _INT)),
    "llama_batch_free": (None, (_Batch,)),
    "llama_decode": (_INT, (_POINTER, _Batch)),
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), (_POINTER,)),
    "llama_vocab_n_tokens": (_INT, (_POINTER,)),
    "llama_vocab_get_text": (_TEXT, (_POINTER, _INT)),
    "llama_tokenize": (
        _INT,
        (_POINTER, _TEXT, _INT, ctypes.POINTER(ctypes.c_int32), _INT, ctypes.c_bool, ctypes.c_bool),
    ),
}
_OPTIONAL: dict[str, tuple[object, tuple[object, ...]]] = {
    "llama_version": (_TEXT, ()),
    "ggml_version": (_TEXT, ()),
    "ggml_commit": (_TEXT, ()),
    "ggml_backend_load_all_from_path": (None, (_TEXT,)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """What computes: `name` and `version` for people, `build` (commit of the kernels), `device` (CPU variant, GPU)."""

    name: str
    version: str
    build: str
    device: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.build}, {self.device})"


def find_library(given: str | None = None) -> Path:
    """Return the shared library: `given` (file or folder), else $EVENBITS_LLAMA_CPP, else that of llama-cpp-python."""
    named = given or os.environ.get(ENVIRONMENT)
    if named:
        return _library_in(Path(named).expanduser())
    spec = find_spec("llama_cpp")
    if spec is not None and spec.submodule_search_locations:
        return _library_in(Path(next(iter(spec.submodule_search_locations))) / "lib")
    raise LibraryError(
        f"no llama.cpp was found to run GGUF files with. Set {ENVIRONMENT} to the folder of a build (that of the npm "
        "package @node-llama-cpp/linux-x64 will do: bins/linux-x64), or install llama-cpp-python (pip install "
        '"evenbits[llama-cpp]", which compiles for half an hour or more)'
    )


def _library_in(place: Path) -> Path:
    if place.is_file():
        return place
    patterns = ("libllama.so", "libllama.v*.so", "libllama.so.*", "libllama.dylib", "libllama.*.dylib", "llama.dll")
    found = [file for pattern in patterns for file in sorted(place.glob(pattern))]
    if not found:
        raise LibraryError(f"{place} holds no llama.cpp library (libllama.so or the like); set {ENVIRONMENT} to one")
    return found[0]


class Library:
    """A loaded libllama with the kernels that lie beside it."""

    def __init__(self, path: Path) -> None:
        try:
            self.c = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                _declare(self.c, name, result, arguments)
        except (OSError, AttributeError) as error:
            raise LibraryError(
                f"{path} cannot be used as llama.cpp: {error}. Give a build of 2025-09 or later"
            ) from None
        for name, (result, arguments) in _OPTIONAL.items():
            if hasattr(self.c, name):
                _declare(self.c, name, result, arguments)
        self.path = path
        if hasattr(self.c, "ggml_backend_load_all_from_path"):
            self.c.ggml_backend_load_all_from_path(os.fsencode(path.parent))
        self.c.llama_backend_init()

    def engine(self) -> Engine:
        """Return the name, version, build and device that stand in every result."""
        return Engine(
            name="llama.cpp",
            version=self._text("llama_version") or f"ggml {self._text('ggml_version') or 'of unknown version'}",
            build=self._text("ggml_commit") or "unknown build",
            device=_device(self._text("llama_print_system_info") or ""),
        )

    def _text(self, function: str) -> str | None:
        return getattr(self.c, function)().decode("utf-8", "replace") if hasattr(self.c, function) else None

    def context_parameters(self, *, context: int, kv: str) -> _Parameters:
        """Return the context's parameters: window and batch of `context` tokens, key-value cache of type `kv`."""
        parameters: _Parameters = self.c.llama_context_default_params()
        yarn = _yarn_at(parameters.words, self.path)
        words = parameters.words
        words[0] = words[1] = context
        words[2] = min(context, HEAD[2])
        words[yarn + TYPE_K] = words[yarn + TYPE_V] = KV_TYPES[kv]
        if kv == "f32":
            words[yarn + FLASH] = 0  # the fused kernel would round to 16 bits what the cache holds in 32
        return parameters


class OpenModel:
    """A GGUF file with a context of `context` tokens, ready to be asked for logits."""

    def __init__(self, library: Library, path: Path, *, context: int, kv: str, threads: int) -> None:
        self._c = library.c
        self._model = self._c.llama_model_load_from_file(os.fsencode(path), self._c.llama_model_default_params())
        if not self._model:
            raise LibraryError(f"llama.cpp cannot open {path}")
        self._vocabulary = self._c.llama_model_get_vocab(self._model)
        self.vocabulary = int(self._c.llama_vocab_n_tokens(self._vocabulary))
        parameters = library.context_parameters(context=context, kv=kv)
        self._context = self._c.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise LibraryError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        if self._c.llama_n_ctx(self._context) < context or self._c.llama_n_batch(self._context) < context:
            raise LibraryError(f"llama.cpp did not take a context of {context} tokens for {path}")
        self._c.llama_set_n_threads(self._context, threads, threads)
        self._capacity = context
        self._batch = self._c.llama_batch_init(context, 0, 1)

    def prefix(self) -> int | None:
        """Return the file's BOS, else EOS; None where its metadata names neither.

        llama_vocab_bos would answer a built-in default (11 for BPE) where there is no key.
        """
        space = ctypes.create_string_buffer(32)
        for key in PREFIX_KEYS:
            found = self._c.llama_model_meta_val_str(self._model, key, space, len(space))
            if found > 0 and int(space.value) < self.vocabulary:
                return int(space.value)
        return None

    def text_of(self, token: int) -> str | None:
        """Return how the file writes `token`; None where it has no such token."""
        if not 0 <= token < self.vocabulary:
            return None
        text: bytes = self._c.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", "replace")

    def description(self) -> str:
        """Return the file's architecture and size in llama.cpp's words."""
        space = ctypes.create_string_buffer(256)
        self._c.llama_model_desc(self._model, space, len(space))
        return space.value.decode("utf-8", "replace")

    def tokens(self, text: str) -> list[int]:
        """Return the file's own tokens of `text`, without special tokens."""
        data = text.encode("utf-8")
        space = (ctypes.c_int32 * (len(data) + 16))()
        count = self._c.llama_tokenize(self._vocabulary, data, len(data), space, len(space), False, False)
        if count < 0:
            raise LibraryError(f"llama.cpp's tokenizer wants {-count} tokens for {len(data)} bytes")
        return list(space[:count])

    def logits(self, ids: Sequence[int], last: int) -> NDArray[np.float32]:
        """Return the logits after each of the `last` tokens of `ids`, shape (last, vocabulary): a view until the next.

        The window starts from an empty cache.
        """
        if not 1 <= last <= len(ids) <= self._capacity:
            raise LibraryError(f"{last} of {len(ids)} tokens were asked of a context of {self._capacity}")
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        batch = self._batch
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place >= len(ids) - last
        code = self._c.llama_decode(self._context, batch)
        if code:
            raise LibraryError(f"llama_decode returned {code} for a window of {len(ids)} tokens")
        return np.ctypeslib.as_array(self._c.llama_get_logits(self._context), shape=(last, self.vocabulary))

    def close(self) -> None:
        self._c.llama_batch_free(self._batch)
        self._c.llama_free(self._context)
        self._c.llama_model_free(self._model)


def _declare(library: ctypes.CDLL, name: str, result: object, arguments: tuple[object, ...]) -> None:
    function = getattr(library, name)
    function.restype, function.argtypes = result, list(arguments)


def _yarn_at(words: Sequence[int], path: Path) -> int:
    """Return the place of yarn_ext_factor among the words of the default context parameters."""
    known = len(words)
    places = [place for place in range(len(HEAD), known - TYPE_V) if tuple(words[place : place + 4]) == YARN]
    fits = [place for place in places if _has_defaults(words, place)]
    if tuple(words[: len(HEAD)]) != HEAD or len(fits) != 1:
        raise LibraryError(
            f"{path} is a llama.cpp whose parameters lie in an order that evenbits does not know; "
            "give another build, or report its version"
        )
    return fits[0]


def _has_defaults(words: Sequence[int], yarn: int) -> bool:
    between = tuple(words[yarn - 2 : yarn])  # rope base and scale
    after = tuple(words[yarn + 4 : yarn + 6])  # yarn_orig_ctx, defrag_thold
    callbacks = tuple(words[yarn + 6 : yarn + 10])
    types = (words[yarn + TYPE_K], words[yarn + TYPE_V])
    flash = words[yarn + FLASH]
    return (
        between == (0, 0)
        and after == (0, MINUS_ONE)
        and callbacks == (0, 0, 0, 0)
        and types == (KV_TYPES["f16"], KV_TYPES["f16"])
        and flash == 0xFFFFFFFF  # automatic
    )


def _device(system: str) -> str:
    """Return what the kernels run on: the CPU variant's file where there is one, and what other backends say."""
    others = [part.split(":")[0].strip() for part in system.split("|") if " : " in part]
    names = [name for name in others if name and name != "CPU"]
    variant = _cpu_variant()
    features = " ".join(
        piece.split("=")[0].split(":")[-1].strip() for piece in system.split("|") if piece.strip().endswith("= 1")
    )
    return "+".join([*names, f"CPU {variant or features or 'plain'}"])


def _cpu_variant() -> str | None:
    """Return `zen4` of a loaded libggml-cpu-zen4.so; None for a build without variants, or where /proc is missing."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = {Path(line.split()[-1]).name for line in lines if "libggml-cpu-" in line}
    return "+".join(sorted(name.removeprefix("libggml-cpu-").split(".")[0] for name in files)) or None


def engine_at(path: Path) -> Engine:
    """Return the engine that the library at `path` is on this machine."""
    return Library(path).engine()
