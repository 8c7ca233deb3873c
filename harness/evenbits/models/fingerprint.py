"""Fingerprint: two folders have the same one exactly when they are the same function of text.

SHA-256 over every tensor (name, dtype, shape, bytes; how tensors are spread over files does not matter), the
tokenizer's files, the configuration without entries that change nothing a forward pass computes, the repository's own
code where it runs, and the manifest of a folder that `evenbits quantize` wrote. A tokenizer that another package than
tokenizers reads is that of the package's version.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError
from evenbits.foreign import read_json
from evenbits.models.code import code_files
from evenbits.models.headers import MANIFEST, TensorEntry, entries, weight_files
from evenbits.records import digest_of
from evenbits.store import Store

__all__ = ["file_sha256", "fingerprint", "tokenizer_files"]

VERSION = 1
RESTING = 2_000_000_000
"""Nanoseconds that a file must have stayed unchanged: the coarsest clocks of file systems tick every two seconds."""

BLOCK, SAMPLES = 1 << 14, 64  # bytes; a file of up to 1 MiB is sampled whole
TOKENIZER_NAMES = (
    "tokenizer*.json",  # with those that tokenizer_config.json lists for other versions of transformers
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",  # of sentencepiece, by many names; tiktoken.model
    "*.model.v*",  # mistral-common's
    "*tekken*.json",
    "*.tiktoken",
)
IRRELEVANT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "initializer_range",
        "init_std",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "task_specific_params",
        # dropout is off in evaluation
        "attention_dropout",
        "activation_dropout",
        "dropout",
        "hidden_dropout",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "classifier_dropout",
        "layerdrop",
        "summary_first_dropout",
    }
)


def fingerprint(folder: Path, *, store: Store) -> str:
    """Return the fingerprint (64 hex digits) of the checked model in `folder`.

    Read whole once; later the stored result is found by the state of every file it depends on (`_state`). Raises
    `IntegrityError` for a folder without a tensor: any two of those would be the same.
    """
    files = (*weight_files(folder), folder / "config.json", *tokenizer_files(folder), *_further_files(folder))
    return _remembered("fingerprints", files, lambda: _measure(folder), store=store, readers=_readers(folder))


def file_sha256(file: Path, *, store: Store) -> str:
    """Return the SHA-256 of one file's bytes, read once like those of a fingerprint."""

    def measure() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return _remembered("checksums", (file,), measure, store=store)


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the tokenizer's files in `folder`, sorted by name."""
    found = {file for name in TOKENIZER_NAMES for file in folder.glob(name) if file.is_file()}
    return tuple(sorted(found))


def _readers(folder: Path) -> dict[str, str]:
    """Return the versions of what reads the tokenizer beside tokenizers, whose version is part of all arithmetic."""
    names = [file.name for file in tokenizer_files(folder)]
    packages = ["mistral_common"] if any("tekken" in name for name in names) else []
    if "tokenizer.json" not in names and any(".model" in name for name in names):
        packages += ["sentencepiece", "tiktoken"]
    return {package: metadata.version(package) for package in packages if find_spec(package) is not None}


def _further_files(folder: Path) -> tuple[Path, ...]:
    """Return what most folders lack and every byte of which counts: code, the manifest of `evenbits quantize`."""
    manifest = folder / MANIFEST
    return (*code_files(folder), *((manifest,) if manifest.is_file() else ()))


def _remembered(
    kind: str,
    files: Sequence[Path],
    measure: Callable[[], str],
    *,
    store: Store,
    readers: Mapping[str, str] | None = None,
) -> str:
    """Return the digest that `measure` gives, from the store where it was measured of the same state of the files.

    Of files that changed a moment ago nothing is stored: another change could fall on the same tick of the clock.
    """
    if any(time.time_ns() - file.stat().st_ctime_ns < RESTING for file in files):
        return measure()
    key = {"version": VERSION, "files": [_state(file) for file in files]} | ({"readers": readers} if readers else {})
    return str(store.compute(kind, key, lambda: ({}, {"digest": measure()})).meta["digest"])


def _state(file: Path) -> list[Any]:
    """Return what no other content of the file can have.

    The time of the last change is set by the system at every writing, renaming and setting of time stamps, and cannot
    be chosen as those can; samples of the content stand in where a system or a moved clock gives the same one again.
    """
    real = file.resolve()
    status = real.stat()
    times = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return [file.name, str(real), *times, _sampled(real, status.st_size)]


def _sampled(file: Path, size: int) -> str:
    """Return the SHA-256 of a small file, or of `SAMPLES` blocks spread over a large one, first and last included."""
    starts: Sequence[int] = range(0, size, BLOCK)
    if len(starts) > SAMPLES:
        starts = [round(place * (size - BLOCK) / (SAMPLES - 1)) for place in range(SAMPLES)]
    hasher = hashlib.sha256()
    with file.open("rb") as stream:
        for start in starts:
            stream.seek(start)
            hasher.update(stream.read(BLOCK))
    return hasher.hexdigest()


def _measure(folder: Path) -> str:
    config = read_json(folder / "config.json", error=IntegrityError, infinite=True)
    tensors = _digests(entries(folder).values())
    if not tensors:
        raise IntegrityError(
            f"{folder} holds no tensor that would be loaded (model.safetensors, or what model.safetensors.index.json "
            "names); fetch the model again, or save it as safetensors."
        )
    further, readers = _further_files(folder), _readers(folder)
    return digest_of(
        {
            "version": VERSION,
            "config": {name: _plain(value) for name, value in config.items() if name not in IRRELEVANT},
            "tokenizer": _sums(tokenizer_files(folder)),
            "tensors": tensors,
        }
        | ({"further": _sums(further)} if further else {})
        | ({"readers": readers} if readers else {})
    )


def _sums(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _plain(value: Any) -> Any:
    """Return a value of a configuration with infinities as words: those of state-space models hold some."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _digests(tensors: Iterable[TensorEntry]) -> list[list[Any]]:
    """Return [name, dtype, shape, SHA-256 of the bytes] of each tensor; the pages read are given back file by file."""
    digests = []
    for entry in tensors:
        length = entry.end - entry.begin
        page = entry.begin - entry.begin % mmap.ALLOCATIONGRANULARITY
        hasher = hashlib.sha256()
        if length:
            with (
                entry.file.open("rb") as file,
                mmap.mmap(file.fileno(), entry.end - page, access=mmap.ACCESS_READ, offset=page) as mapped,
                memoryview(mapped) as view,
                view[entry.begin - page :] as data,
            ):
                hasher.update(data)
        digests.append([entry.name, entry.dtype, list(entry.shape), hasher.hexdigest()])
    return digests
