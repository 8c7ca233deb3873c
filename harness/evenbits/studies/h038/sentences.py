"""How groups, and the lack of them, are put into words and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenbits.estimates import Estimate, Finding
from evenbits.studies.h038.groups import Refusal, ResilienceGroups

__all__ = ["WHAT", "left_out", "members", "refused"]

WHAT = "Cliff's delta, resilient against vulnerable"


def refused(
    refusal: Refusal, groups: ResilienceGroups | Refusal | None = None, *, data: Mapping[str, Any] | None = None
) -> Finding:
    """Return the finding that has no number; with the groups where these are known."""
    who, known = "", dict(data or {})
    if isinstance(groups, ResilienceGroups):
        who, known = (
            f" Groups: {members(groups)}.{left_out(groups)}",
            known | {"groups": {groups.metric: groups.to_json()}},
        )
    return Finding(
        estimate=Estimate.undefined(refusal.lacking, n=refusal.n, method=WHAT),
        verdict=refusal.verdict,
        because=refusal.because + who,
        summary=refusal.lacking,
        data=known,
    )


def members(groups: ResilienceGroups) -> str:
    """Return who is in either group."""
    resilient, vulnerable = (", ".join(side) or "none" for side in (groups.resilient, groups.vulnerable))
    return f"resilient {resilient}; vulnerable {vulnerable}"


def left_out(groups: ResilienceGroups) -> str:
    """Return a sentence, after a space, on the languages that take no part; nothing where all do."""
    by_reason: dict[str, list[str]] = {}
    for tag, reason in groups.left_out.items():
        by_reason.setdefault(reason, []).append(tag)
    out = "; ".join(f"{', '.join(tags)} ({reason})" for reason, tags in by_reason.items())
    return f" Left out: {out}." if out else ""
