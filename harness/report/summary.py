"""The report document as lines for a terminal: verdicts, the languages that pay most and least, what to do next.

Made from the document alone. A line is a sequence of spans, a span a text with a style; the caller knows how to colour
a style, or does not. Lines break between items, never inside one, and continue below the column where they began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from harness.report.gate import baseline_warning, cases
from harness.report.harm import Harm, harms
from harness.report.numbers import estimate, interval, number, p_value

__all__ = ["Line", "Span", "Style", "left_out", "summary"]

Style = Literal["plain", "dim", "strong", "supported", "not_supported", "underpowered", "not_applicable", "error"]

MARGIN = 14
"""Column where the text of a labelled line begins."""

VERDICT_WIDTH = len("not applicable") + 1
SHOWN = 5
"""Languages shown as most and as least harmed."""

NARROWEST = 60
"""Below this many columns lines run over: names of models and tests need their room."""

GAP = "  "


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A text in one style."""

    text: str
    style: Style = "plain"


Line = tuple[Span, ...]


def summary(
    document: Mapping[str, Any], *, width: int = 80, verbose: bool = False, report: Path | str | None = None
) -> list[Line]:
    """Return the lines of a terminal summary, none longer than `width` columns unless a single item is.

    `verbose`: every case of a hypothesis, every spec, every language, and what was left out by language.
    `report`: where the report was written, shown last.
    """
    width = max(width, NARROWEST)
    lines = [*_header(document, width)]
    label = max((len(name) for name in document["verdicts"]), default=0) + 2
    for name, decision in document["verdicts"].items():
        lines += _decision(name.ljust(label), decision, width, verbose=verbose)
    lines += _gate(document, width, verbose=verbose)
    for harm in harms(document, every_spec=verbose):
        lines += _harm(harm, width, verbose=verbose)
    lines += _actions(document, width)
    lines += _left_out(document, width, verbose=verbose)
    if report is not None:
        lines.append((Span(text="report".ljust(MARGIN)), Span(text=str(report), style="strong")))
    return lines


def _header(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    inputs, environment = document["inputs"], document["environment"]
    version = environment["code"]["version"]
    items = [f"evenbits {version}" if version else "evenbits"]
    items += [entry["text"] for entry in inputs["models"]]
    items += [", ".join(entry["text"] for entry in inputs["specs"])] if len(inputs["specs"]) <= SHOWN else [
        f"{len(inputs['specs'])} specs"
    ]  # fmt: skip
    items.append(_corpus(inputs["corpus"]) + f", seed {environment['seed']}, {environment['dtype']}")
    for text in _wrapped([item for item in items if item], width, 2):
        yield (Span(text=text, style="strong"),)


def _corpus(corpus: Mapping[str, Any]) -> str:
    parts = []
    if corpus.get("languages"):
        parts.append(f"{len(corpus['languages'])} languages")
    segments = corpus.get("segments") or {}
    if segments:
        parts.append(" + ".join(str(count) for count in segments.values()) + " segments " + f"({' + '.join(segments)})")
    return f"{corpus['text']}: {', '.join(parts)}" if parts else str(corpus["text"])


def _decision(label: str, decision: Mapping[str, Any], width: int, *, verbose: bool) -> Iterator[Line]:
    cases = decision["by_case"]
    items = _measured(decision)
    if len(cases) > 1:
        supported = sum(case["verdict"] == "supported" for case in cases)
        items.append(f"supported in {supported} of {len(cases)} cases")
    yield from _verdict_line(label, decision["verdict"], items, width)
    if verbose and len(cases) > 1:
        for case in cases:
            where = " ".join(part for part in (case["test"], case["model"], case["spec"]) if part)
            yield from _verdict_line(" " * len(label), case["verdict"], [where, *_measured(case)], width)


def _measured(found: Mapping[str, Any]) -> list[str]:
    """Return what a verdict rests on, an item each: words, effect size with interval, need, n, p, sensitivity."""
    items = [found["summary"]] if found["summary"] else []
    threshold = found["threshold"]
    if found["estimate"]["value"] is not None:
        needed = "" if threshold is None else f", needed {threshold['op']} {threshold['bound']:g}"
        items.append(f"{found['metric']} {estimate(found['estimate'])}{needed}")
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


def _gate(document: Mapping[str, Any], width: int, *, verbose: bool) -> Iterator[Line]:
    """Yield a line for every case of the gate that does not simply pass, failures first; for all where `verbose`."""
    for case in cases(document):
        if case.row["verdict"] != "supported" or verbose:
            where = [case.row[key] for key in ("model", "spec") if case.row[key]]
            row = {**case.row, "n": case.row["estimate"]["n"], "summary": ""}
            items = [f"{case.outcome}: {case.subject}", *_measured(row), *where]
            because = (case.row.get("data") or {}).get("because")
            items += [str(because)] if because else []
            yield from _labelled("gate", items, width, style=cast("Style", case.row["verdict"]))
    warning = baseline_warning(document)
    if warning:
        yield from _labelled("warning", warning.split(), width, gap=" ")


def _harm(harm: Harm, width: int, *, verbose: bool) -> Iterator[Line]:
    notes = [f"{harm.model} {harm.spec}: excess bits per segment [95 % interval]", f"{len(harm.ranked)} languages"]
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
    seen: dict[str, str] = {}
    for row in document["measurements"]:
        if row["action"] and row["verdict"] != "not_applicable":
            seen.setdefault(row["action"], row["hypothesis"])
    for action, hypothesis in seen.items():
        yield from _labelled("next", [f"{hypothesis}:", *action.split()], width, gap=" ")
    for row in document["measurements"]:
        if row["verdict"] == "not_applicable" and row["estimate"]["method"] == "none":
            words = f"{row['test']}: {row['estimate']['reason']}".split()
            yield from _labelled("skipped", words, width, gap=" ", style="dim")


def _left_out(document: Mapping[str, Any], width: int, *, verbose: bool) -> Iterator[Line]:
    for item in left_out(document["inputs"]["corpus"].get("left_out") or [], verbose=verbose):
        yield from _labelled("left out", item.split(), width, gap=" ", style="dim")


def left_out(entries: Iterable[Mapping[str, Any]], *, verbose: bool = False) -> list[str]:
    """Return what was not measured as phrases: added up over languages by kind and reason, or (`verbose`) each."""
    if verbose:
        return [_counted(entry["what"], entry["reason"], [entry]) for entry in entries]
    counts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        counts.setdefault((entry["what"], entry["reason"]), []).append(entry)
    return [_counted(what, reason, group) for (what, reason), group in counts.items()]


def _counted(what: str, reason: str, group: Sequence[Mapping[str, Any]]) -> str:
    total = sum(entry["count"] for entry in group)
    languages = {entry["language"] for entry in group if entry["language"]}
    name = what if total == 1 or what.endswith("s") else f"{what}s"
    if not languages:
        return f"{total} {name}: {reason}"
    where = f"{len(languages)} languages" if len(languages) > 1 else next(iter(languages))
    return f"{total} {name} in {where}: {reason}"


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
