"""The deployment gate: damage rows held against a policy, a decision with a sentence for each.

A limit is decided on the 95 % interval, not on the value: `pass` where the whole interval lies below the limit, `fail`
where it lies above, `inconclusive` where it straddles it. With fewer than `FEWEST_FOR_PASS` segments nothing passes: an
interval of so few knows no tail. Everything here is a function of the report's damage rows, so
that `evenbits merge` decides what no shard could: disparity, and the comparison with a baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Threshold, Verdict, three_way, units_needed
from evenbits.statistics.means import FEWEST_FOR_PASS
from evenbits.studies.families import without_a_family
from evenbits.studies.gate.policy import LANGUAGE_METRICS, Limit, Policy, Waiver
from evenbits.text.languages import describe, families_of

__all__ = [
    "BY_SEGMENT",
    "DISPARITY_TEST",
    "LANGUAGE_TEST",
    "LET_THROUGH",
    "TASK_LOSS",
    "UNTIL_DECIDED",
    "Case",
    "Decision",
    "Outcome",
    "baseline_warning",
    "case_of",
    "cases",
    "decide_disparity",
    "decide_language",
    "decided",
    "disparity_estimates",
    "estimate_of",
    "floor_bits_of",
    "language_of",
    "lets_through",
    "outcome_of",
    "segments_of",
]

BY_SEGMENT = "excess_bits_by_segment"
"""Key of a damage row: excess bits of each segment, in the order of the corpus whose digest the report names."""

TASK_LOSS = "task_loss"
"""The metric whose units are documents of tasks; those of the others are segments."""

MANY = 1000
"""Segments beyond which more text is no advice: the value lies too near the limit for an estimate of how many."""

UNTIL_DECIDED = "--until-decided takes as many as are needed"

LANGUAGE_TEST = "test_language_stays_within_the_policy"
DISPARITY_TEST = "test_disparity_stays_within_the_policy"


class Outcome(StrEnum):
    """What the gate says of one case. Report, JUnit, Markdown and terminal use these words."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    WAIVED = "waived"
    EXPIRED = "expired waiver"
    UNNEEDED = "unneeded waiver"
    MISSING = "missing"


FAILING_FIRST = (
    Verdict.ERROR,
    Verdict.NOT_SUPPORTED,
    Verdict.UNDERPOWERED,
    Verdict.NOT_APPLICABLE,
    Verdict.SUPPORTED,
)

WORDS = {
    Verdict.ERROR: "error",
    Verdict.NOT_SUPPORTED: "fail",
    Verdict.UNDERPOWERED: "inconclusive",
    Verdict.NOT_APPLICABLE: "skipped",
    Verdict.SUPPORTED: "pass",
}

LET_THROUGH = (Verdict.SUPPORTED, Verdict.NOT_APPLICABLE)
"""Verdicts of gate rows that let a deployment through: shown to be within the limit, or excused by the policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One case of the gate, decided. `language` is None for disparity; `because` says what the numbers don't."""

    metric: str
    language: str | None
    outcome: Outcome
    verdict: Verdict | None
    estimate: Estimate
    limit: Limit
    because: str | None = None
    action: str | None = None

    def threshold(self) -> Threshold:
        return Threshold(metric=self.metric, op="<", bound=self.limit.bound, why=f"policy: {self.limit.where}")

    def finding(self, *, p_value: float | None = None) -> Finding:
        """Return the finding to record; held against its threshold it gets this decision's verdict."""
        subject = self.language or "all languages"
        return Finding(
            estimate=self.estimate,
            p_value=p_value,
            verdict=self.verdict,
            because=self.because,
            summary=f"{subject}: {self.outcome}",
            action=self.action,
            data={"outcome": str(self.outcome), "language": self.language, "because": self.because},
        )


