"""Row: a record that is one JSON object; the only codec between records and plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

__all__ = ["Row", "plain"]


class Row:
    """Base of frozen dataclasses that are written and read as one JSON object: field -> value.

    Fields with `repr=False` are working arrays and stay out. `KEYS` names fields that another key stands for. Reading
    follows the type hints: records within records, tuples, enums; a key that lacks raises `KeyError`.
    """

    __slots__ = ()
    KEYS: ClassVar[Mapping[str, str]] = {}

    def to_json(self) -> dict[str, Any]:
        return {self.KEYS.get(one.name, one.name): plain(getattr(self, one.name)) for one in _written(type(self))}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        hints = get_type_hints(cls)
        return cls(**{one.name: _read(hints[one.name], row[cls.KEYS.get(one.name, one.name)]) for one in _written(cls)})


def _written(cls: Any) -> list[Field[Any]]:
    return [one for one in fields(cls) if one.repr]


def _read(hint: Any, value: Any) -> Any:
    """Return `value`, of plain JSON types, as `hint` says; what is no record, tuple or enum is left as it is."""
    options = [option for option in get_args(hint) if option is not NoneType]
    if value is None:
        return None
    if get_origin(hint) is tuple:
        return tuple(_read(options[0], item) for item in value)
    if isinstance(value, Mapping) and len(options) == 2:  # Mapping[str, X]
        return {key: _read(options[1], item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Row):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return _read(options[0], value) if len(options) == 1 else value  # X | None


def plain(value: Any) -> Any:  # noqa: PLR0911 - converts whatever a caller recorded, a line per type
    """Return `value` as plain JSON types (str, int, float, bool, None, list, dict).

    numpy scalars and arrays, tuples, enums, paths, mappings and rows are converted. NaN and infinity raise
    `ValueError`: undefined numbers are `None` with a reason, never a float that JSON cannot carry.
    """
    if isinstance(value, StrEnum | Path):
        return str(value)
    # finite numbers, most of what a report holds, before the slower questions
    if value is None or isinstance(value, bool | str) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "tolist"):  # numpy scalar or array
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be recorded: an undefined number is None with a reason")
        return float(value)
    raise TypeError(f"{type(value).__name__} cannot be written to a report: {value!r}")
