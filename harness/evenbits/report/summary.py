"""The report document as lines for a terminal: verdicts, the languages that pay most and least, what to do next.

Made from the document alone. A line is a sequence of spans, a span a text with a style; the caller knows how to colour
a style, or does not. Lines break between items, never inside one, and continue below the column where they began.

However many models were measured, a hypothesis has one entry and a test one advice; `verbose` shows them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

from evenbits.printable import printable
from evenbits.report.actions import Action, actions, subject
from evenbits.report.numbers import estimate, interval, number, p_value
from evenbits.report.sections import sections_of
from evenbits.studies.gate.decision import baseline_warning, cases
from evenbits.studies.gate.harm import Harm, harms, specs_of

__all__ = ["Line", "Span", "Style", "everything_left_out", "left_out", "summary"]

Style = Literal["plain", "dim", "strong", "supported", "not_supported", "underpowered", "not_applicable", "error"]

MARGIN = 14
"""Column where the text of a labelled line begins."""

VERDICT_WIDTH = len("not applicable") + 1
SHOWN = 5
"""Languages shown as most and as least harmed."""

MOST_BLOCKS, MOST_LINES, WORST = 3, 12, 3
"""Models and specs shown in blocks of their own; beyond them lines of the `WORST` languages of each, and how many."""

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
    shown = list(harms(document, every_spec=verbose))
    if verbose or len(shown) <= MOST_BLOCKS:
        for harm in shown:
            lines += _harm(harm, width, verbose=verbose)
    else:
        lines += _worst_of_each(shown, width)
    for section in sections_of(document):
        lines += _labelled("also", [f"{section['title']}:", *section["text"].split()], width, gap=" ")
    lines += _actions(document, width, verbose=verbose)
    lines += _skipped(document, width)
    lines += _left_out(document, width, verbose=verbose)
    if report is not None:
        lines.append((Span(text="report".ljust(MARGIN)), Span(text=str(report), style="strong")))
    return lines


def _header(document: Mapping[str, Any], width: int) -> Iterator[Line]:
    inputs, environment = document["inputs"], document["environment"]
    version = environment["code"]["version"]
    items = [f"evenbits {version}" if version else "evenbits"]
    models = [entry["text"] for entry in inputs["models"]]
    items += models if len(models) <= SHOWN else [f"{len(models)} models, {models[0]} to {models[-1]}"]
    items.append(_specs(*specs_of(document)))
    items.append(_corpus(inputs["corpus"]) + f", seed {environment['seed']}, {environment['dtype']}")
    for text in _wrapped([item for item in items if item], width, 2):
        yield (Span(text=text, style="strong"),)


def _specs(first: Sequence[str], others: int) -> str:
    named = ", ".join(first) if len(first) <= SHOWN else f"{len(first)} specs"
    return f"{named} (and {others} to compare with)" if others else named


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
        shown = next(case for case in cases if case["verdict"] == decision["verdict"])
        items.append(f"supported in {supported} of {len(cases)} cases (here {subject(shown) or shown['test']})")
    yield from _verdict_line(label, decision["verdict"], items, width)
    if verbose and len(cases) > 1:
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


def _worst_of_each(shown: Sequence[Harm], width: int) -> Iterator[Line]:
    """Yield a line per model and spec, the one with the most harmed language first."""
    known = [harm for harm in shown if harm.ranked]
    known.sort(key=lambda harm: -harm.ranked[0]["excess_bits"]["value"])
    below = sum(harm.below_floor for harm in shown)
    notes = [f"the {WORST} most harmed languages of each model: excess bits per segment [95 % interval], worst first"]
    notes += [f"{below} damages below three noise floors (*)"] if below else []
    yield from _labelled("damage", notes, width)
    names = [f"{harm.model} {harm.spec}" for harm in known[:MOST_LINES]]
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


def _actions(document: Mapping[str, Any], width: int, *, verbose: bool) -> Iterator[Line]:
    """Yield what to do: of each test the advice that most models share, or (`verbose`) every one with its models."""
    by_test: dict[tuple[str, str], list[Action]] = {}
    for one in actions(document):
        by_test.setdefault((one.hypothesis, one.test), []).append(one)
    for (hypothesis, _), advices in by_test.items():
        first = max(advices, key=lambda one: len(one.subjects))  # the earliest of equals
        for one in advices if verbose else [first]:
            words = [f"{hypothesis}:", *one.text.split(), *_for_whom(one, advices, verbose=verbose)]
            yield from _labelled("next", words, width, gap=" ")


def _for_whom(one: Action, advices: Sequence[Action], *, verbose: bool) -> list[str]:
    """Return whom an advice is for, in brackets, as words; nothing where it is the only one for the only model."""
    others = sum(len(other.subjects) for other in advices if other is not one)
    if not one.subjects or (not others and len(one.subjects) == 1):
        return []
    if verbose:
        return f"({', '.join(one.subjects)})".split()
    named = one.subjects[0] if len(one.subjects) == 1 else f"{len(one.subjects)} models and specs"
    return f"({named}{f'; other advice for {others} more: -v' if others else ''})".split()


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
    for item in left_out(everything_left_out(document), verbose=verbose):
        yield from _labelled("left out", item.split(), width, gap=" ", style="dim")


def everything_left_out(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the run did not measure: evals that it did not take, and text that it could not."""
    inputs = document["inputs"]
    return [*(inputs.get("not_run") or []), *(inputs["corpus"].get("left_out") or [])]


def left_out(entries: Iterable[Mapping[str, Any]], *, verbose: bool = False) -> list[str]:
    """Return what was not measured as phrases: added up over languages by kind and reason, or (`verbose`) each."""
    if verbose:
        return [_counted(entry["what"], entry["reason"], [entry]) for entry in entries]
    return [_counted(what, reason, group) for (what, reason), group in by_reason(entries).items()]


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
