"""A comparison of two reports as one HTML file that needs nothing else: no network, no script from elsewhere.

One table per model and spec, the language that became worst first, each change drawn as a dot with its interval on a
scale that the table shares, so that what lies right of zero is worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenbits.report.compare import Change, Comparison, word
from evenbits.report.html import asset, templates
from evenbits.text.languages import describe

__all__ = ["comparison_html"]

WIDTH, MARGIN = 240.0, 8.0
"""Units of a drawing's view box, and the room left and right of it."""

VERDICTS = {"worse": "not_supported", "better": "supported", "not shown": "underpowered", "undefined": "error"}
"""Colour of a word, by the name that the style sheet has for it; what differs not at all is neutral."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A language of the page. `low`, `at`, `high`: places of the change in the drawing, None where it has none."""

    change: Change
    name: str
    word: str
    verdict: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A model and spec now, what it is compared with, and the place of zero in its drawings."""

    now: str
    then: str
    zero: float
    rows: tuple[Row, ...]


def comparison_html(found: Comparison, *, after: str, before: str) -> str:
    """Return the page; `after` and `before` name the two reports. `MissingTemplatesError` where jinja2 is missing."""
    from markupsafe import Markup

    template = templates().get_template("comparison.html")
    counts: dict[str, int] = {}
    for one in found.changes:
        counts[word(one)] = counts.get(word(one), 0) + 1
    return template.render(
        after=after,
        before=before,
        counts=[(name, counts[name], VERDICTS.get(name, "not_applicable")) for name in sorted(counts)],
        total=len(found.changes),
        groups=[_group(now, then, found) for now, then in found.pairs.items()],
        warnings=found.warnings,
        unmatched=found.unmatched,
        style=Markup(asset("report.css")),  # noqa: S704 - our own file
    )


def _group(now: tuple[str, str], then: tuple[str, str], found: Comparison) -> Group:
    mine = [one for one in found.changes if (one.model, one.spec) == now]
    marks = [mark for one in mine for mark in _marks(one).values() if mark is not None]
    start, end = min([0.0, *marks]), max([0.0, *marks])

    def place(mark: float | None) -> float | None:
        if mark is None:
            return None
        share = 0.5 if start == end else (mark / 2 - start / 2) / (end / 2 - start / 2)  # halved: no overflow
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    rows = tuple(_row(one, {name: place(mark) for name, mark in _marks(one).items()}) for one in mine)
    return Group(now=" ".join(now), then="" if now == then else " ".join(then), zero=place(0.0) or 0.0, rows=rows)


def _marks(one: Change) -> dict[str, float | None]:
    return {"low": one.difference.low, "at": one.difference.value, "high": one.difference.high}


def _row(one: Change, places: Mapping[str, float | None]) -> Row:
    said = word(one)
    return Row(
        change=one,
        name=describe(one.language).name,
        word=said,
        verdict=VERDICTS.get(said, "not_applicable"),
        **places,
    )
