"""What fixtures learned during a run, merged over tests and worker processes.

Several workers may measure, or read from the store, the same thing. Equal entries are one entry; entries that claim to
be the same thing with other numbers are a contradiction, and the report is refused rather than written with either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from evenbits.errors import ReportError
from evenbits.rows import plain

__all__ = ["SECTIONS", "Contributions"]

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "models": ("text",),
    "corpus": (),
    "specs": ("text",),
    "damage": ("model", "spec", "language"),
    "recipes": (),
    "sections": ("title",),
    "policy": (),
    "baseline": (),
    "shard": (),
    "environment": (),
    "timing": (),
}
"""Sections that fixtures may contribute to, with the keys that make an entry the same thing as another."""

ONCE = ("corpus", "policy", "baseline", "shard")
MAPPINGS = ("environment", "timing")

OPTIONAL = ("excess_bits_by_segment",)
"""Keys that one contributor of an entry may leave out and another give."""


class Contributions:
    """Collects the sections. Nothing depends on the order in which workers report."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Mapping[str, Any]]] = {section: {} for section in SECTIONS}

    def add(self, section: str, payload: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        """Add one entry or several. `ReportError` where an entry contradicts an earlier one or lacks its key."""
        if section not in SECTIONS:
            raise ReportError(f"{section!r} is no section of the report: one of {', '.join(SECTIONS)}.")
        for entry in [payload] if isinstance(payload, Mapping) else list(payload):
            if section in MAPPINGS:
                for name, value in entry.items():
                    self._entries[section][_canonical([name, value])] = {name: plain(value)}
            else:
                self._add(section, plain(entry))

    def entries(self, section: str) -> list[dict[str, Any]]:
        """Return the entries of a list section, in an order that only depends on what they say."""
        keys = SECTIONS[section]
        found = list(self._entries[section].items())
        found.sort(key=lambda pair: ([str(pair[1].get(key)) for key in keys], pair[0]))
        return [dict(entry) for _, entry in found]

    def once(self, section: str) -> dict[str, Any] | None:
        """Return the only entry of a section that has one, such as the corpus."""
        entries = self.entries(section)
        return entries[0] if entries else None

    def mapping(self, section: str) -> dict[str, Any]:
        """Return a section of named values; where processes differ in a value, the list of what they said."""
        merged: dict[str, list[Any]] = {}
        for _, entry in sorted(self._entries[section].items()):
            for name, value in entry.items():
                merged.setdefault(name, []).append(value)
        return {name: values[0] if len(values) == 1 else values for name, values in merged.items()}

    def _add(self, section: str, entry: Mapping[str, Any]) -> None:
        keys = SECTIONS[section]
        missing = [key for key in keys if key not in entry]
        if missing:
            raise ReportError(f"an entry of {section} lacks {', '.join(missing)}: {_canonical(entry)[:200]}")
        same = _canonical([entry[key] for key in keys]) if keys else "" if section in ONCE else _canonical(entry)
        earlier = self._entries[section].setdefault(same, entry)
        extra = {key: entry[key] for key in OPTIONAL if key in entry and key not in earlier}
        if extra:
            earlier = self._entries[section][same] = {**earlier, **extra}
        entry = {**{key: earlier[key] for key in OPTIONAL if key in earlier}, **entry}
        if _canonical(earlier) != _canonical(entry):
            name = ", ".join(f"{key} {entry[key]}" for key in keys) or section
            differing = sorted(
                key for key in {*earlier, *entry} if _canonical(earlier.get(key)) != _canonical(entry.get(key))
            )
            raise ReportError(
                f"two processes report {section} of {name} with different {', '.join(differing)}; "
                "the same inputs must give the same numbers. Run again with an empty --store."
            )


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
