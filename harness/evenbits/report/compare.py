"""Two reports compared: what each language loses now against a baseline, segment by segment.

Segments are paired, so the difference is far surer than two intervals side by side suggest. That takes the same text:
other corpora are refused. Different environments are named, because versions and arithmetic move numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evenbits.errors import ReportError
from evenbits.estimates import Estimate, Threshold, Verdict
from evenbits.numbers import estimate, number, p_value
from evenbits.records import digest_of
from evenbits.report.escaping import markdown_text
from evenbits.rows import Row
from evenbits.statistics.means import FEWEST_FOR_PASS
from evenbits.studies.gate.decision import BY_SEGMENT, Decision, Outcome, floor_bits_of, segments_of
from evenbits.studies.gate.policy import BaselineRule, Limit

__all__ = [
    "CHANGE",
    "Change",
    "Comparison",
    "change_decisions",
    "change_threshold",
    "changes",
    "compare",
    "comparison_markdown",
    "describe_baseline",
    "environment_differences",
    "refuse_other_corpus",
    "word",
]

CHANGE = "excess_bits_increase"
"""Metric of a comparison: mean excess bits per segment, now minus baseline; above 0 is worse."""

ALPHA = 0.05

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change(Row):
    """One language under one model and spec, beside the baseline.

    `p_value`, `adjusted_p`: of any difference, by itself and over all languages. `worse_p`: that it is worse by more
    than the limit, over all languages; `least_p`: the smallest `worse_p` that as many segments can give. `floor`: what
    a difference has to reach to be more than the arithmetic's own scatter, three noise floors of whichever of the two
    has more.
    """

    model: str
    spec: str
    language: str
    before: Estimate
    after: Estimate
    difference: Estimate
    p_value: float | None
    adjusted_p: float | None
    worse_p: float | None = None
    least_p: float | None = None
    floor: float = 0.0

    @property
    def shown(self) -> bool:
        """Whether the difference is significant over all languages compared."""
        return self.adjusted_p is not None and self.adjusted_p < ALPHA

    @property
    def within_noise(self) -> bool:
        """Whether the difference is less than arithmetic itself moves such a mean by."""
        return self.difference.value is not None and abs(self.difference.value) < self.floor


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All changes, worst first within model and spec. `pairs`: (model, spec) now -> in the baseline.

    `warnings`: differences between the environments. `unmatched`: models, specs and languages that one report lacks.
    """

    changes: tuple[Change, ...]
    pairs: Mapping[Pair, Pair]
    warnings: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "changes": [change.to_json() for change in self.changes],
            "pairs": _as_rows(self.pairs),
            "warnings": list(self.warnings),
            "unmatched": list(self.unmatched),
        }


def compare(after: Mapping[str, Any], before: Mapping[str, Any]) -> Comparison:
    """Compare two report documents. `ReportError` where they measured different text or nothing can be paired."""
    refuse_other_corpus(after["inputs"]["corpus"]["digest"], before)
    now, then = _by_pair(after["damage"]), _by_pair(before["damage"])
    pairs = _matched(now, then)
    if not pairs:
        raise ReportError(
            f"the reports have no model and spec in common: {_names(now)} here, {_names(then)} in the baseline."
        )
    found: list[Change] = []
    lost = [f"{' '.join(pair)} only here" for pair in now if pair not in pairs]
    lost += [f"{' '.join(pair)} only in the baseline" for pair in then if pair not in pairs.values()]
    for mine, its in pairs.items():
        some = changes(now[mine], then[its], seed=after["environment"]["seed"])
        found += sorted(some, key=lambda one: (-(one.difference.value or 0.0), one.language))
        lost += _lost_languages(mine, now[mine], then[its])
    return Comparison(
        changes=tuple(found),
        pairs=pairs,
        warnings=tuple(environment_differences(after["environment"], before["environment"])),
        unmatched=tuple(lost),
    )


