"""Verdict cards of the HTML report: one per hypothesis, run or not, then the groups that were run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.numbers import estimate, number, p_value
from harness.report.verdicts import GROUPS, HYPOTHESES

__all__ = ["CLAIMS", "NOT_RUN", "Card", "Glyph", "cards", "counted"]

NOT_RUN = "not_run"

CLAIMS: Mapping[str, str] = {
    "H-037": "Outliers are sparse or dense, and sparse ones are easier to fix",
    "H-036": "Languages rely on different layers",
    "H-035": "Damage can be predicted before quantizing",
    "H-038": "Resilient languages use more distributed representations",
    "H-039": "Keeping the top outliers in FP16 brings languages to parity",
    "established": "Findings the programme states as known, measured again",
    "gate": "The deployment policy",
    "control": "Planted and null effects: does the instrument see what is there?",
}
"""What a verdict is about, in a line (METHOD section 4)."""

WIDTH = 260
MARGIN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Glyph:
    """An estimate, its interval and its threshold on one axis, in pixels of a drawing `WIDTH` wide."""

    value: float
    low: float | None
    high: float | None
    bound: float | None
    left: str
    right: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A verdict as a reader sees it. `facts`: (term, text) pairs. `cases`: all of several."""

    name: str
    claim: str
    verdict: str
    summary: str
    explain: str
    action: str | None
    metric_sensitive: bool
    facts: tuple[tuple[str, str], ...]
    glyph: Glyph | None
    cases: tuple[Mapping[str, Any], ...]

    @property
    def words(self) -> str:
        """The verdict in words."""
        return self.verdict.replace("_", " ")


def cards(document: Mapping[str, Any]) -> list[Card]:
    """Return the five hypotheses first, in order of execution, then what else has a verdict."""
    found = document["verdicts"]
    names = [*HYPOTHESES, *(name for name in found if name not in HYPOTHESES)]
    names.sort(key=lambda name: name in GROUPS)  # a stable sort: hypotheses of others before the groups
    return [_card(name, found[name]) if name in found else _not_run(name) for name in names]


def _not_run(name: str) -> Card:
    return Card(
        name=name, claim=CLAIMS.get(name, ""), verdict=NOT_RUN, summary="No test of it was part of this run.",
        explain="", action=None, metric_sensitive=False, facts=(), glyph=None, cases=(),
    )  # fmt: skip


def _card(name: str, found: Mapping[str, Any]) -> Card:
    cases = found["by_case"]
    return Card(
        name=name,
        claim=CLAIMS.get(name, ""),
        verdict=found["verdict"],
        summary=found["summary"],
        explain=found["explain"],
        action=found["action"],
        metric_sensitive=found["metric_sensitive"],
        facts=tuple(_facts(found)),
        glyph=_glyph(found["estimate"], found["threshold"]),
        cases=tuple(cases) if len(cases) > 1 else (),
    )


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    measured, threshold = found["estimate"], found["threshold"]
    if found["metric"] not in {None, "none"}:
        yield "effect size", f"{found['metric']} {estimate(measured)}"
    elif measured["reason"] and measured["reason"] != found["summary"]:
        yield "reason", measured["reason"]
    if threshold is not None:
        yield "needed", f"{threshold['op']} {threshold['bound']:g}"
    if measured["value"] is not None:
        yield "n", f"{found['n']:,}"
    if found["p_value"] is not None:
        yield "p", p_value(found["p_value"]).removeprefix("p ")


def _glyph(measured: Mapping[str, Any], threshold: Mapping[str, Any] | None) -> Glyph | None:
    value, low, high = measured["value"], measured["low"], measured["high"]
    bound = None if threshold is None else threshold["bound"]
    marks = [mark for mark in (value, low, high, bound) if mark is not None]
    if value is None or len(marks) < 2 or min(marks) == max(marks):
        return None
    start, end = min(marks), max(marks)

    def place(mark: float | None) -> float | None:
        # Halved first: the distance of two huge numbers can overflow.
        share = None if mark is None else (mark / 2 - start / 2) / (end / 2 - start / 2)
        return None if share is None else round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    at = place(value)
    return Glyph(value=at or 0.0, low=place(low), high=place(high), bound=place(bound),
                 left=number(start), right=number(end))  # fmt: skip


def counted(shown: Sequence[Card]) -> list[tuple[str, int]]:
    """Return how many of the five hypotheses have each verdict, in the order of their first card."""
    verdicts = [card.verdict for card in shown if card.name in HYPOTHESES]
    return [(verdict, verdicts.count(verdict)) for verdict in dict.fromkeys(verdicts)]
