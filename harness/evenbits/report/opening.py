"""The first screen of every report: what a reader asks first, answered in plain sentences, from the document alone.

Of a gate: may it ship, why not, what to do. Of every other run: what quantizing costs, who pays most and how much,
whether that is more than noise, what to do next. Page, Markdown and terminal open with the same sentences; verdicts and
words of the trade come after them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evenbits.numbers import counted, estimate, number
from evenbits.printable import capital
from evenbits.report.actions import advice
from evenbits.report.compare import CHANGE
from evenbits.report.described import described, exposure_of
from evenbits.studies.gate.decision import Case, cases, lets_through
from evenbits.studies.gate.harm import Harm, harms, losing, pooled_bits, sparing

__all__ = ["Answer", "already", "headline", "levels_note", "may_ship", "opening"]

REASONS, NAMED = 6, 8
"""Reasons of a refusal that are told, and languages named in one; the others are counted."""

NEXT_WORST = 2
"""Languages named after the one that pays most."""

MORE_BITS, LESS_LOSS = 0.15, 0.2
"""A remedy is named if it takes at most this share of bits more, spares at least this share of the mean loss, and is
shown to spare some."""

NUMBER = re.compile(r"(?<![\w.-])\d+(?![\w.%])")

LISTED = re.compile(r"\[(?:[^,\]]+,){3,}[^\]]*\]")

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

Tone = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A question of the reader's and its answer; `label`: the question in a word or two, where room is scarce."""

    label: str
    question: str
    text: str
    tone: Tone = "plain"


def opening(document: Mapping[str, Any]) -> list[Answer]:
    """Return the answers in the order of asking; none where nothing was measured and no gate ran."""
    lead = next(harms(document), None)
    answers: list[Answer] = []
    if _gated(document):
        answers += _gate(document)
    if lead is not None and lead.ranked:
        lost = losing(lead, seed=document["environment"]["seed"])
        answers += [*_cost(document, lead), _who(document, lead, lost)]
        if not _gated(document):
            answers += [_noise(document, lead, lost), _next(document, lead, lost)]
    return [*answers, *_original(document)] if answers else answers


def already(document: Mapping[str, Any], model: str) -> Iterator[str]:
    """Say of a model that came quantized what was the original here: the file's precision, by type of tensor."""
    for entry in document["inputs"]["models"]:
        if entry["text"] == model and entry.get("precision"):
            yield f"{model} was in {entry['precision']} already: what is measured comes on top of that."


def _original(document: Mapping[str, Any]) -> Iterator[Answer]:
    """Say of each model that came quantized in what: the file's label and true size, without the types of tensors."""
    models = document["inputs"]["models"]
    for entry in models:
        if precision := entry.get("precision"):
            label, _, census = precision.partition(": ")
            bits = census.rpartition("; ")[2]
            text = (
                f"{entry['text'] if len(models) > 1 else 'The model'} was in {label}{f' ({bits})' if bits else ''} "
                "already: what is measured comes on top of that."
            )
            yield Answer(label="original", question="Compared with what?", text=text)


def headline(document: Mapping[str, Any]) -> str:
    """Return the report in one line: what the gate says, else who pays."""
    return f"{may_ship(document)}." if _gated(document) else "Who pays for quantization"


def may_ship(document: Mapping[str, Any]) -> str:
    """Return `may ship`, or `may not ship: sw, yo` with what stands in the way, each once."""
    if lets_through(document):
        return "May ship"
    blocking = _blocking(document)
    pairs = list(dict.fromkeys(_pair(case) for case in blocking))
    named = [f"{f'{pair}: ' if len(pairs) > 1 and pair else ''}{_listed(_subjects(blocking, pair))}" for pair in pairs]
    return f"May not ship: {'; '.join(named) or 'the gate came to no decision'}"


def levels_note(document: Mapping[str, Any], model: str | None) -> str:
    """Return what resource levels mean in this report, in a sentence."""
    if exposure_of([document], model) is None:
        return "Resource level: how much text a language has in the world, by a public list (Joshi et al. 2020)."
    by_lot = " Which language got much was drawn by lot, so that level and language are not confounded."
    reference = str(model).startswith("reference:")
    return (
        f"Resource level: how much text of a language {model} was trained on, not how much there is in the world."
        + (by_lot if reference else "")
    )


