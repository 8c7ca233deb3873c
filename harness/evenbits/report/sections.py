"""Sections of a report beside its own parts: a title, a text and a table, as plain JSON. Other plugins add some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenbits.report.answers import answer_sections
from evenbits.rows import Row

__all__ = ["Section", "sections_of", "shown"]

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Row):
    """A part of the report beside the harness's own.

    `title`: unique within a report. `text`: a sentence or more, shown as text. `columns`, `rows`: a table, where there
    is one; every row has a cell per column. Numbers stay unrounded; None is what is undefined.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("a section needs a title")
        if not (self.text.strip() or self.rows):
            raise ValueError(f"the section {self.title!r} says nothing: give it a text or rows")
        uneven = [place for place, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if uneven:
            raise ValueError(
                f"the section {self.title!r} has {len(self.columns)} columns, and row {uneven[0]} has "
                f"{len(self.rows[uneven[0]])} cells"
            )


def shown(cell: Cell) -> str:
    """Return a cell as people read it: numbers rounded, a dash for what is undefined."""
    from evenbits.numbers import number

    if cell is None:
        return "-"
    return number(cell) if isinstance(cell, float) else str(cell)


def sections_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections of a report: answers to tasks, where some were asked, and what other plugins added."""
    answers = [Section(**found).to_json() for found in answer_sections(document)]
    return [*answers, *(document.get("sections") or [])]
