"""Content-addressed store of measurements and activations.

An entry's name is the SHA-256 of its kind and key (weights, tokenizer, corpus, spec, schema version ...), so an entry
never goes stale: other inputs have another name. Entries are written to a temporary file and renamed, carry their own
checksum, kind and key, and are verified on every reading: a damaged one, or one that answers to another key because
files were swapped or copied, is removed and measured again. Two runs may share a store: who writes an entry holds its
lock, so that the second waits and then reads.
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

FORMAT = 2
"""Version of what an entry holds. An entry of another version is measured again, without a word: it is no damage."""


class DamagedEntryWarning(UserWarning):
    """A stored entry is damaged or answers to another key; it was removed and will be measured again."""


class _UnusableError(Exception):
    """What lies in an entry's place is not that entry; the message says why, or is empty for another version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What was stored: named arrays and a plain JSON mapping."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


class Store:
    """Entries below one folder, `root/<kind>/<digest>`.

    `hits` and `misses` count what this object read and what it had to have computed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = expanded(root)
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
        """Return the entry, or None where there is none or what is there is not it (it is then removed, and said)."""
        path = self._path(kind, key)
        with _explained(path):
            try:
                if path.is_file():
                    return _decode(path.read_bytes(), kind, key)
                if not os.path.lexists(path):
                    return None
                reason = "is no file"
            except FileNotFoundError:  # removed by another run since it was seen
                return None
            except _UnusableError as unusable:
                reason = str(unusable)
            _remove(path, f"{reason}; it is removed and measured again" if reason else "")
        return None

    def put(self, kind: str, key: Key, *, arrays: Arrays | None = None, meta: Mapping[str, Any] | None = None) -> Entry:
        """Write an entry atomically and return it. A full disk or missing permission raises `StoreError`."""
        with self._locked(kind, key):
            return self._write(kind, key, arrays or {}, meta or {})

    def _write(self, kind: str, key: Key, arrays: Arrays, meta: Mapping[str, Any]) -> Entry:
        path = self._path(kind, key)
        blob = _encode(arrays, {"format": FORMAT, "kind": kind, "key": dict(key), "meta": dict(meta)})
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _part(path)
            try:
                with temporary.open("wb") as file:
                    file.write(blob)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return Entry(arrays=dict(arrays), meta=dict(meta))

    def compute(self, kind: str, key: Key, fn: Callable[[], tuple[Arrays, Mapping[str, Any]]]) -> Entry:
        """Return the stored entry, else have `fn` compute it once, however many runs ask at the same time."""
        entry = self.get(kind, key)
        if entry is None:
            with self._locked(kind, key):
                entry = self.get(kind, key)
                if entry is None:
                    self.misses += 1
                    arrays, meta = fn()
                    return self._write(kind, key, arrays, meta)
        self.hits += 1
        return entry

    def folder(self, kind: str, key: Key, fill: Callable[[Path], None]) -> Path:
        """Return a folder of files, filled once by `fill(empty folder)` and renamed into place when complete.

        A folder whose files are not those of its manifest (names, sizes, and checksums where a time stamp moved), or
        whose manifest is of another kind or key, is filled again.
        """
        path = self._path(kind, key)
        if _fault(path, kind, key) is None:
            self.hits += 1
            return path
        with self._locked(kind, key):
            fault = _fault(path, kind, key)
            if fault is None:
                self.hits += 1
                return path
            self.misses += 1
            with _explained(path):
                _remove(path, f"{fault}; it is removed and made again" if fault else "")
                temporary = _part(path)
                temporary.mkdir(parents=True)
            try:
                with _explained(path, inside=temporary):
                    fill(temporary)
                with _explained(path):
                    _write_manifest(temporary, kind, key)
                    temporary.replace(path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return path

    def _path(self, kind: str, key: Key) -> Path:
        return self.root / kind / digest_of({"kind": kind, "key": dict(key)})

    @contextmanager
    def _locked(self, kind: str, key: Key) -> Iterator[None]:
        file = self.root / "locks" / f"{self._path(kind, key).name}.lock"
        lock = FileLock(file)
        with _explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _part(path: Path) -> Path:
    """Return where `path` is made before it is renamed, having removed what killed runs left there.

    Only the holder of the entry's lock may ask.
    """
    for left in path.parent.glob(f".{path.name}.*.part"):
        _remove(left)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def _remove(path: Path, reason: str = "") -> None:
    """Remove a file, link or folder; `reason` is told as a warning."""
    if reason:
        warnings.warn(f"{path} {reason}", DamagedEntryWarning, stacklevel=4)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path, *, inside: Path | None = None) -> Iterator[None]:
    """Turn the operating system's refusals into a sentence that says what to do.

    With `inside` only those that concern a file in that folder, and a full disk: others belong to who raised them.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(
                f"the disk is full while writing {path}; nothing partial was kept. Free some space, or point "
                "EVENBITS_STORE (or --store) to another disk; finished measurements are kept and the run resumes."
            ) from error
        if inside is not None and not Path(str(error.filename)).is_relative_to(inside):
            raise
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StoreError(
                f"no permission to write {path}; point EVENBITS_STORE (or --store) to a folder you can write."
            ) from error
        if error.errno in {errno.ENOTDIR, errno.EEXIST}:
            raise StoreError(
                f"{_first_file(path)} is a file where the store needs a folder; remove it, or point EVENBITS_STORE "
                "(or --store) to a folder."
            ) from error
        raise StoreError(
            f"the store cannot use {error.filename or path}: {error.strerror or error}; check that disk, or point "
            "EVENBITS_STORE (or --store) to another one."
        ) from error