def _gated(document: Mapping[str, Any]) -> bool:
    return any(row.get("role") == "gate" for row in document["measurements"])


def _gate(document: Mapping[str, Any]) -> Iterator[Answer]:
    every = cases(document)
    blocking = _blocking(document)
    if not blocking:
        compared = [case for case in every if case.row["metric"] == CHANGE]
        limited = [case for case in every if case not in compared]
        found = [*([_within(limited)] if limited else []), *([_no_worse(compared)] if compared else [])]
        text = f"{may_ship(document)}: {'; '.join(found)}."
        yield Answer(label="may it ship", question="May it ship?", text=text, tone="good")
        yield from _baseline(document)
        return
    outcomes = Counter(_outcome(case) for case in blocking)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    refused = f"{may_ship(document)}. {len(blocking)} of {len(every)} checks stand in the way: {counted}."
    yield Answer(label="may it ship", question="May it ship?", text=refused, tone="bad")
    yield from _baseline(document)
    reasons = _reasons(blocking)
    for reason in reasons[:REASONS]:
        yield Answer(label="why not", question="Why not?", text=reason)
    if len(reasons) > REASONS:
        yield Answer(
            label="why not",
            question="Why not?",
            text=f"{len(reasons) - REASONS} more reasons stand under the gate's cases.",
        )
    todo = " ".join(_todo(blocking))
    if todo:
        yield Answer(label="next", question="What next?", text=todo)


def _within(limited: Sequence[Case]) -> str:
    passed = sum(case.row["verdict"] == "supported" for case in limited)
    excused = [case for case in limited if case.row["verdict"] == "not_applicable"]
    more = f", {len(excused)} excused by it ({_listed(_subjects(excused))})" if excused else ""
    return f"{passed} of {len(limited)} checks are shown to be within the policy{more}"


def _no_worse(compared: Sequence[Case]) -> str:
    undecided = [case for case in compared if case.row["verdict"] == "not_applicable"]
    if not undecided:
        return f"all {len(compared)} comparisons with the baseline show that nothing is worse"
    left = f"{len(undecided)} of {len(compared)} undecided ({_listed(_subjects(undecided))})"
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


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


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
        f"{capital(metric)}: {_listed(list(dict.fromkeys(of)))}{rest}"
        if metric
        else f"{_listed(list(dict.fromkeys(of)))}: {rest}"
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


def _cost(document: Mapping[str, Any], lead: Harm) -> Iterator[Answer]:
    """Say what the model that was asked about loses on average, and under what other specs of this run cost it."""
    texts = []
    for harm in harms(document):
        mean = _mean_increase(harm)
        if harm.model == lead.model and mean is not None:
            bits = _bits(harm)
            at = "" if bits is None else f" ({bits:.3g} bits per weight)"
            texts.append(f"{harm.spec}{at} by {_percent(mean)}")
    if texts:
        shown = ", ".join(texts[:4]) + (f" and {len(texts) - 4} more specs" if len(texts) > 4 else "")
        count = len(lead.ranked)
        over = f" (mean of {count} languages)" if count > 1 else ""
        model = lead.model if len(document["inputs"]["models"]) > 1 else "the model"
        text = f"At predicting the same text{over} {model} gets worse with {shown}."
        if len(texts) == 1:
            spec, _, loss = texts[0].rpartition(" by ")
            text = f"{spec} makes {model} {loss} worse at predicting the same text{over}."
        yield Answer(label="cost", question="What does it cost?", text=text)


