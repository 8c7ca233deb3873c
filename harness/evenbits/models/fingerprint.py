"""Fingerprint: two folders have the same one exactly when they are the same function of text.

SHA-256 over every tensor (name, dtype, shape, bytes; how tensors are spread over files does not matter), the
tokenizer's files, and the configuration without entries that change nothing a forward pass computes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evenbits.models.headers import TensorEntry, entries, weight_files
from evenbits.records import digest_of
from evenbits.store import Store

__all__ = ["file_sha256", "fingerprint", "tokenizer_files"]

VERSION = 1
TOKENIZER_NAMES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
IRRELEVANT = frozenset({
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range",
    "init_std", "output_attentions", "output_hidden_states", "return_dict", "task_specific_params",
    # dropout is off in evaluation
    "attention_dropout", "activation_dropout", "dropout", "hidden_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "classifier_dropout", "layerdrop", "summary_first_dropout",
})  # fmt: skip


def fingerprint(folder: Path, *, store: Store) -> str:
    """Return the fingerprint (64 hex digits) of the checked model in `folder`.

    Read once: the result is stored under path, size and time stamp of every file it depends on.
    """
    files = (*weight_files(folder), folder / "config.json", *tokenizer_files(folder))
    key = {"version": VERSION, "files": [_identity(file) for file in files]}
    meta = store.compute("fingerprints", key, lambda: ({}, {"fingerprint": _measure(folder)})).meta
    return str(meta["fingerprint"])


def file_sha256(file: Path, *, store: Store) -> str:
    """Return the SHA-256 of one file's bytes, stored under its path, size and time stamp."""

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        with file.open("rb") as stream:
            return {}, {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}

    return str(store.compute("checksums", {"file": _identity(file)}, measure).meta["sha256"])


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the tokenizer's files in `folder`, sorted by name."""
    return tuple(folder / name for name in sorted(TOKENIZER_NAMES) if (folder / name).is_file())


def _identity(file: Path) -> list[Any]:
    real = file.resolve()
    status = real.stat()
    return [file.name, str(real), status.st_size, status.st_mtime_ns]


def _measure(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return digest_of(
        {
            "version": VERSION,
            "config": {name: value for name, value in config.items() if name not in IRRELEVANT},
            "tokenizer": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tokenizer_files(folder)},
            "tensors": _digests(entries(folder).values()),
        }
    )


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
