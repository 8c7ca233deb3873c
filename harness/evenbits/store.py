"""Content-addressed store of measurements and activations.

An entry's name is the SHA-256 of its kind and key (weights, tokenizer, corpus, spec, schema version ...), so an entry
never goes stale: other inputs have another name. Entries are written to a temporary file and renamed, carry their own
checksum, and are verified on every reading; a damaged one is removed and measured again. Two runs may share a store:
`compute` and `folder` hold a lock per entry, so that the second waits and then reads.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from evenbits.errors import StoreError
from evenbits.paths import expanded
from evenbits.records import digest_of

__all__ = ["DamagedEntryWarning", "Entry", "Store"]

Arrays = Mapping[str, NDArray[Any]]
Key = Mapping[str, Any]

MANIFEST = "evenbits-manifest.json"


class DamagedEntryWarning(UserWarning):
    """A stored entry failed its checksum; it was removed and will be measured again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What was stored: named arrays and a plain JSON mapping."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


class Store:
    """Entries below one folder, `root/<kind>/<digest>`.

    `hits` and `misses` count what this object read and what it had to have computed.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.hits = 0
        self.misses = 0

    @classmethod
    def default(cls) -> Store:
        """Return the store named by `EVENBITS_STORE`, else the one in the user's cache folder."""
        named = os.environ.get("EVENBITS_STORE")
        if named:
            return cls(expanded(named).absolute())
        from platformdirs import user_cache_path  # noqa: PLC0415 - only needed here

        return cls(user_cache_path("evenbits", appauthor=False))

    def get(self, kind: str, key: Key) -> Entry | None:
        """Return the entry, or None where there is none or it is damaged (it is then removed, with a warning)."""
        path = self._path(kind, key)
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            return None
        entry = _decode(blob)
        if entry is None:
            warnings.warn(f"{path} is damaged; it is removed and measured again", DamagedEntryWarning, stacklevel=2)
            path.unlink(missing_ok=True)
        return entry

    def put(self, kind: str, key: Key, *, arrays: Arrays | None = None, meta: Mapping[str, Any] | None = None) -> Entry:
        """Write an entry atomically and return it. A full disk or missing permission raises `StoreError`."""
        path = self._path(kind, key)
        blob = _encode(arrays or {}, {"key": dict(key), "meta": dict(meta or {})})
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
            try:
                with temporary.open("wb") as file:
                    file.write(blob)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return Entry(arrays=dict(arrays or {}), meta=dict(meta or {}))

    def compute(self, kind: str, key: Key, fn: Callable[[], tuple[Arrays, Mapping[str, Any]]]) -> Entry:
        """Return the stored entry, else have `fn` compute it once, however many runs ask at the same time."""
        entry = self.get(kind, key)
        if entry is None:
            with self._locked(kind, key):
                entry = self.get(kind, key)
                if entry is None:
                    self.misses += 1
                    arrays, meta = fn()
                    return self.put(kind, key, arrays=arrays, meta=meta)
        self.hits += 1
        return entry

    def folder(self, kind: str, key: Key, fill: Callable[[Path], None]) -> Path:
        """Return a folder of files, filled once by `fill(empty folder)` and renamed into place when complete.

        A folder whose files differ from its manifest (size, and checksum where the time stamp moved) is filled again.
        """
        path = self._path(kind, key)
        if _intact(path):
            self.hits += 1
            return path
        with self._locked(kind, key), _explained(path):
            if _intact(path):
                self.hits += 1
                return path
            self.misses += 1
            if path.exists():
                warnings.warn(f"{path} is damaged; it is made again", DamagedEntryWarning, stacklevel=2)
                shutil.rmtree(path)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
            for left_by_killed_run in path.parent.glob(f".{path.name}.*.part"):
                shutil.rmtree(left_by_killed_run, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                fill(temporary)
                _write_manifest(temporary)
                temporary.replace(path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return path

    def _path(self, kind: str, key: Key) -> Path:
        return self.root / kind / digest_of({"kind": kind, "key": dict(key)})

    @contextmanager
    def _locked(self, kind: str, key: Key) -> Iterator[None]:
        path = self._path(kind, key)
        with _explained(path):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "locks" / f"{path.name}.lock"):
            yield


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(
                f"the disk is full while writing {path}; nothing partial was kept. Free some space, or point "
                "EVENBITS_STORE (or --store) to another disk; finished measurements are kept and the run resumes."
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StoreError(
                f"no permission to write {path}; point EVENBITS_STORE (or --store) to a folder you can write."
            ) from error
        raise


def _encode(arrays: Arrays, header: Mapping[str, Any]) -> bytes:
    """Return checksum line + safetensors bytes; the JSON part travels in the safetensors metadata."""
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    body = save_arrays(contiguous, metadata={"evenbits": text})
    return hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body


def _decode(blob: bytes) -> Entry | None:
    checksum, _, body = blob.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode("ascii") != checksum:
        return None
    try:
        arrays = load_arrays(body)
        length = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["evenbits"])
    except (SafetensorError, ValueError, KeyError):  # written by another version of the format
        return None
    return Entry(arrays=arrays, meta=header["meta"])


def _write_manifest(folder: Path) -> None:
    files = {
        str(path.relative_to(folder)): {
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": _sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / MANIFEST).write_text(json.dumps(files, indent=1, sort_keys=True), encoding="utf-8")


def _intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(_unchanged(folder / name, recorded) for name, recorded in files.items())
    except (OSError, ValueError):
        return False


def _unchanged(path: Path, recorded: Mapping[str, Any]) -> bool:
    found = path.stat()
    if found.st_size != recorded["size"]:
        return False
    return bool(found.st_mtime_ns == recorded["mtime_ns"] or _sha256(path) == recorded["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
