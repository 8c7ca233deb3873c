"""A table of results: plain rows, CSV for everybody, Arrow where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evenbits.errors import UsageError
from evenbits.numbers import counted
from evenbits.report.escaping import csv_text

__all__ = ["Kind", "Row", "Table", "table_of"]

Kind = Literal["text", "truth", "integer", "number"]

Row = Mapping[str, str | int | float | bool | None]


TEXTS = frozenset({"method", "reason", "tier"})
"""How columns of text end that may be empty in every row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows with the same columns; a sequence of its rows. Numbers are unrounded, an undefined one is None.

    `about`: what was found beside the rows, as plain JSON. `kinds`: of columns whose type no row has to show.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Table({counted(len(self), 'row')}: {', '.join(self.columns)})"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, place: int) -> Row:
        return self.rows[place]

    def to_csv(self, file: str | Path | None = None) -> str:
        """Return the rows as CSV (RFC 4180, but lines end with a line feed); write it to `file` where one is named.

        A text that a spreadsheet would run as a formula gets an apostrophe before it: names can hold anything.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row[column]) for column in self.columns] for row in self.rows)
        if file is not None:
            Path(file).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` (polars and pandas read it); a column is of text, integers, numbers or truth values.

        `UsageError` where the extra `parquet` is not installed.
        """
        try:
            import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
        except ModuleNotFoundError:
            raise UsageError("Arrow needs pyarrow: pip install 'evenbits[parquet]'") from None
        kinds = {"text": pa.string(), "truth": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
        found = {column: _kind(column, (row[column] for row in self.rows)) for column in self.columns} | dict(
            self.kinds
        )
        schema = pa.schema([(column, kinds[found[column]]) for column in self.columns])
        return pa.Table.from_pylist([dict(row) for row in self.rows], schema=schema)


def table_of(rows: Sequence[Mapping[str, Any]], **about: Any) -> Table:
    """Return a table of rows of plain JSON: an estimate gives a column per field (`excess_bits_low`), a list a text."""
    flat = [dict(_flat(row)) for row in rows]
    columns = tuple(dict.fromkeys(name for row in flat for name in row))
    return Table(columns=columns, rows=tuple({name: row.get(name) for name in columns} for row in flat), about=about)


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}_")
        else:
            yield f"{before}{name}", " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _kind(column: str, values: Iterable[object]) -> Kind:
    """Return the kind of a column by its values, by its name where it has none: tables of two runs concatenate."""
    types = {type(value) for value in values if value is not None}
    if not types and column.rpartition("_")[2] in TEXTS:
        return "text"
    if types <= {bool} and types:
        return "truth"
    if types and types <= {int}:
        return "integer"
    return "text" if str in types else "number"


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return csv_text(value) if isinstance(value, str) else value