def decide_language(
    policy: Policy,
    row: Mapping[str, Any] | None,
    *,
    language: str,
    model: str,
    spec: str,
    today: date,
    exposure: Mapping[str, int] | None = None,
    more_text: str = UNTIL_DECIDED,
) -> list[Decision]:
    """Decide every metric the policy limits for `language`. `row`: its damage row, None where there is no result.

    `exposure`: training bytes by language where the model says them; they decide the tier, else the public proxy does.
    `more_text`: how this run gets more segments, where there are any.
    """
    tier = describe(language, exposure=exposure).tier
    limits = [policy.limit(metric, language=language, tier=tier) for metric in LANGUAGE_METRICS]
    decisions = []
    for limit in limits:
        if limit is None:
            continue
        estimate = _missing(language) if row is None else estimate_of(row, limit.metric)
        waiver = policy.waiver(limit.metric, language=language, model=model, spec=spec)
        segments = 0 if row is None else estimate.n if limit.metric == TASK_LOSS else units_of(row)
        decisions.append(_decide(limit, estimate, waiver, language, today, segments=segments, more_text=more_text))
    covered = {decision.metric for decision in decisions}
    for waiver in policy.waivers:
        if waiver.metric not in covered and waiver.covers(waiver.metric, language, model, spec):
            limit = Limit(metric=waiver.metric, bound=0.0, inconclusive="fail", where="no limit")
            estimate = Estimate.undefined(f"the policy limits no {waiver.metric} for {language}")
            decisions.append(_unneeded(limit, estimate, waiver, language))
    return decisions


def decide_disparity(
    policy: Policy,
    rows: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    model: str,
    spec: str,
    seed: int,
    today: date,
    exposure: Mapping[str, int] | None = None,
    more_text: str = UNTIL_DECIDED,
) -> Decision:
    """Decide `disparity` or `disparity_ratio` over the damage rows of one model and spec, which must be limited.

    `exposure`, `more_text`: as in `decide_language`.
    """
    limit = policy.limit(metric)
    if limit is None:
        raise ValueError(f"the policy does not limit {metric}")
    estimate = disparity_estimates(rows, seed=seed, exposure=exposure)[metric]
    waiver = policy.waiver(metric, language=None, model=model, spec=spec)
    segments = min((units_of(row) for row in rows), default=0)
    decision = _decide(limit, estimate, waiver, None, today, segments=segments, more_text=more_text)
    if estimate.value is None:
        return decision
    means = {row["language"]: float(row["excess_bits"]["value"]) for row in rows}
    low, high = _tiers(means, exposure)
    family = without_a_family(means, low=low, high=high, families=families_of(means), unit=" bits")
    return replace(decision, because=" ".join(part for part in (decision.because, family) if part) or None)


def _tiers(languages: Iterable[str], exposure: Mapping[str, int] | None) -> tuple[list[str], list[str]]:
    """Return the low- and the high-resource ones."""
    tiers = {tag: describe(tag, exposure=exposure).tier for tag in languages}
    return [tag for tag in tiers if tiers[tag] == "low"], [tag for tag in tiers if tiers[tag] == "high"]


def disparity_estimates(
    rows: Sequence[Mapping[str, Any]], *, seed: int, exposure: Mapping[str, int] | None = None
) -> dict[str, Estimate]:
    """Return `disparity` and `disparity_ratio` of one model and spec, from its damage rows with values by segment.

    Low and high resource follow the model's `exposure` where it is known, else the language table. The gate speaks of
    these languages, so what varies is segments: a mean over them of low minus high, with the interval of few segments
    that languages have, or the ratio of the two means with Fieller's: a high-resource mean of few languages varies too.
    Where that is not clear of 0 the ratio has no upper limit; where it is below three noise floors, no value.
    """
    from evenbits.statistics import mean_interval, ratio_of_means

    usable = {row["language"]: segments_of(row) for row in sorted(rows, key=lambda row: str(row["language"]))}
    lost = sorted(tag for tag, values in usable.items() if values is None)
    damage = {tag: values for tag, values in usable.items() if values is not None}
    tiers = _tiers(damage, exposure)
    reason = None
    if lost:
        reason = f"no damage by segment for {', '.join(lost)}"
    elif not all(tiers):
        reason = f"there is no {'high' if tiers[0] else 'low'}-resource language among {', '.join(damage) or 'none'}"
    elif len({len(values) for values in damage.values()}) > 1:
        reason = "languages have different numbers of segments"
    if reason is not None:
        return dict.fromkeys(("disparity", "disparity_ratio"), Estimate.undefined(reason))
    low, high = (np.mean([damage[tag] for tag in tags], axis=0) for tags in tiers)
    confidence = min(float(row.get("confidence", 0.95)) for row in rows)
    floor = max(floor_bits_of(row) for row in rows)
    ratio = ratio_of_means(low, high, rng=np.random.default_rng(seed), confidence=confidence, what="disparity ratio")
    if ratio.value is not None and high.mean() <= floor:
        why = f"the mean of the high-resource languages, {high.mean():.4g}, is not above its noise floor, {floor:.4g}"
        ratio = Estimate.undefined(why, n=len(high), method=ratio.method)
    difference = mean_interval(low - high, rng=np.random.default_rng(seed), confidence=confidence)
    return {"disparity": difference, "disparity_ratio": ratio}


