"""Code: the Python that a repository brings for its model or tokenizer, and which of its files name it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError
from evenbits.foreign import read_object

__all__ = ["code_files", "named_code"]

NAMING = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def named_code(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every auto_map in the files of `folder` that may have one, or in a part of theirs, with its file."""
    for file in (folder / name for name in NAMING):
        if file.is_file():
            content = read_object(file, error=_fetch_again, infinite=True).content
            parts = [value for key, value in content.items() if key.endswith("_config") and isinstance(value, dict)]
            yield from ((file, part["auto_map"]) for part in (content, *parts) if "auto_map" in part)


def code_files(folder: Path) -> tuple[Path, ...]:
    """Return the Python files of a folder that names code, sorted: none of them runs where it names none."""
    return tuple(sorted(folder.glob("*.py"))) if any(named_code(folder)) else ()


def _fetch_again(what: str) -> IntegrityError:
    return IntegrityError(f"{what}; fetch the model again.")
