"""Code: the Python that a repository brings for its model or tokenizer, and which of its files name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenbits.foreign import fetch_again, read_object

__all__ = ["code_files", "configurations", "named_code"]

NAMING = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def configurations(config: Mapping[str, Any], where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the configuration and those of the parts of the model (text_config, vision_config), with their places."""
    yield config, where
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            yield value, f"{where}: {key}"


def named_code(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every auto_map in the files of `folder` that may have one, or in a part of theirs, with its file."""
    for file in (folder / name for name in NAMING):
        if file.is_file():
            content = read_object(file, error=fetch_again, infinite=True).content
            parts = (part for part, _ in configurations(content, str(file)))
            yield from ((file, part["auto_map"]) for part in parts if "auto_map" in part)


def code_files(folder: Path) -> tuple[Path, ...]:
    """Return the Python files of a folder that names code, sorted: none of them runs where it names none."""
    return tuple(sorted(folder.glob("*.py"))) if any(named_code(folder)) else ()
