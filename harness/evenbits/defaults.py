"""The table `[tool.evenbits]` of a pyproject.toml: defaults of the options.

It is searched from where the command was started: an option whose value is an existing path and stands after a blank
(`--report /tmp/out`) makes pytest look for its own rootdir there, so that one cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenbits.errors import UsageError
from evenbits.foreign import parse_toml

__all__ = ["Defaults", "read_defaults"]

WORDS = {str: "text", list: "a list of texts", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """The table `[tool.evenbits]` that applies. `file`: where it stands, None where there is none."""

    values: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None


def read_defaults(folders: Iterable[Path], keys: Mapping[str, tuple[type, ...]]) -> Defaults:
    """Return the first `[tool.evenbits]` in a pyproject.toml of `folders` or above them, checked key by key.

    `keys`: those it may have, and the types of their values. Raises `UsageError`.
    """
    seen: set[Path] = set()
    for folder in folders:
        for place in (folder, *folder.parents):
            if place in seen:
                break
            seen.add(place)
            found = _table(place / "pyproject.toml")
            if found is not None:
                return Defaults(values=_checked(found, keys, place / "pyproject.toml"), file=place / "pyproject.toml")
    return Defaults()


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if b"evenbits" not in content:  # most files on the way up: spare them the parsing
        return None
    tool = parse_toml(content, source=str(file), error=UsageError).get("tool", {})
    table = tool.get("evenbits") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.evenbits] must be a table of options, not {table!r:.80}.")
    return table


def _checked(table: Mapping[str, Any], keys: Mapping[str, tuple[type, ...]], file: Path) -> Mapping[str, Any]:
    for key, value in table.items():
        if key not in keys:
            raise UsageError(f"[tool.evenbits] in {file} has the unknown key {key!r}; it may have {', '.join(keys)}.")
        wrong_bool = isinstance(value, bool) and bool not in keys[key]  # a bool is an int to isinstance
        wrong_list = isinstance(value, list) and not all(isinstance(entry, str) for entry in value)
        if wrong_bool or wrong_list or not isinstance(value, keys[key]):
            allowed = " or ".join(WORDS[kind] for kind in keys[key])
            raise UsageError(f"[tool.evenbits] in {file}: {key} must be {allowed}, not {value!r}.")
    return table
