"""Bytes of a text file, or the sentence that says why there are none."""

from __future__ import annotations

import os
from pathlib import Path

from evenbits.errors import CorpusError

__all__ = ["entries", "read_bytes"]

POINTERS = {
    b"version https://git-lfs.github.com/spec/": "git-lfs (get the text with `git lfs pull`)",
    b"/annex/objects/": "git-annex (get the text with `git annex get`)",
}
"""How files begin that stand for a text which was not downloaded."""


def entries(folder: Path) -> list[Path]:
    """Return what lies in `folder`, sorted by name. Raises `CorpusError` where it cannot be looked into."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CorpusError(f"{folder} cannot be looked into: {error.strerror or error}") from error


def read_bytes(path: Path) -> bytes:
    """Return what `path` holds.

    Raises `CorpusError` naming the file where it is a folder, a pipe, a link that leads nowhere or in a circle, is
    unreadable, or is the pointer that git-lfs or git-annex leaves in the place of a text.
    """
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise CorpusError(f"{path} is {_what(path)}, not a file with text")
        blob = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error
    for start, system in POINTERS.items():
        if blob.startswith(start):
            raise CorpusError(f"{path} holds no text but a pointer of {system}")
    return blob


def _what(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if path.is_symlink():
        return f"a link to {os.readlink(path)!r}, which leads to nothing"  # noqa: PTH115 - `Path` would tidy the text
    return "no regular file" if os.path.lexists(path) else "not there"
