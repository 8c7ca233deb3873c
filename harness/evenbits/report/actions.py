"""What to do about what was found: each advice once, with the models and specs that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Action", "actions", "subject"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """An advice of one test. `subjects`: models and specs it is for, in the order of the report; none: for all."""

    hypothesis: str
    test: str
    text: str
    subjects: tuple[str, ...]


def subject(row: Mapping[str, Any]) -> str:
    """Return model and spec of a measurement or case."""
    return " ".join(row[key] for key in ("model", "spec") if row.get(key))


def actions(document: Mapping[str, Any]) -> list[Action]:
    """Return the advices in the order of the report; a test that does not apply advises nothing."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in document["measurements"]:
        if row["action"] and row["verdict"] != "not_applicable":
            found.setdefault((row["hypothesis"], row["test"], row["action"]), []).append(subject(row))
    return [
        Action(hypothesis=hypothesis, test=test, text=text, subjects=tuple(dict.fromkeys(filter(None, subjects))))
        for (hypothesis, test, text), subjects in found.items()
    ]
