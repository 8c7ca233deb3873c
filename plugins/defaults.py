"""Defaults of the options: the table `[tool.evenbits]` of a pyproject.toml.

pytest's own rootdir cannot be trusted to find it: an option whose value is an existing path and stands after a blank
(`--report /tmp/out`) makes pytest look for its rootdir there. So the table is searched from where the command was
started, then from the rootdir, then beside this package.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenbits.errors import UsageError

__all__ = ["KEYS", "Defaults", "read_defaults"]

TEXTS = (str, list)

KEYS: Mapping[str, tuple[type, ...]] = {
    "model": TEXTS,
    "spec": TEXTS,
    "corpus": (str,),
    "languages": (str, list, int),
    "segments": (int,),
    "seed": (int,),
    "report": (str,),
    "advisory": (bool,),
    "offline": (bool,),
    "dtype": (str,),
    "store": (str,),
    "policy": (str,),
    "baseline": (str,),
    "family": (str,),
    "full": (bool,),
    "autosave": (bool,),
    "saved": (str,),
}
"""Allowed keys of `[tool.evenbits]` and the types their values may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """The table `[tool.evenbits]` that applies. `file`: where it stands, None where there is none."""

    values: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None


def read_defaults(folders: Iterable[Path]) -> Defaults:
    """Return the first `[tool.evenbits]` in a pyproject.toml of `folders` or above them, checked key by key."""
    seen: set[Path] = set()
    for folder in folders:
        for place in (folder, *folder.parents):
            if place in seen:
                break
            seen.add(place)
            found = _table(place / "pyproject.toml")
            if found is not None:
                return Defaults(values=_checked(found, place / "pyproject.toml"), file=place / "pyproject.toml")
    return Defaults()


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "evenbits" not in text:  # most files on the way up: spare them the parsing
        return None
    try:
        tool = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}.") from None
    table = tool.get("evenbits") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None


def _checked(table: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(f"[tool.evenbits] in {file} has the unknown key {key!r}; it may have {', '.join(KEYS)}.")
        wrong_bool = isinstance(value, bool) and bool not in KEYS[key]  # a bool is an int to isinstance
        wrong_list = isinstance(value, list) and not all(isinstance(entry, str) for entry in value)
        if wrong_bool or wrong_list or not isinstance(value, KEYS[key]):
            allowed = " or ".join({"str": "text", "list": "a list of texts", "int": "a whole number",
                                   "bool": "true or false"}[kind.__name__] for kind in KEYS[key])  # fmt: skip
            raise UsageError(f"[tool.evenbits] in {file}: {key} must be {allowed}, not {value!r}.")
    return table
