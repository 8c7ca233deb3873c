"""The report document as lines for a terminal: verdicts, the languages that pay most and least, what to do next.

Made from the document alone. A line is a sequence of spans, a span a text with a style; the caller knows how to colour
a style, or does not. Lines break between items, never inside one, and continue below the column where they began.

It opens with plain answers (`evenbits.report.opening`), then a verdict has a line or two: at most `ROOM` lines for the
largest run. `verbose` shows everything: every case, spec, language and advice, and what was left out by language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

from evenbits.numbers import counted, estimate, interval, number, p_value
from evenbits.printable import printable
from evenbits.report.actions import actions, subject
from evenbits.report.cards import claims
from evenbits.report.omissions import everything_left_out, in_short, left_out
from evenbits.report.opening import opening
from evenbits.report.sections import sections_of
from evenbits.studies.gate.decision import baseline_warning, cases
from evenbits.studies.gate.harm import Harm, harms, specs_of

__all__ = ["Line", "Span", "Style", "summary"]

Style = Literal["plain", "dim", "strong", "supported", "not_supported", "underpowered", "not_applicable", "error"]

ROOM, LEAST = 30, 2
"""Lines that nobody has to scroll for, and lines of each verdict as long as these suffice."""

DECIDED = frozenset({"supported", "not_supported", "error"})

MARGIN = 14
"""Column where the text of a labelled line begins."""

VERDICT_WIDTH = len("not applicable") + 1
SHOWN = 5
"""Languages shown as most and as least harmed."""

MOST_LINES, WORST, FEW = 12, 3, 3
"""Models and specs that have a line with their `WORST` languages, where no more than `FEW` verdicts take the room."""

NARROWEST = 60
"""Below this many columns lines run over: names of models and tests need their room."""

GAP = "  "


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A text in one style, without codes that a terminal would obey."""

    text: str
    style: Style = "plain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text))


Line = tuple[Span, ...]


def summary(
    document: Mapping[str, Any],
    *,
    width: int = 80,
    verbose: bool = False,
    report: Path | str | None = None,
    advisory: bool = False,
) -> list[Line]:
    """Return the lines of a terminal summary, none longer than `width` columns unless a single item is.

    `verbose`: every case of a hypothesis, every spec, every language, and what was left out by language.
    `report`: where the report was written, shown last. `advisory`: verdicts failed nothing, which is then said.
    """
    width = max(width, NARROWEST)
    lines = [*_header(document, width), *_opening(document, width)]
    warning = baseline_warning(document)
    if warning:
        lines += _labelled("warning", warning.split(), width, gap=" ")
    last: list[Line] = []
    for section in sections_of(document):
        last += _labelled("also", [f"{section['title']}:", *section["text"].split()], width, gap=" ")
    if advisory:
        last += _labelled("advisory", ADVISORY.split(), width, gap=" ", style="dim")
    last += _left_out(document, width, verbose=verbose)
    if report is not None:
        last.append((Span(text="report".ljust(MARGIN)), Span(text=str(report), style="strong")))
    if verbose:
        return [*lines, *_everything(document, width), *last]
    return [*lines, *_findings(document, width, room=ROOM - len(lines) - len(last)), *last]


ADVISORY = "(a) fails nothing; without --advisory what is not supported fails"

TONES: Mapping[str, Style] = {
    "good": "supported",
    "bad": "not_supported",
    "open": "underpowered",
    "plain": "strong",
}


