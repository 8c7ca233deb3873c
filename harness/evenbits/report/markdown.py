"""The report document as Markdown for the step summary of a CI run: verdicts first, details folded.

CI servers refuse or cut long summaries, so the text stays below a limit by leaving out whole rows, and says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenbits.numbers import estimate, number, p_value
from evenbits.report.actions import actions, advice
from evenbits.report.cards import claims
from evenbits.report.escaping import markdown_code, markdown_prose, markdown_text
from evenbits.report.omissions import everything_left_out
from evenbits.report.opening import headline, opening
from evenbits.report.sections import sections_of, shown
from evenbits.studies.gate.decision import Case, baseline_warning, cases
from evenbits.studies.gate.harm import Harm, harms, pooled_bits, specs_of

__all__ = ["LIMIT", "markdown"]

LIMIT = 1024 * 1024 - 4096
"""Bytes of UTF-8. GitHub refuses step summaries above 1 MiB; the rest is room for what a job adds itself."""

FEW_MODELS = 3

SIGNS = {"supported": "✅", "not_supported": "❌", "underpowered": "⚠️", "not_applicable": "➖", "error": "💥"}  # noqa: RUF001 - the sign is meant


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A titled table; `folded` ones are collapsed until somebody opens them. `text` stands above the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = True
    text: str = ""


def markdown(document: Mapping[str, Any], *, limit: int = LIMIT) -> str:
    """Return the summary, at most `limit` bytes of UTF-8. Two equal documents give the same text."""
    head = "\n".join(_head(document)) + "\n"
    foot = "\n".join(_foot(document)) + "\n"
    room = limit - len((head + foot).encode())
    body = ""
    for table in _tables(document):
        text = _render(table, room - len(body.encode()))
        body += text
    return head + body + foot


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    inputs, environment = document["inputs"], document["environment"]
    texts = [entry["text"] for entry in inputs["models"]]
    models = ", ".join(map(markdown_code, texts[:FEW_MODELS])) or "no model"
    models += f" and {len(texts) - FEW_MODELS} more models" if len(texts) > FEW_MODELS else ""
    first, others = specs_of(document)
    specs = ", ".join(map(markdown_code, first)) + (f" (and {others} to compare with)" if others else "")
    yield f"## {markdown_text(headline(document))}"
    yield ""
    last = ""
    for answer in opening(document):
        question = "" if answer.question == last else f"**{answer.question}** "
        last = answer.question
        yield f"- {question}{markdown_prose(answer.text)}"
    yield ""
    how = f"seed {environment['seed']}, {markdown_text(environment['dtype'])}"
    yield f"evenbits: {models} under {specs} on {markdown_code(inputs['corpus']['text'])}, {how}"
    yield ""
    warning = baseline_warning(document)
    if warning:
        yield f"⚠️ {markdown_prose(warning)}"
        yield ""


def _foot(document: Mapping[str, Any]) -> Iterator[str]:
    code = document["environment"]["code"]
    parts = [f"evenbits {code['version'] or 'of unknown version'}"]
    parts += [f"commit {code['commit'][:12]}{' with changes' if code['dirty'] else ''}"] if code["commit"] else []
    yield ""
    yield f"<sub>{markdown_text(', '.join(parts))}</sub>"


def _tables(document: Mapping[str, Any]) -> Iterator[Table]:
    yield Table(
        title="Verdicts",
        columns=("", "hypothesis", "claim", "verdict", "in words", "measured [interval]", "needed", "n", "p"),
        rows=tuple(_decision(name, found) for name, found in document["verdicts"].items() if name != "gate"),
        folded=False,
    )
    gated = cases(document)
    columns = ("", "outcome", "of", "model", "spec", "measured [interval]", "needed", "in words")
    for title, folded in (("Gate: not passed", False), ("Gate: passed", True)):
        rows = tuple(_case(case) for case in gated if (case.row["verdict"] == "supported") is folded)
        yield Table(title=title, columns=columns, rows=rows, folded=folded)
    yield Table(
        title="What to do",
        columns=("hypothesis", "action"),
        rows=tuple((one.hypothesis, one.text) for one in advice(document)),
        folded=False,
    )
    for harm in harms(document):
        yield _damage(harm)
    for section in sections_of(document):
        yield Table(
            title=section["title"],
            columns=tuple(section["columns"]),
            rows=tuple(tuple(shown(cell) for cell in row) for row in section["rows"]),
            folded=False,
            text=section["text"],
        )
    every = dict.fromkeys((one.hypothesis, one.text, ", ".join(one.subjects)) for one in actions(document))
    yield Table(title="Advice of every test", columns=("hypothesis", "action", "for"), rows=tuple(every))
    yield Table(
        title="All measurements",
        columns=("hypothesis", "role", "test", "model", "spec", "verdict", "effect size [interval]", "explanation"),
        rows=tuple(_measurement(row) for row in document["measurements"]),
    )
    yield Table(
        title="Cannot be decided at this size",
        columns=("decision",),
        rows=tuple((sentence,) for sentence in document["inputs"].get("cannot_decide", ())),
    )
    left_out = everything_left_out(document)
    yield Table(
        title="Left out",
        columns=("what", "language", "count", "reason"),
        rows=tuple((row["what"], row["language"] or "", str(row["count"]), row["reason"]) for row in left_out),
    )


def _decision(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    threshold = found["threshold"]
    return (
        SIGNS[found["verdict"]],
        name,
        claims().get(name, ""),
        found["verdict"].replace("_", " ") + (" (metric-sensitive)" if found["metric_sensitive"] else ""),
        _words(found),
        _effect(found),
        "" if threshold is None else f"{threshold['op']} {threshold['bound']:g}",
        str(found["n"]),
        p_value(found["p_value"]).removeprefix("p "),
    )


def _words(found: Mapping[str, Any]) -> str:
    """Return a verdict in a few words, and in how many of several cases it is supported; all is explained below."""
    cases = found["by_case"]
    supported = sum(case["verdict"] == "supported" for case in cases)
    tally = f" (supported in {supported} of {len(cases)} cases)" if len(cases) > 1 else ""
    return f"{found['summary'] or found['explain']}{tally}"


def _case(case: Case) -> tuple[str, ...]:
    row, threshold = case.row, case.row["threshold"]
    return (
        SIGNS[row["verdict"]],
        case.outcome,
        case.subject,
        row["model"] or "",
        row["spec"] or "",
        _effect(row),
        "" if threshold is None else f"{threshold['op']} {threshold['bound']:g}",
        row["explain"],
    )


def _measurement(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["hypothesis"],
        row["role"],
        row["test"],
        row["model"] or "",
        row["spec"] or "",
        f"{SIGNS[row['verdict']]} {row['verdict'].replace('_', ' ')}",
        _effect(row),
        row["explain"],
    )


def _effect(found: Mapping[str, Any]) -> str:
    """Return metric and effect size; nothing where there is none, because the explanation says why."""
    return (
        ""
        if found["estimate"]["value"] is None
        else f"{str(found['metric'] or 'value').replace('_', ' ')} {estimate(found['estimate'])}"
    )


def _damage(harm: Harm) -> Table:
    every = (*harm.ranked, *harm.undefined)
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "language": lambda row: str(row["language"]),
        "excess bits per segment": lambda row: estimate(row["excess_bits"], sign=True),
        "pooled": lambda row: "" if row["excess_bits"]["value"] is None else number(pooled_bits(row), sign=True),
        "relative increase": lambda row: estimate(row["relative_increase"], sign=True),
        "KL, nats per token": lambda row: number(row["kl_nats_per_token"]["mean"]),
        "top-1 changed": lambda row: number(row["top1_changed"]),
        "segments": lambda row: str(row["segments"]),
        "note": lambda row: row["excess_bits"]["reason"] or "",
    }
    if not any("pooled_bits" in row for row in every):
        del columns["pooled"]
    rows = tuple(tuple(cell(row) for cell in columns.values()) for row in every)
    order = "most harmed first" + (" by the pooled estimate" if "pooled" in columns else "")
    return Table(title=f"Damage: {harm.model} {harm.spec}, {order}", columns=tuple(columns), rows=rows)


def _render(table: Table, room: int) -> str:
    """Return the table in at most `room` bytes: rows are left out from the end, and counted."""
    title = markdown_text(table.title)
    if not table.rows:
        alone = f"\n### {title}\n\n{markdown_prose(table.text)}\n"
        return alone if table.text and len(alone.encode()) <= room else ""
    opening = f"\n<details><summary>{title} ({len(table.rows)})</summary>\n\n" if table.folded else f"\n### {title}\n\n"
    opening += f"{markdown_prose(table.text)}\n\n" if table.text else ""
    closing = "\n</details>\n" if table.folded else "\n"
    lines = [f"| {' | '.join(map(markdown_text, table.columns))} |", "|" + " --- |" * len(table.columns)]
    lines += [f"| {' | '.join(markdown_prose(cell, starts=False) for cell in row)} |" for row in table.rows]
    cut = "\n{} more rows are in report.json.\n"
    left = room - len((opening + closing + cut + "\n".join(lines[:2])).encode()) - 20  # room for the count's digits
    kept = _fitting(lines[2:], left)
    if kept == 0:
        note = f"\n{title}: {len(table.rows)} rows are in report.json.\n"
        return note if len(note.encode()) <= room else ""
    missing = len(table.rows) - kept
    return opening + "\n".join(lines[: 2 + kept]) + "\n" + (cut.format(missing) if missing else "") + closing


def _fitting(lines: Sequence[str], room: int) -> int:
    used = 0
    for count, line in enumerate(lines):
        used += len(line.encode()) + 1
        if used > room:
            return count
    return len(lines)
