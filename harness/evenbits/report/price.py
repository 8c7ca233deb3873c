"""What quantizing costs: how much, who pays most, whether that is more than noise, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evenbits.numbers import counted, estimate, number
from evenbits.printable import capital
from evenbits.report.actions import advice
from evenbits.report.answer import Answer, Tone, listed
from evenbits.report.described import described
from evenbits.studies.gate.harm import Harm, harms, losing, pooled_bits, sparing

__all__ = ["of_the_price"]

NEXT_WORST = 2
"""Languages named after the one that pays most."""

MORE_BITS, LESS_LOSS = 0.15, 0.2
"""A remedy is named if it takes at most this share of bits more, spares at least this share of the mean loss, and is
shown to spare some."""

LISTED = re.compile(r"\[(?:[^,\]]+,){3,}[^\]]*\]")


def of_the_price(document: Mapping[str, Any], *, gated: bool) -> Iterator[Answer]:
    """Yield what the model that was asked about costs and who pays; without a gate also the noise, and what next."""
    lead = next(harms(document), None)
    if lead is None or not lead.ranked:
        return
    lost = losing(lead, seed=document["environment"]["seed"])
    yield from _cost(document, lead)
    yield _who(document, lead, lost)
    if not gated:
        yield _noise(document, lead, lost)
        yield _next(document, lead, lost)


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
    whom = f"the {of} languages" if len(tied) == of else listed([_named(row, about) for row in tied])
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
