"""What a run did not measure, as phrases: evals that it did not take, and text that it could not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["by_reason", "everything_left_out", "in_short", "left_out"]

NAMED = 6
"""Languages left out for one reason up to which they are named; more are counted."""


def everything_left_out(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the run did not measure: evals that it did not take, and text that it could not."""
    inputs = document["inputs"]
    return [*(inputs.get("not_run") or []), *(inputs["corpus"].get("left_out") or [])]


def left_out(entries: Iterable[Mapping[str, Any]], *, verbose: bool = False) -> list[str]:
    """Return what was not measured as phrases: added up over languages by kind and reason, or (`verbose`) each."""
    if verbose:
        return [_counted(entry["what"], entry["reason"], [entry]) for entry in entries]
    return [_counted(what, reason, group) for (what, reason), group in by_reason(entries).items()]


def in_short(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was left out in a phrase: languages that somebody may miss by name, everything else counted."""
    if not entries:
        return []
    missed = {
        reason: sorted(one["language"] for one in group)
        for (what, reason), group in by_reason(entries).items()
        if what == "language" and all(one["language"] for one in group)
    }
    counts: Counter[str] = Counter()
    for one in entries:
        if one["reason"] not in missed:
            counts[one["what"]] += one["count"]
    phrases = [
        f"{', '.join(tags) if len(tags) <= NAMED else f'{len(tags)} languages'} ({reason})"
        for reason, tags in missed.items()
    ]
    phrases += [f"{count:,} {what}{'s' * (count != 1)}" for what, count in counts.items()]
    return [f"{', '.join(phrases)}; -v says why"]


def by_reason(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return what was left out by kind and reason, in the order in which these first come up."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["what"], entry["reason"]), []).append(entry)
    return groups


def _counted(what: str, reason: str, group: Sequence[Mapping[str, Any]]) -> str:
    total = sum(entry["count"] for entry in group)
    languages = {entry["language"] for entry in group if entry["language"]}
    name = what if total == 1 or what.endswith("s") else f"{what}s"
    if not languages:
        return f"{total} {name}: {reason}"
    if what == "language":
        return f"{total} {name} ({', '.join(sorted(languages))}): {reason}"
    where = f"{len(languages)} languages" if len(languages) > 1 else next(iter(languages))
    return f"{total} {name} in {where}: {reason}"