def _who(document: Mapping[str, Any], lead: Harm, lost: frozenset[str]) -> Answer:
    """Name the language that loses most by the pooled estimate, with what was measured, as tables do, beside that."""
    about = described(document, lead.model)
    tied = _tied(lead)
    worst, *others = (*lead.ranked[: NEXT_WORST + 1], lead.ranked[-1])
    if len(tied) > 1:
        text = _alike(tied, about, of=len(lead.ranked))
        others = [] if len(tied) == len(lead.ranked) else [lead.ranked[-1]]
    else:
        bounds, share, pooled = _interval(worst), _share(worst), _pooled(worst)
        text = f"{_named(worst, about)}: {estimate(worst['excess_bits'])} bits more per segment"
        text += f", {share}{f' [{bounds}]' if bounds else ''}" if share else ""
        text += f"; {pooled} (likelier: few segments overstate differences)" if pooled else ""
        text += _times(lead, lost, about)
    if len(lead.ranked) > NEXT_WORST + 1 and others:
        *then, least = [_briefly(row, about, first=worst) for row in others]
        text += "".join(f"; {word} {', '.join(whom)}" for word, whom in (("then", then), ("least", [least])) if whom)
    return Answer(label="who pays", question="Who pays most?", text=f"{text}.")


def _tied(lead: Harm) -> list[Mapping[str, Any]]:
    """Return the language that loses most, and those whose pooled estimate is shown as the same number."""
    most = number(pooled_bits(lead.ranked[0]))
    return [row for row in lead.ranked if number(pooled_bits(row)) == most]


def _alike(tied: Sequence[Mapping[str, Any]], about: Mapping[str, Mapping[str, Any]], *, of: int) -> str:
    """Say that languages cannot be told apart, and between which values they were measured."""
    whom = f"the {of} languages" if len(tied) == of else _listed([_named(row, about) for row in tied])
    bits = [float(row["excess_bits"]["value"]) for row in tied]
    each = f"{number(pooled_bits(tied[0]))} bits more per segment"
    if any(map(_pooled, tied)):
        each = f"pooled {each}, measured {number(min(bits))} to {number(max(bits))}"
    return f"{capital(whom)} cannot be told apart: {each}"


def _pooled(row: Mapping[str, Any]) -> str:
    """Return the pooled estimate, named as such, where it is shown as another number than the measured one."""
    pooled = number(pooled_bits(row))
    return "" if pooled == number(row["excess_bits"]["value"]) else f"pooled {pooled}"


def _briefly(row: Mapping[str, Any], about: Mapping[str, Mapping[str, Any]], *, first: Mapping[str, Any]) -> str:
    """Return a language with what was measured; with the pooled value where it stands behind one that lost less."""
    above = row["excess_bits"]["value"] > first["excess_bits"]["value"]
    beside = ", ".join(filter(None, (_pooled(row) if above else "", _share(row))))
    return f"{_named(row, about)} {number(row['excess_bits']['value'])}{f' ({beside})' if beside else ''}"


