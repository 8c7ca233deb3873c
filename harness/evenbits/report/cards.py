"""Verdict cards of the HTML report: one per hypothesis, run or not, then findings and groups that were run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evenbits.numbers import estimate, number, p_value
from evenbits.report.actions import spent
from evenbits.report.glossary import plain_metric
from evenbits.report.verdicts import GROUPS, WORST_FIRST, hypotheses
from evenbits.studies.study import studies

__all__ = ["NOT_RUN", "Card", "Glyph", "cards", "claims"]

NOT_RUN = "not_run"
ORDER = tuple(str(verdict) for verdict in WORST_FIRST)
SIGNS = {">": ">", ">=": "≥", "<": "<", "<=": "≤"}

CONTROL = {"control": "Planted and null effects: does the instrument see what is there?"}

WIDTH = 260
MARGIN = 10

OTHER_METRICS = {"relative_increase": "by loss in %", "kl": "by drift (KL)", "excess_bits": "by loss in bits"}
"""Degradation metrics under which a card shows its number again, beside the one that decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glyph:
    """An estimate, its interval and its threshold on one axis, in pixels of a drawing `WIDTH` wide.

    `others`: (place, verdict) of further cases with the same metric.
    """

    value: float
    low: float | None
    high: float | None
    bound: float | None
    left: str
    right: str
    others: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A verdict as a reader sees it.

    `facts`: (term, text) pairs. `cases`: all of several, and `tally` how many of them have each verdict, worst first;
    `subject`: which of them the numbers of the card belong to.
    """

    name: str
    claim: str
    verdict: str
    summary: str
    explain: str
    action: str | None
    metric_sensitive: bool
    subject: str
    facts: tuple[tuple[str, str], ...]
    glyph: Glyph | None
    cases: tuple[Mapping[str, Any], ...]
    tally: tuple[tuple[str, int], ...]

    @property
    def words(self) -> str:
        """The verdict in words."""
        return self.verdict.replace("_", " ")


def claims() -> Mapping[str, str]:
    """Return what a verdict is about, in a line, by hypothesis or group."""
    return {name: claim for study in studies() for name, claim in study.claims.items()} | CONTROL


def cards(document: Mapping[str, Any]) -> list[Card]:
    """Return the five hypotheses first, in order of execution, then what else has a verdict."""
    found = document["verdicts"]
    built_in = hypotheses()
    names = [*built_in, *(name for name in found if name not in built_in)]
    names.sort(key=lambda name: name in GROUPS)  # a stable sort: hypotheses of others before the groups
    rows = {_key(row): row for row in document["measurements"]}
    every = [_card(name, found[name], rows) if name in found else _not_run(name) for name in names]
    return [replace(one, action=None) if one.action and spent(document, one.action) else one for one in every]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a measurement and the case made of it share."""
    return row["test"], row["model"], row["spec"], row["metric"]


def _not_run(name: str) -> Card:
    return Card(
        name=name,
        claim=claims().get(name, ""),
        verdict=NOT_RUN,
        summary="No test of it was part of this run.",
        explain="",
        action=None,
        metric_sensitive=False,
        subject="",
        facts=(),
        glyph=None,
        cases=(),
        tally=(),
    )


def _card(name: str, found: Mapping[str, Any], rows: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> Card:
    cases = tuple(found["by_case"])
    deciding = next((case for case in cases if case["verdict"] == found["verdict"]), None)
    several = len(cases) > 1
    verdicts = [case["verdict"] for case in cases]
    return Card(
        name=name,
        claim=claims().get(name, ""),
        verdict=found["verdict"],
        summary=found["summary"],
        explain=found["explain"],
        action=found["action"],
        metric_sensitive=found["metric_sensitive"],
        subject=_where(deciding) if several and deciding else "",
        facts=tuple(_facts(found, rows.get(_key(deciding), {}) if deciding else {})),
        glyph=_glyph(found, [case for case in cases if case is not deciding]),
        cases=tuple(sorted(cases, key=lambda case: ORDER.index(case["verdict"]))) if several else (),
        tally=tuple((verdict, verdicts.count(verdict)) for verdict in ORDER if verdict in verdicts) if several else (),
    )


def _where(case: Mapping[str, Any]) -> str:
    """Return model and spec of a case, its test where it has neither."""
    return " · ".join(part for part in (case["model"], case["spec"]) if part) or str(case["test"])


def _facts(found: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    measured, threshold, also = found["estimate"], found["threshold"], row.get("also") or {}
    if found["metric"] not in {None, "none"} and measured["value"] is not None:
        yield "measured", f"{plain_metric(found['metric'])} {estimate(measured)}"
    elif measured["reason"] and measured["reason"] not in found["summary"]:
        yield "no number", measured["reason"]
    if threshold is not None:
        yield "needed", f"{SIGNS[threshold['op']]} {threshold['bound']:g}"
    if measured["value"] is not None:
        yield "n", f"{found['n']:,}"
    if found["p_value"] is not None:
        yield "p", p_value(found["p_value"]).removeprefix("p ")
    for key, words in OTHER_METRICS.items():
        if key in also and also[key]["value"] is not None and also[key] != measured:
            yield words, estimate(also[key])


def _glyph(found: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Glyph | None:
    measured, threshold = found["estimate"], found["threshold"]
    value, low, high = measured["value"], measured["low"], measured["high"]
    bound = None if threshold is None else threshold["bound"]
    same = [
        (case["estimate"]["value"], case["verdict"])
        for case in others
        if case["metric"] == found["metric"] and case["estimate"]["value"] is not None
    ]
    marks = [mark for mark in (value, low, high, bound, *(mark for mark, _ in same)) if mark is not None]
    if value is None or len(marks) < 2 or min(marks) == max(marks):
        return None
    start, end = min(marks), max(marks)

    def at(mark: float) -> float:
        # Halved first: the distance of two huge numbers can overflow.
        share = (mark / 2 - start / 2) / (end / 2 - start / 2)
        return float(round(MARGIN + share * (WIDTH - 2 * MARGIN), 1))

    def place(mark: float | None) -> float | None:
        return None if mark is None else at(mark)

    return Glyph(
        value=at(value),
        low=place(low),
        high=place(high),
        bound=place(bound),
        left=number(start),
        right=number(end),
        others=tuple((at(mark), verdict) for mark, verdict in same),
    )