def _first_file(path: Path) -> Path:
    """Return the uppermost of `path` and the folders above it that exists and is no folder."""
    return next((one for one in reversed([path, *path.parents]) if one.exists() and not one.is_dir()), path)


def _encode(arrays: Arrays, header: Mapping[str, Any]) -> bytes:
    """Return checksum line + safetensors bytes; the JSON part travels in the safetensors metadata."""
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    body = save_arrays(contiguous, metadata={"evenbits": text})
    return hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body


def _decode(blob: bytes, kind: str, key: Key) -> Entry:
    """Return the entry in `blob` if it is whole and answers to `kind` and `key`; raise `_UnusableError` if not."""
    checksum, _, body = blob.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode("ascii") != checksum:
        raise _UnusableError("is damaged")
    try:
        arrays = load_arrays(body)
        length = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["evenbits"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise _UnusableError("is damaged") from None
    _check_header(header, kind, key)
    if not isinstance(header.get("meta"), dict):
        raise _UnusableError("is damaged")
    return Entry(arrays=arrays, meta=header["meta"])


def _check_header(header: Any, kind: str, key: Key) -> None:  # noqa: ANN401 - whatever lies in the file
    """Raise `_UnusableError` unless `header` is one of this version, of `kind` and of `key`."""
    if not isinstance(header, dict):
        raise _UnusableError("is damaged")
    if header.get("format") != FORMAT:
        raise _UnusableError
    if header.get("kind") != kind or header.get("key") != json.loads(json.dumps(dict(key))):
        raise _UnusableError("answers to another key")


def _write_manifest(folder: Path, kind: str, key: Key) -> None:
    files = {
        name: {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns, "sha256": _sha256(path)}
        for name, path in _files(folder).items()
    }
    header = {"format": FORMAT, "kind": kind, "key": dict(key), "files": files}
    (folder / MANIFEST).write_text(json.dumps(header, indent=1, sort_keys=True), encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a filled folder by their names in it, the manifest left aside."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    found.pop(MANIFEST, None)
    return found


def _fault(folder: Path, kind: str, key: Key) -> str | None:
    """Return what is wrong with a filled folder in a few words, empty where there is none of this version; or None."""
    try:
        header = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        _check_header(header, kind, key)
        recorded, found = header["files"], _files(folder)
        if recorded.keys() == found.keys() and all(_unchanged(found[name], recorded[name]) for name in found):
            return None
    except _UnusableError as unusable:
        return str(unusable)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return "is damaged" if os.path.lexists(folder) else ""


def _unchanged(path: Path, recorded: Mapping[str, Any]) -> bool:
    found = path.stat()
    if found.st_size != recorded["size"]:
        return False
    return bool(found.st_mtime_ns == recorded["mtime_ns"] or _sha256(path) == recorded["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