def _times(lead: Harm, lost: frozenset[str], about: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how the worst language compares with the middle one by the pooled values, where both are shown to lose."""
    rows = lead.ranked
    middle = rows[len(rows) // 2]
    if len(rows) <= NEXT_WORST or not {rows[0]["language"], middle["language"]} <= lost:
        return ""
    times = pooled_bits(rows[0]) / pooled_bits(middle)
    its = _pooled(middle) or number(pooled_bits(middle))
    return f", {times:.1f} times the middle language ({_named(middle, about)}, {its})"


def _noise(document: Mapping[str, Any], lead: Harm, lost: frozenset[str]) -> Answer:
    are = "is" if len(lead.ranked) == 1 else "are"
    segments = (document["inputs"]["corpus"].get("segments") or {}).get("evaluation") or lead.ranked[0].get("segments")
    texts = [f"{len(lost)} of {counted(len(lead.ranked), 'language')} {are} shown to lose"]
    if len(lost) + lead.below_floor < len(lead.ranked):
        texts[0] += f"; {segments} segments each leave {'the others' if lost else 'them'} open"
    texts[0] += "."
    if lead.below_floor:
        texts.append(f"{lead.below_floor} lie within what the arithmetic itself scatters.")
    if lead.undefined:
        undefined = ", ".join(f"{row['language']} ({row['excess_bits']['reason']})" for row in lead.undefined[:3])
        texts.append(f"Without a result: {undefined}{' ...' if len(lead.undefined) > 3 else ''}.")
    texts.append("No limits given: evenbits policy init drafts them.")
    tone: Tone = "plain" if lost else "open"
    return Answer(label="noise", question="Is it more than noise?", text=" ".join(texts), tone=tone)


def _next(document: Mapping[str, Any], lead: Harm, lost: frozenset[str]) -> Answer:
    """Name the cheapest remedy that was measured, else the first advice, else where to look."""
    if not lost:
        text = "Nothing has to be mended as far as this text shows; measure more segments before relying on it."
        return Answer(label="next", question="What next?", text=text)
    better = _cheaper(document, lead)
    if better is not None:
        harm, saved, bits = better
        worst = lead.ranked[0]
        same = {row["language"]: row for row in harm.ranked}.get(worst["language"]) if len(_tied(lead)) == 1 else None
        who = _named(worst, described(document, lead.model))
        fall = f" ({who} from {_loss(worst)} to {_loss(same)})" if same else ""
        text = (
            f"Use {_short(harm.spec)}: {_percent(saved)} less loss{fall} for {bits:+.2g} bits per weight, "
            "the best measured at about that size."
        )
        return Answer(label="next", question="What next?", text=text)
    advised = advice(document, lead)
    if advised:
        return Answer(
            label="next", question="What next?", text=f"{advised[0].text} ({advised[0].hypothesis})".replace("`", "")
        )
    text = (
        f"evenbits protect {lead.model} --spec {lead.spec} --budget 0.25bpw measures what a few more bits would save."
    )
    return Answer(label="next", question="What next?", text=text)


def _cheaper(document: Mapping[str, Any], lead: Harm) -> tuple[Harm, float, float] | None:
    """Return the spec of the same model that spares most at about the same size: (harm, share of loss, extra bits).

    Only one that is shown to lose less: the best of several point values is the luckiest.
    """
    own, loss = _bits(lead), _mean_bits(lead)
    if own is None or loss <= 0:
        return None
    alike = [
        (harm, bits - own)
        for harm in harms(document, every_spec=True)
        if harm.model == lead.model
        and harm.spec != lead.spec
        and len(harm.ranked) == len(lead.ranked)
        and not _for_show(harm.spec)
        and (bits := _bits(harm)) is not None
        and bits <= own * (1 + MORE_BITS)
    ]
    shown = sparing(lead, [harm for harm, _ in alike], seed=document["environment"]["seed"])
    spared = [(harm, 1 - _mean_bits(harm) / loss, more) for harm, more in alike if harm.spec in shown]
    found = [one for one in spared if one[1] >= LESS_LOSS]
    return max(found, key=lambda one: (round(one[1], 1), -len(one[0].spec), -one[2]), default=None)


def _short(spec: str) -> str:
    """Return a spec whose lists of languages are counted: the whole of it stands in the tables."""
    return LISTED.sub(lambda found: f"[{found[0].count(',') + 1} languages]", spec)


def _for_show(spec: str) -> bool:
    """Whether a spec is a control that nobody would deploy."""
    return ":random" in spec


def _bits(harm: Harm) -> float | None:
    bits = harm.ranked[0].get("bits_per_weight") if harm.ranked else None
    return None if bits is None else float(bits)


def _mean_bits(harm: Harm) -> float:
    return sum(float(row["excess_bits"]["value"]) for row in harm.ranked) / len(harm.ranked)


def _mean_increase(harm: Harm) -> float | None:
    values = [found["value"] for row in harm.ranked if (found := row.get("relative_increase"))]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _loss(row: Mapping[str, Any]) -> str:
    return _share(row) or f"{number(row['excess_bits']['value'], sign=True)} bits"


def _share(row: Mapping[str, Any]) -> str:
    found = row.get("relative_increase") or {"value": None}
    return "" if found["value"] is None else _percent(found["value"])


def _interval(row: Mapping[str, Any]) -> str:
    found = row.get("relative_increase") or {"low": None, "high": None}
    if found["low"] is None or found["high"] is None:
        return ""
    low, _, _ = _percent(found["low"]).partition("\N{NO-BREAK SPACE}")
    return f"{low} to {_percent(found['high'])}"


def _percent(share: float) -> str:
    value = 100 * share
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
    return f"{'0.0' if text == '-0.0' else text}\N{NO-BREAK SPACE}%"


def _named(row: Mapping[str, Any], about: Mapping[str, Mapping[str, Any]]) -> str:
    return str(about.get(row["language"], {}).get("name") or row["language"])
