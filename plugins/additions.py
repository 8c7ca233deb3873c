"""What other plugins add to a report: their hooks are called here, and their mistakes become sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pytest
from evenbits.estimates import Measurement
from evenbits.report.contributions import Contributions
from evenbits.report.sections import Section

__all__ = ["add_measurements", "add_sections"]

T = TypeVar("T")


def add_measurements(
    config: pytest.Config, rows: list[Measurement], contributions: Contributions, problems: list[str]
) -> None:
    """Append to `rows` what the plugins measured; what went wrong is appended to `problems`."""
    damage, recorded = contributions.entries("damage"), tuple(rows)

    def ask() -> Iterable[Iterable[Measurement]]:
        found: Iterable[Iterable[Measurement]] = config.hook.pytest_evenbits_measurements(
            config=config, damage=damage, measurements=recorded
        )
        return found

    rows += _asked("pytest_evenbits_measurements", Measurement, ask, problems)


def add_sections(
    config: pytest.Config, document: Mapping[str, Any], contributions: Contributions, problems: list[str]
) -> bool:
    """Put the sections of plugins into `contributions`; return whether there are any."""

    def ask() -> Iterable[Iterable[Section]]:
        found: Iterable[Iterable[Section]] = config.hook.pytest_evenbits_sections(config=config, document=document)
        return found

    sections = _asked("pytest_evenbits_sections", Section, ask, problems)
    contributions.add("sections", [section.to_json() for section in sections])
    return bool(sections)


def _asked(name: str, kind: type[T], ask: Callable[[], Iterable[Iterable[T]]], problems: list[str]) -> list[T]:
    """Return what the hook `name` gives; nothing, and a sentence in `problems`, where it fails."""
    try:
        found = [one for answer in ask() for one in answer]
    except Exception as error:  # noqa: BLE001 - somebody else's code must not cost the report
        problems.append(f"a plugin's {name} failed, and what it would have added is missing: {error!r}")
        return []
    wrong = sorted({type(one).__name__ for one in found if not isinstance(one, kind)})
    if wrong:
        problems.append(f"a plugin's {name} returned {', '.join(wrong)} instead of {kind.__name__}; nothing is added")
        return []
    return found
