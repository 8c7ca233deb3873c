"""A run that was measured in parts: its report says where and how long each of them ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_measured"]


def as_measured(document: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `document`, judged from the measurements of `parts`, with their environments and their time."""
    if not parts:
        return dict(document)
    return {**document, "environment": _environment(parts), "timing": _timing(parts)}


def _environment(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first environment, with all of them under `merged` where they differ."""
    environments = [dict(part["environment"]) for part in parts]
    alike = all(one == environments[0] for one in environments)
    return environments[0] if alike else {**environments[0], "merged": environments}


def _timing(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    timings = [part["timing"] for part in parts]
    tests: dict[str, float] = {}
    for timing in timings:
        for name, seconds in timing["tests"].items():
            tests[name] = tests.get(name, 0.0) + seconds
    started = [timing["started"] for timing in timings if "started" in timing]
    return {
        **({"started": min(started)} if started else {}),
        "seconds": sum(timing.get("seconds", 0.0) for timing in timings),
        "tests": dict(sorted(tests.items())),
    }
