"""A question that a reader of a report asks, and its answer in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Answer", "Tone", "listed"]

NAMED = 8
"""Names in one sentence; the others are counted."""

Tone = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A question of the reader's and its answer; `label`: the question in a word or two, where room is scarce."""

    label: str
    question: str
    text: str
    tone: Tone = "plain"


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
