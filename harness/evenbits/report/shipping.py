"""May it ship: what the gate says of a report, why not, and what to do, in plain sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evenbits.numbers import counted, estimate
from evenbits.printable import capital
from evenbits.report.answer import Answer, listed
from evenbits.report.compare import CHANGE
from evenbits.studies.gate.decision import Case, cases, decided, lets_through

__all__ = ["NOT_SELECTED", "gated", "may_ship", "of_the_gate"]

NOT_SELECTED = "not selected: "
"""How the reason begins for which `inputs.not_run` leaves out cases of the gate."""

REASONS = 6
"""Reasons of a refusal that are told; the others are counted."""

NUMBER = re.compile(r"(?<![\w.-])\d+(?![\w.%])")

METRICS = {
    "excess_bits": "extra loss in bits per segment",
    "relative_increase": "relative extra loss",
    "kl": "divergence (KL) in nats per token",
    "disparity": "gap between low- and high-resource languages in bits",
    "disparity_ratio": "loss of low- over that of high-resource languages",
    CHANGE: "change since the baseline in bits per segment",
}

OUTCOMES = {"fail": "above the limit", "inconclusive": "undecided", "missing": "without a result"}
"""What a case is said to be that does not let through; others are called as they are."""

REMEDIES = {
    "missing": "Measure the languages that are missing, or take them out of the policy.",
    "error": "See the error in the report; until it is mended nothing is decided.",
}
"""What to do by outcome, where a case does not say it itself."""


def may_ship(document: Mapping[str, Any]) -> str:
    """Return `may ship`, or `may not ship: sw, yo` with what stands in the way, each once."""
    if lets_through(document):
        return "May ship, as far as was selected" if _unselected(document) else "May ship"
    blocking = _blocking(document)
    if not blocking:
        return "May not ship: the policy limits nothing that was measured"
    pairs = list(dict.fromkeys(_pair(case) for case in blocking))
    named = [f"{f'{pair}: ' if len(pairs) > 1 and pair else ''}{listed(_subjects(blocking, pair))}" for pair in pairs]
    return f"May not ship: {'; '.join(named) or 'the gate came to no decision'}"


def gated(document: Mapping[str, Any]) -> bool:
    """Return whether a gate ran."""
    return any(row.get("role") == "gate" for row in document["measurements"])


def of_the_gate(document: Mapping[str, Any]) -> Iterator[Answer]:
    """Yield whether it may ship, what was compared with, why not, and what to do."""
    every = cases(document)
    blocking = _blocking(document)
    if not blocking and not lets_through(document):
        unlimited = listed(_subjects(every))
        text = f"{may_ship(document)}: it sets no limit for {unlimited}."
        yield Answer(label="may it ship", question="May it ship?", text=text, tone="bad")
        advice = "Give a metric a limit of its own, which holds where neither a tier nor a language has one."
        yield Answer(label="next", question="What next?", text=advice)
        return
    if not blocking:
        compared = [case for case in every if case.row["metric"] == CHANGE]
        limited = [case for case in every if case not in compared]
        found = [*([_within(limited)] if limited else []), *([_no_worse(compared)] if compared else [])]
        found += filter(None, [_unselected(document)])
        text = f"{may_ship(document)}: {'; '.join(found)}."
        yield Answer(label="may it ship", question="May it ship?", text=text, tone="good")
        yield from _baseline(document)
        return
    outcomes = Counter(_outcome(case) for case in blocking)
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    refused = f"{may_ship(document)}. {len(blocking)} of {len(every)} checks stand in the way: {said}."
    yield Answer(label="may it ship", question="May it ship?", text=refused, tone="bad")
    yield from _baseline(document)
    reasons = _reasons(blocking)
    for reason in reasons[:REASONS]:
        yield Answer(label="why not", question="Why not?", text=reason)
    if len(reasons) > REASONS:
        yield Answer(
            label="why not",
            question="Why not?",
            text=f"{counted(len(reasons) - REASONS, 'more reason')} under the gate's cases.",
        )
    todo = " ".join(_todo(blocking))
    if todo:
        yield Answer(label="next", question="What next?", text=todo)


def _within(limited: Sequence[Case]) -> str:
    passed = sum(case.row["verdict"] == "supported" for case in limited)
    free = [case for case in limited if not decided(case.row)]
    excused = [case for case in limited if case.row["verdict"] == "not_applicable" and decided(case.row)]
    more = f", {len(excused)} excused by it ({listed(_subjects(excused))})" if excused else ""
    more += f", {len(free)} without a limit ({listed(_subjects(free))})" if free else ""
    return f"{passed} of {len(limited)} checks are shown to be within the policy{more}"


def _unselected(document: Mapping[str, Any]) -> str:
    """Return which cases of the gate the run left out, empty where it took all of them."""
    reasons = [str(row["reason"]) for row in document["inputs"].get("not_run") or ()]
    return next((reason for reason in reasons if reason.startswith(NOT_SELECTED)), "")


def _no_worse(compared: Sequence[Case]) -> str:
    undecided = [case for case in compared if case.row["verdict"] == "not_applicable"]
    if not undecided:
        return f"all {len(compared)} comparisons with the baseline show that nothing is worse"
    left = f"{len(undecided)} of {len(compared)} undecided ({listed(_subjects(undecided))})"
    return f"no comparison with the baseline shows a language to be worse, {left}"


def _outcome(case: Case) -> str:
    """Return what a case is that does not let through."""
    if case.outcome == "fail" and case.row["metric"] == CHANGE:
        return "worse than in the baseline"
    return OUTCOMES.get(case.outcome, case.outcome)


def _baseline(document: Mapping[str, Any]) -> Iterator[Answer]:
    """Say which report was compared with, and what goes by another name there."""
    found = document["inputs"].get("baseline")
    if found is None:
        return
    names = [
        (f"{pair['model']} {pair['spec']}", f"{pair['baseline_model']} {pair['baseline_spec']}")
        for pair in found.get("pairs", ())
    ]
    renamed = "; ".join(f"{now} with {then}" for now, then in names if now != then)
    text = f"{found.get('file') or found['digest'][:12]}{f': {renamed}' if renamed else ''}"
    yield Answer(label="compared with", question="Compared with which report?", text=text)


def _blocking(document: Mapping[str, Any]) -> list[Case]:
    return [case for case in cases(document) if case.row["verdict"] not in {"supported", "not_applicable"}]


def _pair(case: Case) -> str:
    return " ".join(case.row[key] for key in ("model", "spec") if case.row[key])


def _subjects(found: Sequence[Case], pair: str | None = None) -> list[str]:
    names = (case.subject for case in found if pair is None or _pair(case) == pair)
    return list(dict.fromkeys(_subject(name) for name in names))


def _subject(name: str) -> str:
    return "the gap between languages" if name == "all languages" else name


def _reasons(blocking: Sequence[Case]) -> list[str]:
    """Return why cases do not let through in as few lines as it takes: by limit, or by language with limits of its own.

    What the numbers do not say stands once at the end where it is the same for all.
    """
    said = [_because(case) for case in blocking if case.row["estimate"]["value"] is not None]
    common = said[0] if len(said) > 1 and len(set(said)) == 1 else ""
    lines = min((_by_limit(blocking, common), _by_subject(blocking, common)), key=len)
    return [*lines, common] if common and len(lines) > 1 else [f"{line} {common}".strip() for line in lines]


def _because(case: Case) -> str:
    """Return what stands beside a number, or why there is none."""
    if case.row["estimate"]["value"] is None:
        return f"{str(case.row['estimate']['reason']).rstrip('.')}."
    return (case.row.get("data") or {}).get("because") or ""


def _allowed(case: Case) -> str:
    threshold = case.row["threshold"]
    return "" if threshold is None else f", allowed {threshold['op']} {threshold['bound']:g}"


def _measure(case: Case) -> str:
    return METRICS.get(case.row["metric"], str(case.row["metric"]).replace("_", " "))


def _by_limit(blocking: Sequence[Case], common: str) -> list[str]:
    """Return a line for each limit: `Extra loss: de 236 [140, 377], en 175 [105, 313], allowed < 31.6`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for case in blocking:
        subject, because = _subject(case.subject), _because(case)
        if case.row["estimate"]["value"] is None:
            groups.setdefault(("", because), []).append(subject)
            continue
        where = f" ({_pair(case)})" if _pair(case) else ""
        rest = f"{_allowed(case)}{where}. {'' if because == common else because}".strip()
        groups.setdefault((_measure(case), rest), []).append(f"{subject} {estimate(case.row['estimate'])}")
    return [
        f"{capital(metric)}: {listed(list(dict.fromkeys(of)))}{rest}"
        if metric
        else f"{listed(list(dict.fromkeys(of)))}: {rest}"
        for (metric, rest), of in groups.items()
    ]