def _lost_languages(pair: Pair, now: Iterable[Mapping[str, Any]], then: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which languages of a model and spec only one report has."""
    here, there = (sorted(str(row["language"]) for row in rows) for rows in (now, then))
    sides = (
        ("only here", [tag for tag in here if tag not in there]),
        ("only in the baseline", [tag for tag in there if tag not in here]),
    )
    return [f"{' '.join(pair)} in {', '.join(tags)} {side}" for side, tags in sides if tags]


def changes(
    after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], *, seed: int, limit: float = 0.0
) -> list[Change]:
    """Compare the damage rows of one model and spec with those of a baseline, languages in alphabetic order.

    `limit`: how much worse in bits per segment a language may become. Segments are flipped in all languages at once.

    `ReportError` where a row has no values by segment. Languages that only one side has are in no change.
    """
    from evenbits.statistics import joint_flips, paired_differences

    now, then = ({str(row["language"]): row for row in rows} for rows in (after, before))
    tags = sorted(now.keys() & then.keys())
    values: list[dict[str, Any]] = []
    for name, rows in (("this report", now), ("the baseline", then)):
        lacking = [tag for tag in tags if segments_of(rows[tag]) is None]
        if lacking:
            raise ReportError(
                f"{name} has no `{BY_SEGMENT}` for {', '.join(lacking)}, so segments cannot be paired; measure it "
                "again with this version of evenbits."
            )
        values.append({tag: segments_of(rows[tag]) for tag in tags})
    uneven = [tag for tag in tags if len(values[0][tag]) != len(values[1][tag])]
    if uneven:
        raise ReportError(f"{', '.join(uneven)}: the reports have different numbers of segments, so they do not pair.")
    if not tags:
        return []
    found = paired_differences(values[0], values[1], rng=np.random.default_rng(seed))
    beyond = {tag: values[0][tag] - values[1][tag] - limit for tag in tags}
    worse = joint_flips(beyond, rng=np.random.default_rng(seed), alternative="greater")
    return [
        Change(
            model=str(now[tag]["model"]),
            spec=str(now[tag]["spec"]),
            language=tag,
            before=Estimate.from_json(then[tag]["excess_bits"]),
            after=Estimate.from_json(now[tag]["excess_bits"]),
            difference=found[tag].estimate,
            p_value=found[tag].p_value,
            adjusted_p=found[tag].adjusted_p,
            worse_p=worse.adjusted[tag],
            least_p=worse.least,
            floor=max(floor_bits_of(now[tag]), floor_bits_of(then[tag])),
        )
        for tag in tags
    ]


def change_decisions(
    rule: BaselineRule,
    rows: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any],
    *,
    pair: Pair,
    among: Iterable[Pair],
    languages: Iterable[str],
    seed: int,
) -> list[tuple[Decision, float | None]]:
    """Decide for every language whether it became worse than in `baseline`; each with its family-wise p-value.

    `rows`: this run's damage rows of the model and spec `pair`; `among`: all pairs of the run, which tell with what of
    the baseline each is compared. A language fails where it is shown to be worse by more than the rule's limit, and by
    as much as three noise floors; it passes where the whole interval exceeds neither. Where so few segments can show
    nothing the outcome is `underpowered` and never lets through, whatever the rule says of inconclusive ones. What the
    baseline has no result for is missing.
    """
    limit = Limit(metric=CHANGE, bound=rule.limit, inconclusive=rule.inconclusive, where="baseline")
    then = _by_pair(baseline["damage"])
    its = _matched(dict.fromkeys(among), then).get(pair)
    if its is None:
        why = f"the baseline has {_names(then)} and nothing to compare {' '.join(pair)} with"
        return [(_unpaired(limit, tag, why), None) for tag in languages]
    found = {one.language: one for one in changes(rows, then[its], seed=seed, limit=rule.limit)}
    named = "" if its == pair else f"Compared with {' '.join(its)} of the baseline. "
    return [
        (_named(_changed(limit, found[tag]), named), found[tag].worse_p)
        if tag in found
        else (_unpaired(limit, tag, f"not both this run and the baseline have a result for {tag}"), None)
        for tag in languages
    ]


def change_threshold(decision: Decision) -> Threshold:
    """Return the threshold that a comparison with the baseline is held against."""
    limit = decision.limit
    return Threshold(metric=CHANGE, op="<=", bound=limit.bound, why=f"compared with the {limit.where}")


def refuse_other_corpus(digest: str | None, baseline: Mapping[str, Any]) -> None:
    """Raise `ReportError` unless `baseline` measured the text with this digest."""
    other = baseline["inputs"]["corpus"]
    if digest is None or other["digest"] is None:
        raise ReportError("one of the reports measured no text, so there is nothing to compare.")
    if digest != other["digest"]:
        raise ReportError(
            f"the baseline measured other text ({other['text']}, digest {other['digest'][:12]}, here {digest[:12]}), "
            "so segments cannot be paired. Measure both with the same --corpus, --languages, --segments and --seed."
        )


def environment_differences(after: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return a phrase for everything that can move a number and is not equal in the two environments."""
    phrases = [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in ("dtype", "device", "seed", "platform")
        if after.get(key) != before.get(key)
    ]
    if after["code"] != before["code"]:
        phrases.append(f"evenbits {_code(before['code'])} -> {_code(after['code'])}")
    for name in sorted({*after["packages"], *before["packages"]}):
        old, new = before["packages"].get(name), after["packages"].get(name)
        if old != new:
            phrases.append(f"{name} {old or 'absent'} -> {new or 'absent'}")
    return phrases


def describe_baseline(document: Mapping[str, Any], *, file: str, among: Iterable[Pair]) -> dict[str, Any]:
    """Return what a report says of its baseline: file, digest of its damage rows, and with what each pair is compared.

    `file`: what it is called. `among`: models and specs of the run; those without a counterpart are in no pair.
    """
    pairs = _matched(dict.fromkeys(among), _by_pair(document["damage"]))
    return {"file": file, "digest": digest_of(document["damage"]), "pairs": _as_rows(pairs)}


def comparison_markdown(found: Comparison) -> str:
    """Return the comparison as Markdown: warnings, then a table, worst first."""
    lines = ["## evenbits: compared with the baseline", ""]
    lines += [f"- the environments differ: {markdown_text(', '.join(found.warnings))}"] if found.warnings else []
    lines += [f"- not compared: {markdown_text(', '.join(found.unmatched))}"] if found.unmatched else []
    lines += [
        f"- {markdown_text(' '.join(now))} is compared with {markdown_text(' '.join(then))}"
        for now, then in found.pairs.items()
        if now != then
    ]
    lines += ["", "| language | model | spec | baseline | now | change, bits per segment | p (all languages) | |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for one in found.changes:
        cells = (
            one.language,
            one.model,
            one.spec,
            estimate(one.before.to_json()),
            estimate(one.after.to_json()),
            estimate(one.difference.to_json(), sign=True),
            p_value(one.adjusted_p).removeprefix("p "),
            word(one),
        )
        lines.append(f"| {' | '.join(markdown_text(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def word(one: Change) -> str:
    """Return what the comparison shows of a language in a word."""
    if one.difference.value is None:
        return "undefined"
    if not one.shown:
        return "no difference" if one.difference.value == 0 else "not shown"
    if one.within_noise:
        return "within noise"
    return "worse" if one.difference.value > 0 else "better"


def _changed(limit: Limit, one: Change) -> Decision:
    found = one.difference
    if found.value is None:
        return _unpaired(limit, one.language, str(found.reason))
    outcome, because, action = Outcome.INCONCLUSIVE, None, None
    verdict: Verdict | None = Verdict.UNDERPOWERED
    constant = found.low is not None and found.low == found.high
    worse = one.worse_p is not None and one.worse_p < ALPHA and found.value > limit.bound
    if worse and not one.within_noise:
        outcome, verdict = Outcome.FAIL, Verdict.NOT_SUPPORTED
        because = f"{one.language} became worse than the baseline ({estimate(one.before.to_json())})."
        action = (
            "Look what differs from the baseline's run, protect layers or take more bits; if it is to stay, raise the "
            "policy's baseline.limit or take this report as the next baseline."
        )
    elif (
        found.high is not None
        and max(found.high, found.value) <= max(limit.bound, one.floor)
        and (found.n >= FEWEST_FOR_PASS or constant)
    ):
        outcome, verdict = Outcome.PASS, None
        if max(found.high, found.value) > limit.bound:
            limit = replace(limit, bound=one.floor, where="baseline, three noise floors")
    elif one.least_p is None or one.least_p >= ALPHA:
        because = (
            f"{found.n} segments cannot show that any language became worse: the least possible p is "
            f"{1.0 if one.least_p is None else one.least_p:.2g}."
        )
        action = f"Measure at least {FEWEST_FOR_PASS} segments of each language (--segments), in both reports."
    else:
        let_through = limit.inconclusive == "pass"
        verdict = Verdict.NOT_APPLICABLE if let_through else Verdict.UNDERPOWERED
        noise = f", by more than what arithmetic itself scatters ({number(one.floor)} bits)," if worse else ""
        because = f"{one.language} is neither shown to be worse{noise} nor shown not to be" + (
            ", which is let through." if let_through else "."
        )
        more = 'Measure more segments in both reports (--segments), or set `inconclusive = "pass"` under [baseline].'
        action = None if let_through else more
    return Decision(
        metric=CHANGE,
        language=one.language,
        outcome=outcome,
        verdict=verdict,
        estimate=found,
        limit=limit,
        because=because,
        action=action,
    )


def _named(decision: Decision, with_what: str) -> Decision:
    """Return the decision with a sentence that says what was compared, where that goes by another name."""
    return replace(decision, because=f"{with_what}{decision.because or ''}".strip() or None)


def _unpaired(limit: Limit, language: str, reason: str) -> Decision:
    return Decision(
        metric=CHANGE,
        language=language,
        outcome=Outcome.MISSING,
        verdict=Verdict.ERROR,
        estimate=Estimate.undefined(reason),
        limit=limit,
        because="A missing result fails the gate.",
        action="Measure the same models, specs and languages in both reports, or name another --baseline.",
    )


def _by_pair(damage: Iterable[Mapping[str, Any]]) -> dict[Pair, list[Mapping[str, Any]]]:
    found: dict[Pair, list[Mapping[str, Any]]] = {}
    for row in damage:
        found.setdefault((row["model"], row["spec"]), []).append(row)
    return found


def _matched(now: Mapping[Pair, Any], then: Mapping[Pair, Any]) -> dict[Pair, Pair]:
    """Pair models and specs by name; where only one of each is left to choose, a new name is the same thing.

    A candidate in a folder is compared with the released model, and a protected spec with the plain one.
    """
    pairs = {pair: pair for pair in now if pair in then}
    for place in (1, 0):  # same spec under another model's name, then same model under another spec
        for pair in now:
            alike = [other for other in then if other[place] == pair[place]]
            rivals = [mine for mine in now if mine[place] == pair[place]]
            if pair not in pairs and len(alike) == 1 and len(rivals) == 1 and alike[0] not in pairs.values():
                pairs[pair] = alike[0]
    if not pairs and len(now) == len(then) == 1:
        pairs[next(iter(now))] = next(iter(then))
    return {pair: pairs[pair] for pair in now if pair in pairs}


def _as_rows(pairs: Mapping[Pair, Pair]) -> list[dict[str, str]]:
    return [
        {"model": now[0], "spec": now[1], "baseline_model": then[0], "baseline_spec": then[1]}
        for now, then in pairs.items()
    ]


def _names(pairs: Iterable[Pair]) -> str:
    return ", ".join(" ".join(pair) for pair in pairs) or "nothing"


def _code(code: Mapping[str, Any]) -> str:
    commit = f" {code['commit'][:12]}" if code["commit"] else ""
    return f"{code['version'] or 'of unknown version'}{commit}{' with changes' if code['dirty'] else ''}"