def floor_bits_of(row: Mapping[str, Any]) -> float:
    """Return what a mean has to reach in bits per segment, 0 where no noise floor is known."""
    return float(row.get("floor_bits") or 0.0)


def units_of(row: Mapping[str, Any]) -> int:
    """Return how many independent pieces of text a damage row has: segments, or documents where they are known."""
    return int(row.get("documents") or row["segments"])


def segments_of(row: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return the excess bits of each segment, or document, of a damage row, (S,); None where the report has none."""
    values = row.get(BY_SEGMENT)
    return np.asarray(values, dtype=np.float64) if values else None


def outcome_of(row: Mapping[str, Any]) -> str:
    """Return the gate's word for a measurement row; `error` or `skipped` where its test came to no decision."""
    return str((row.get("data") or {}).get("outcome") or WORDS[Verdict(row["verdict"])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One measurement row of the gate for a reader. `subject`: a language, or what stands in its place."""

    outcome: str
    subject: str
    row: Mapping[str, Any]


def cases(document: Mapping[str, Any]) -> list[Case]:
    """Return the gate's rows: what fails first, then what is excused, then what passes; each in the report's order."""
    found = [case_of(row) for row in document["measurements"] if row.get("role") == "gate"]
    return sorted(found, key=lambda case: FAILING_FIRST.index(Verdict(case.row["verdict"])))


def case_of(row: Mapping[str, Any]) -> Case:
    """Return a measurement row of the gate as its case, also where its test came to no decision."""
    data = row.get("data") or {}
    name = str(row["test"]).partition("[")[0]
    subject = language_of(row) or ("all languages" if "outcome" in data else name)
    return Case(outcome=outcome_of(row), subject=subject, row=row)


def language_of(row: Mapping[str, Any]) -> str | None:
    """Return the language that a measurement row of the gate is about, None where it is about all of them."""
    language = (row.get("data") or {}).get("language")
    name, _, rest = str(row["test"]).partition("[")
    return str(language) if language else rest.removesuffix("]") if name == LANGUAGE_TEST else None


def baseline_warning(document: Mapping[str, Any]) -> str:
    """Return how the environment differs from that of the baseline, in a sentence; empty where it does not."""
    differs = document["environment"].get("baseline_differs")
    if not isinstance(differs, list) or not differs:
        return ""
    return f"the baseline was measured in another environment: {', '.join(map(str, differs))}"


def lets_through(document: Mapping[str, Any]) -> bool:
    """Return whether the gate of a report lets the deployment through; true where no gate ran.

    A gate whose every case was skipped for want of a limit has decided nothing, and lets nothing through.
    """
    found = document["verdicts"].get("gate")
    if found is None:
        return True
    rows = [row for row in document["measurements"] if row.get("role") == "gate"]
    return Verdict(found["verdict"]) in LET_THROUGH and any(map(decided, rows))


def decided(row: Mapping[str, Any]) -> bool:
    """Return whether a measurement row of the gate is a decision, and no test that was skipped."""
    return "outcome" in (row.get("data") or {})


def _decide(
    limit: Limit,
    estimate: Estimate,
    waiver: Waiver | None,
    language: str | None,
    today: date,
    *,
    segments: int,
    more_text: str,
) -> Decision:
    bare = _bare(limit, estimate, language, segments, more_text)
    if waiver is None or bare.outcome is Outcome.MISSING:
        return bare
    if bare.verdict is None:  # it passes by itself
        return _unneeded(limit, estimate, waiver, language)
    found = f"Without the waiver: {bare.outcome}."
    if waiver.expires < today:
        return Decision(
            metric=limit.metric,
            language=language,
            outcome=Outcome.EXPIRED,
            verdict=Verdict.NOT_SUPPORTED,
            estimate=estimate,
            limit=limit,
            because=f"The waiver has expired ({waiver.describe()}). {found}",
            action="Fix the cause, or let the owner renew the waiver with a new date.",
        )
    return Decision(
        metric=limit.metric,
        language=language,
        outcome=Outcome.WAIVED,
        verdict=Verdict.NOT_APPLICABLE,
        estimate=estimate,
        limit=limit,
        because=f"W{waiver.describe()[1:]}. {found}",
    )


def _bare(limit: Limit, estimate: Estimate, language: str | None, segments: int, more_text: str) -> Decision:
    """Decide without waivers."""

    def decision(outcome: Outcome, verdict: Verdict | None, because: str | None, action: str | None) -> Decision:
        return Decision(
            metric=limit.metric,
            language=language,
            outcome=outcome,
            verdict=verdict,
            estimate=estimate,
            limit=limit,
            because=because,
            action=action,
        )

    if estimate.value is None:
        return decision(Outcome.MISSING, Verdict.ERROR, "A missing result fails the gate.", None)
    of_tasks = limit.metric == TASK_LOSS
    units, how = ("documents", "--tasks") if of_tasks else ("segments", "--segments; half of the corpus decides")
    where = three_way(estimate, below=limit.bound)
    if where is Verdict.SUPPORTED and segments >= FEWEST_FOR_PASS:
        return decision(Outcome.PASS, None, None, None)
    if where is Verdict.SUPPORTED:
        return decision(
            Outcome.INCONCLUSIVE,
            Verdict.UNDERPOWERED,
            f"The interval lies below the limit, but {segments} {units} pass nothing: they may miss a heavy tail.",
            f"Measure at least {FEWEST_FOR_PASS} {units} of each language ({how}).",
        )
    if where is Verdict.NOT_SUPPORTED:
        return decision(
            Outcome.FAIL,
            Verdict.NOT_SUPPORTED,
            "The whole interval lies above the limit.",
            "Protect layers or keep outliers in FP16, take more bits, or raise the limit knowingly.",
        )
    few = segments < FEWEST_FOR_PASS
    straddles = "The interval straddles the limit"
    if (estimate.low is None) != (estimate.high is None):
        straddles += f" ({estimate.reason})"
    if limit.inconclusive == "pass" and not few:
        why = f"{straddles}, and the policy lets that through."
        return decision(Outcome.INCONCLUSIVE, Verdict.NOT_APPLICABLE, why, None)
    needed = units_needed(estimate, below=limit.bound)
    more_text = "name further tasks with --tasks" if of_tasks else more_text
    action = _more(units, needed, few=few, how=more_text)
    return decision(Outcome.INCONCLUSIVE, Verdict.UNDERPOWERED, f"{straddles}.", action)


def _more(units: str, needed: int | None, *, few: bool, how: str) -> str:
    """Return what to do where the interval straddles the limit: `needed` units would decide, where that can be told."""
    passing = 'set `inconclusive = "pass"` in the policy'
    if needed is not None and needed > MANY and not few:
        return f"More {units} hardly help so near the limit (more than {MANY} would be needed): {passing}, or move it."
    least = max(needed or 0, FEWEST_FOR_PASS if few else 0)
    about = f"more than {MANY} would decide, " if least > MANY else f"about {least} would decide, " if least else ""
    return f"Measure more {units} ({about}{how}){'' if few else f', or {passing}'}."


def _unneeded(limit: Limit, estimate: Estimate, waiver: Waiver, language: str | None) -> Decision:
    limited = limit.where != "no limit"
    return Decision(
        metric=limit.metric,
        language=language,
        outcome=Outcome.UNNEEDED,
        verdict=Verdict.NOT_SUPPORTED,
        estimate=estimate,
        limit=limit,
        because=f"The waiver is no longer needed ({waiver.describe()}): "
        + ("the result is within the limit." if limited else "there is no such limit."),
        action="Remove the waiver, or restrict it to the model and spec that need it.",
    )


def estimate_of(row: Mapping[str, Any], metric: str) -> Estimate:
    """Return the estimate of a language metric from its damage row."""
    if metric == TASK_LOSS:
        answers = row.get("tasks")
        none = f"no task in {row['language']} was run; name one with --tasks"
        return Estimate.undefined(none) if answers is None else Estimate.from_json(answers["loss"])
    if metric != "kl":
        return Estimate.from_json(row[metric])
    found = row["kl_nats_per_token"]
    if found["mean"] is None:
        return Estimate.undefined("the model was scored without KL", n=units_of(row))
    bounded = found.get("low") is not None and found.get("high") is not None
    return Estimate(
        value=found["mean"],
        low=found.get("low"),
        high=found.get("high"),
        n=units_of(row),
        method=str(found.get("method", "mean KL per token")),
        reason=None if bounded else "the report gives no interval of KL",
    )


def _missing(language: str) -> Estimate:
    return Estimate.undefined(
        f"there is no result for {language}, which the policy names: the corpus or --languages leaves it out, or "
        "its measurement is lost"
    )