def _by_subject(blocking: Sequence[Case], common: str) -> list[str]:
    """Return a line for each language: `de: extra loss 236 [140, 377], allowed < 31.6; ...`."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for case in blocking:
        known, because = case.row["estimate"]["value"] is not None, _because(case)
        said = "" if known and because == common else because
        parts = groups.setdefault((_subject(case.subject), _pair(case), said), [])
        if known:
            parts.append(f"{_measure(case)} {estimate(case.row['estimate'])}{_allowed(case)}")
    lines = []
    for (subject, pair, because), parts in groups.items():
        who = f"{subject} ({pair})" if pair else subject
        numbers = "; ".join(parts) + "." if parts else ""
        lines.append(": ".join(filter(None, (who, " ".join(filter(None, (numbers, because)))))))
    return lines


def _todo(blocking: Sequence[Case]) -> Iterator[str]:
    """Yield what to do, once where the same is advised for several cases: with the least and the largest number."""
    groups: dict[str, list[str]] = {}
    for case in blocking:
        text = str(case.row["action"] or REMEDIES.get(case.outcome, "")).replace("`", "")
        if not text:
            continue
        groups.setdefault(NUMBER.sub("#", text), []).append(text)
    for texts in groups.values():
        numbers = sorted({found[0] for text in texts if (found := NUMBER.findall(text))}, key=int)
        span = numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}" if numbers else ""
        yield NUMBER.sub(span, texts[0], count=1)