def _opening(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    labels: set[str] = set()
    for answer in opening(document):
        label = "" if answer.label in labels else answer.label
        labels.add(answer.label)
        yield from _labelled(label, answer.text.split(" "), width, gap=" ", style=TONES[answer.tone])


def _everything(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    label = max((len(name) for name in document["verdicts"]), default=0) + 2
    for name, decision in document["verdicts"].items():
        yield from _decision(name.ljust(label), decision, width)
    yield from _gate(document, width)
    for harm in harms(document, every_spec=True):
        yield from _harm(harm, width, verbose=True)
    yield from _actions(document, width)
    yield from _skipped(document, width)


def _findings(document: Mapping[str, Any], width: int, *, room: int) -> list[Line]:
    """Return verdicts in a few lines each, at most `room` if they can be, and harm and skips where verdicts are few."""
    verdicts = {name: found for name, found in document["verdicts"].items() if name != "gate"}
    label = max((len(name) for name in verdicts), default=0) + 2
    entries = [list(_in_lines(name, label, decision, width)) for name, decision in verdicts.items()]
    decided = [decision["verdict"] in DECIDED for decision in verdicts.values()]
    kept = [min(len(entry), LEAST) for entry in entries]
    for place in sorted(
        range(len(entries)), key=lambda place: decided[place]
    ):  # what is open gives up its reason first
        kept[place] = 1 if sum(kept) > room else kept[place]
    lines: list[Line] = []
    for place, entry in enumerate(entries):
        if kept[place] == LEAST:
            kept[place] += min(max(room - sum(kept), 0), len(entry) - LEAST)
        whole = kept[place] in {1, len(entry)}
        lines += entry[: kept[place]] if whole else [*entry[: kept[place] - 1], _cut(entry[kept[place] - 1], width)]
    if len(verdicts) > FEW:
        return lines
    shown = list(harms(document))
    if len(shown) == 1:
        lines += _harm(shown[0], width, verbose=False)
    elif shown:
        lines += _worst_of_each(shown, width)
    return [*lines, *_skipped(document, width)]


def _in_lines(name: str, label: int, decision: Mapping[str, Any], width: int) -> Iterator[Line]:
    """Yield the claim with its verdict and, of a hypothesis, what was found: why the verdict is what it is."""
    start = label + VERDICT_WIDTH + 1
    found = decision["summary"] or ", ".join(_measured(decision))
    cases = decision["by_case"]
    supported = sum(case["verdict"] == "supported" for case in cases)
    if 0 < supported < len(cases):
        found = f"{found} (supported in {supported} of {len(cases)} cases)"
    first, *more = _wrapped((claims().get(name) or found).split(), width - start, 0, gap=" ")
    yield (
        Span(text=name.ljust(label), style="strong"),
        Span(text=decision["verdict"].replace("_", " ").ljust(VERDICT_WIDTH), style=cast("Style", decision["verdict"])),
        Span(text=f" {first}"),
    )
    for text in more:
        yield (Span(text=" " * start + text),)
    if name in claims() and found and not name.startswith("E-"):
        for text in _wrapped(found.split(), width - start, 0, gap=" "):
            yield (Span(text=" " * start + text, style="dim"),)


def _cut(line: Line, width: int) -> Line:
    *before, last = line
    room = width - sum(len(span.text) for span in before) - len(" ...")
    words, _, _ = last.text.rpartition(" ")
    while len(words) > room and " " in words.strip():
        words, _, _ = words.rpartition(" ")
    return (*before, Span(text=f"{words.rstrip(' ;,')} ...", style=last.style))


def _header(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    inputs, environment = document["inputs"], document["environment"]
    version = environment["code"]["version"]
    items = [f"evenbits {version}" if version else "evenbits"]
    models = [entry["text"] for entry in inputs["models"]]
    items += models if len(models) <= FEW else [f"{len(models)} models"]
    items.append(_specs(*specs_of(document)))
    items.append(f"{_corpus(inputs['corpus'])}, {environment['dtype']}")
    for text in _wrapped([item for item in items if item], width, 2):
        yield (Span(text=text, style="strong"),)


def _specs(first: Sequence[str], others: int) -> str:
    named = ", ".join(first) if len(first) <= SHOWN else f"{len(first)} specs"
    return f"{named} (and {others} more)" if others else named


def _corpus(corpus: Mapping[str, Any]) -> str:
    parts = []
    if corpus.get("languages"):
        parts.append(counted(len(corpus["languages"]), "language"))
    segments = corpus.get("segments") or {}
    if segments:
        parts.append(" + ".join(str(count) for count in segments.values()) + " segments")
    return f"{corpus['text']}: {', '.join(parts)}" if parts else str(corpus["text"])


def _decision(label: str, decision: Mapping[str, Any], width: int) -> Iterator[Line]:
    cases = decision["by_case"]
    items = _measured(decision)
    if len(cases) > 1:
        supported = sum(case["verdict"] == "supported" for case in cases)
        shown = next(case for case in cases if case["verdict"] == decision["verdict"])
        items.append(f"supported in {supported} of {len(cases)} cases (here {subject(shown) or shown['test']})")
    yield from _verdict_line(label, decision["verdict"], items, width)
    if len(cases) > 1:
        several = len({case["test"] for case in cases}) > 1
        for case in cases:
            where = " ".join(part for part in (case["test"] if several else "", subject(case)) if part)
            items = [f"{where or case['test']}:", *_measured(case)]
            yield from _verdict_line(" " * len(label), case["verdict"], items, width)


def _measured(found: Mapping[str, Any]) -> list[str]:
    """Return what a verdict rests on, an item each: words, effect size with interval, need, n, p, sensitivity."""
    items = [found["summary"]] if found["summary"] else []
    threshold = found["threshold"]
    if found["estimate"]["value"] is not None:
        needed = "" if threshold is None else f", needed {threshold['op']} {threshold['bound']:g}"
        items.append(f"{str(found['metric'] or 'value').replace('_', ' ')} {estimate(found['estimate'])}{needed}")
        items.append(f"n {found['n']}")
    elif not items or found["verdict"] in {"underpowered", "error"}:
        reason = str(found["estimate"]["reason"])
        items += [] if reason in items else [reason]
    items += [p_value(found["p_value"])] if found["p_value"] is not None else []
    items += ["metric-sensitive"] if found["metric_sensitive"] else []
    return items


def _verdict_line(label: str, verdict: str, items: Sequence[str], width: int) -> Iterator[Line]:
    start = len(label) + VERDICT_WIDTH + 1
    words = verdict.replace("_", " ").ljust(VERDICT_WIDTH)
    style = cast("Style", verdict)  # the schema's verdicts are styles
    for place, text in enumerate(_wrapped(items, width - start, 0)):
        if place == 0:
            yield Span(text=label, style="strong"), Span(text=words, style=style), Span(text=f" {text}")
        else:
            yield (Span(text=" " * start + text),)


def _gate(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    """Yield a line for every case of the gate, failures first."""
    for case in cases(document):
        where = [case.row[key] for key in ("model", "spec") if case.row[key]]
        row = {**case.row, "n": case.row["estimate"]["n"], "summary": ""}
        items = [f"{case.outcome}: {case.subject}", *_measured(row), *where]
        because = (case.row.get("data") or {}).get("because")
        items += [str(because)] if because else []
        yield from _labelled("gate", items, width, style=cast("Style", case.row["verdict"]))


def _harm(harm: Harm, width: int, *, verbose: bool) -> Iterator[Line]:
    methods = [row["excess_bits"]["method"] for row in harm.ranked]
    looked = any("% interval" in one and "95% interval" not in one for one in methods)  # surer, before the last look
    sure = "interval, as sure as its look" if looked else "95 % interval"
    notes = [f"{harm.model} {harm.spec}: excess bits per segment [{sure}]", counted(len(harm.ranked), "language")]
    notes += [f"{harm.below_floor} below three noise floors (*)"] if harm.below_floor else []
    yield from _labelled("damage", notes, width)
    if verbose or len(harm.ranked) <= 2 * SHOWN:
        yield from _labelled("worst first", _languages(harm.ranked), width)
    else:
        yield from _labelled("most harmed", _languages(harm.ranked[:SHOWN]), width)
        yield from _labelled("least harmed", _languages(harm.ranked[: -SHOWN - 1 : -1]), width)
    if harm.undefined:
        why = [f"{row['language']} ({row['excess_bits']['reason']})" for row in harm.undefined]
        yield from _labelled("undefined", why, width)


def _worst_of_each(shown: Sequence[Harm], width: int) -> Iterator[Line]:
    """Yield a line per model and spec, the one with the most harmed language first."""
    known = [harm for harm in shown if harm.ranked]
    known.sort(key=lambda harm: -harm.ranked[0]["excess_bits"]["value"])
    below = sum(harm.below_floor for harm in shown)
    notes = [f"excess bits per segment of the {WORST} most harmed languages of each"]
    notes += [f"{below} damages below three noise floors (*)"] if below else []
    names = [f"{harm.model} {harm.spec}" for harm in known[:MOST_LINES]]
    yield from _labelled("damage", notes, width)
    pad = max((len(name) for name in names), default=0)
    texts = iter(_languages([row for harm in known[:MOST_LINES] for row in harm.ranked[:WORST]]))
    for name, harm in zip(names, known, strict=False):
        yield from _labelled("", [name.ljust(pad), *islice(texts, len(harm.ranked[:WORST]))], width)
    undefined = sum(len(harm.undefined) for harm in shown)
    more = [f"{len(shown) - len(names)} more models and specs"] if len(shown) > len(names) else []
    more += [f"{undefined} damages undefined"] if undefined else []
    if more:
        yield from _labelled("", [f"{', '.join(more)}: -v shows them"], width, style="dim")


def _languages(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return an item per language, padded alike so that columns stand below each other."""
    texts = []
    for row in rows:
        found = row["excess_bits"]
        star = "*" if (found["reason"] or "").startswith("below_floor") else ""
        texts.append((row["language"], number(found["value"], sign=True) + star, interval(found)))
    widths = [max((len(text[column]) for text in texts), default=0) for column in range(3)]
    return [
        f"{tag.ljust(widths[0])} {value.rjust(widths[1])} {bounds.ljust(widths[2])}".rstrip()
        for tag, value, bounds in texts
    ]


def _actions(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    """Yield every advice with the models and specs it is for."""
    for one in actions(document):
        whom = f"({', '.join(one.subjects)})".split() if len(one.subjects) else []
        yield from _labelled("advice", [f"{one.hypothesis}:", *one.text.split(), *whom], width, gap=" ")


def _skipped(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    """Yield why a test had nothing to say, once for all models that it could not speak of for that reason."""
    reasons = Counter(
        (row["test"], row["estimate"]["reason"])
        for row in document["measurements"]
        if row["verdict"] == "not_applicable" and row["estimate"]["method"] == "none"
    )
    for (test, reason), count in reasons.items():
        words = f"{test}: {reason}{f' ({count} times)' if count > 1 else ''}".split()
        yield from _labelled("skipped", words, width, gap=" ", style="dim")


def _left_out(document: Mapping[str, Any], width: int, *, verbose: bool) -> Iterator[Line]:
    entries = everything_left_out(document)
    items = left_out(entries, verbose=True) if verbose else in_short(entries)
    for item in items:
        yield from _labelled("left out", item.split(), width, gap=" ", style="dim")


def _labelled(
    label: str, items: Sequence[str], width: int, *, gap: str = GAP, style: Style = "plain"
) -> Iterator[Line]:
    for place, text in enumerate(_wrapped(items, width - MARGIN, 0, gap=gap)):
        margin = label if place == 0 else ""
        yield Span(text=margin.ljust(MARGIN), style=style), Span(text=text, style=style)


def _wrapped(items: Sequence[str], width: int, indent: int, *, gap: str = GAP) -> Iterator[str]:
    """Yield lines of at most `width` columns; an item is split, between words, only where it is longer than a line."""
    line = ""
    for item in items:
        pieces = [item] if len(item) <= width - indent else item.split(" ")
        for place, piece in enumerate(pieces):
            joint = "" if not line.strip() else gap if place == 0 else " "
            if line.strip() and len(line) + len(joint) + len(piece) > width:
                yield line
                line, joint = " " * indent, ""
            line += joint + piece
    yield line
