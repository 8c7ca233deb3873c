"""Content-addressed store of measurements and activations.

An entry's name is the SHA-256 of its kind and key (weights, tokenizer, corpus, spec, schema version ...), so an entry
never goes stale: other inputs have another name. Entries are written to a temporary file and renamed, carry their own
checksum, kind and key, and are verified on every reading: a damaged one, or one that answers to another key because
files were swapped or copied, is removed and measured again. That is why writing does not wait until the disk has it.
Two runs may share a store: who writes an entry holds its lock, so that the second waits and then reads.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from evenbits.errors import GapError, StoreError
from evenbits.paths import expanded
from evenbits.records import digest_of

__all__ = ["SEAL", "Contents", "DamagedEntryWarning", "Entry", "Store", "WaitingWarning", "contents"]

Arrays = Mapping[str, NDArray[Any]]
Key = Mapping[str, Any]

MANIFEST = "evenbits-manifest.json"

SEAL = "sealed"

GAP_NAMES = ("text", "model", "variant", "spec", "language", "languages", "dtype")
"""What of a key says to a person what is missing."""

FORMAT = 2
"""Version of what an entry holds. An entry of another version is measured again, without a word: it is no damage."""


PATIENCE = 600.0  # seconds until a run says whom it waits for: few entries take as long to compute


class WaitingWarning(UserWarning):
    """Another run holds what this one needs."""


class DamagedEntryWarning(UserWarning):
    """A stored entry is damaged or answers to another key; it was removed and will be measured again."""


class _UnusableError(Exception):
    """What lies in an entry's place is not that entry; the message says why, or is empty for another version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What was stored: named arrays and a plain JSON mapping."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What an entry's file holds, whatever its name: kind and key, and what was stored under them."""

    kind: str
    key: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def contents(file: Path) -> Contents:
    """Return what the entry in `file` holds; `StoreError` where it is damaged, or lies under another entry's name."""
    try:
        arrays, header = _parsed(file.read_bytes())
        found = Contents(kind=header["kind"], key=header["key"], arrays=arrays, meta=header["meta"])
    except (_UnusableError, KeyError, OSError) as error:
        raise StoreError(f"{file} is no measurement of this version: {error}. Measure that part again.") from None
    if digest_of({"kind": found.kind, "key": found.key}) != file.name:
        raise StoreError(f"{file} lies under another entry's name. Measure that part again.")
    return found


class Store:
    """Entries below one folder, `root/<kind>/<digest>`.

    `hits` and `misses` count what this object read and what it had to have computed. `keep` copies what was used of it
    to another folder, so that the same run can be judged again from there. A folder with a file `sealed` is only
    judged from: nothing is computed into it, and what lacks raises `GapError`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = expanded(root)
        self.sealed = (self.root / SEAL).is_file()
        self.hits = 0
        self.misses = 0
        self._used: set[tuple[str, str]] = set()
        self._noted: dict[tuple[str, str], bytes] = {}

    @classmethod
    def default(cls) -> Store:
        """Return the store named by `EVENBITS_STORE`, else the one in the user's cache folder."""
        named = os.environ.get("EVENBITS_STORE")
        if named:
            return cls(expanded(named).absolute())
        from platformdirs import user_cache_path

        return cls(user_cache_path("evenbits", appauthor=False))

    def get(self, kind: str, key: Key) -> Entry | None:
        """Return the entry, or None where there is none or what is there is not it (it is then removed, and said)."""
        path = self._path(kind, key)
        with _explained(path):
            try:
                if not os.path.lexists(path):  # asked first: another run may write the entry at any moment
                    return None
                if path.is_file():
                    entry = _decode(path.read_bytes(), kind, key)
                    self._used.add((kind, path.name))
                    return entry
                reason = "is no file"
            except FileNotFoundError:  # removed by another run since it was seen
                return None
            except _UnusableError as unusable:
                reason = str(unusable)
            _remove(path, f"{reason}; it is removed and measured again" if reason else "")
        return None

    def has(self, kind: str, key: Key) -> bool:
        """Return whether something lies in the entry's place; whether it is whole, only `get` finds out."""
        return self._path(kind, key).is_file()

    def put(self, kind: str, key: Key, *, arrays: Arrays | None = None, meta: Mapping[str, Any] | None = None) -> Entry:
        """Write an entry atomically and return it. A full disk or missing permission raises `StoreError`."""
        with self._locked(kind, key):
            return self._write(kind, key, arrays or {}, meta or {})

    def _write(self, kind: str, key: Key, arrays: Arrays, meta: Mapping[str, Any]) -> Entry:
        path = self._path(kind, key)
        self._used.add((kind, path.name))
        parts = _encode(arrays, {"format": FORMAT, "kind": kind, "key": dict(key), "meta": dict(meta)})
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _part(path)
            try:
                with temporary.open("wb") as file:
                    file.writelines(parts)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return Entry(arrays=dict(arrays), meta=dict(meta))

    def compute(self, kind: str, key: Key, fn: Callable[[], tuple[Arrays, Mapping[str, Any]]]) -> Entry:
        """Return the stored entry, else have `fn` compute it once, however many runs ask at the same time."""
        entry = self.get(kind, key)
        if entry is None:
            self.refuse_if_sealed(kind, key)
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
        self.refuse_if_sealed(kind, key)
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

    def held(self, kind: str, key: Key) -> Path | None:
        """Return the folder of files where it is whole; it is neither filled nor counted."""
        path = self._path(kind, key)
        return path if _fault(path, kind, key) is None else None

    def refuse_if_sealed(self, kind: str, key: Key) -> None:
        """Raise `GapError` where nothing may be computed: the sentence says what is missing."""
        if self.sealed:
            named = ", ".join(f"{name} {_short(key[name])}" for name in GAP_NAMES if name in key)
            raise GapError(f"a part of the run is missing: {kind} of {named or dict(key)}. Merge all its parts.")

    @contextmanager
    def claim(self, kind: str, key: Key, *, wait: bool) -> Iterator[bool]:
        """Hold the right to measure what `key` names, among all runs on this store, while entered.

        Yields whether it is held: not where another run holds it and nobody waits. Nothing is written under `key`.
        """
        if self.sealed:
            yield True
            return
        with self._locked(kind, key, wait=wait) as held:
            yield held

    def known(self, kind: str, key: Key, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return plain JSON that `find` knows where the run is, and that is kept with what was measured.

        In a sealed store it is what the run knew: which files a name stood for, which segments were scored.
        """
        if self.sealed:
            entry = self.get(kind, key)
            if entry is None:
                self.refuse_if_sealed(kind, key)
            return {} if entry is None else entry.meta
        meta = dict(find())
        header = {"format": FORMAT, "kind": kind, "key": dict(key), "meta": meta}
        self._noted[kind, self._path(kind, key).name] = b"".join(_encode({}, header))
        return meta

    def keep(self, folder: Path) -> None:
        """Copy every entry that was read or written, and what was known, into the store at `folder`.

        Folders of files (converted checkpoints) are left out: nothing that is decided needs them.
        """
        for kind, name in sorted(self._used | self._noted.keys()):
            target = folder / kind / name
            with _explained(target):
                if target.exists():
                    continue
                blob = self._noted.get((kind, name)) or (self.root / kind / name).read_bytes()
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f".{name}.{uuid.uuid4().hex}.part")
                part.write_bytes(blob)
                part.replace(target)

    def _path(self, kind: str, key: Key) -> Path:
        return self.root / kind / digest_of({"kind": kind, "key": dict(key)})

    @contextmanager
    def _locked(self, kind: str, key: Key, *, wait: bool = True) -> Iterator[bool]:
        """Hold the entry's lock; yields whether it is held, which it always is where one waits."""
        from filelock import FileLock, Timeout

        file = self.root / "locks" / f"{self._path(kind, key).name}.lock"
        lock = FileLock(file)
        with _explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                lock.acquire(timeout=PATIENCE if wait else 0)
            if wait and not lock.is_locked:
                warnings.warn(
                    f"{PATIENCE / 60:.0f} minutes waited for another run that holds {file}. Where none is at work, one "
                    "was killed on another machine whose disk knows no better locks: remove that file.",
                    WaitingWarning,
                    stacklevel=3,
                )
                lock.acquire()
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _part(path: Path) -> Path:
    """Return where `path` is made before it is renamed, having removed what a killed run left there.

    Only the holder of the entry's lock may ask.
    """
    part = path.with_name(f".{path.name}.part")
    if os.path.lexists(part):
        _remove(part)
    return part


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


def _encode(arrays: Arrays, header: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return checksum line and safetensors bytes, apart: they can be many; JSON travels in the safetensors metadata."""
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    body = save_arrays(contiguous, metadata={"evenbits": text})
    return hashlib.sha256(body).hexdigest().encode("ascii") + b"\n", body


def _decode(blob: bytes, kind: str, key: Key) -> Entry:
    """Return the entry in `blob` if it is whole and answers to `kind` and `key`; raise `_UnusableError` if not."""
    arrays, header = _parsed(blob)
    _check_header(header, kind, key)
    return Entry(arrays=arrays, meta=header["meta"])


def _parsed(blob: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and header of a whole entry of this version; raise `_UnusableError` for anything else."""
    checksum, _, body = blob.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode("ascii") != checksum:
        raise _UnusableError("is damaged")
    try:
        arrays = load_arrays(body)
        length = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["evenbits"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise _UnusableError("is damaged") from None
    if not isinstance(header, dict) or not isinstance(header.get("meta"), dict):
        raise _UnusableError("is damaged")
    if header.get("format") != FORMAT:
        raise _UnusableError
    return arrays, header


def _check_header(header: Any, kind: str, key: Key) -> None:
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
