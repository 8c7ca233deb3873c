"""Findings of H-038: do features of redundancy tell resilient from vulnerable languages, with the predicted sign?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.estimates import Estimate, Finding, Verdict
from harness.languages import describe
from harness.resilience.discrimination import ALPHA, Discrimination, arrange, deltas, discriminate, standardising
from harness.resilience.features import EXPECTED, FeatureTable
from harness.resilience.gradient import left_over
from harness.resilience.groups import Refusal, ResilienceGroups
from harness.resilience.study import ResilienceStudy
from harness.statistics import LARGE_DELTA, cliffs_delta

__all__ = [
    "beyond_resource_level",
    "discriminating_features",
    "more_distributed",
    "without_a_family",
    "without_likelihood",
]

Float64 = NDArray[np.float64]
WHAT = "Cliff's delta, resilient against vulnerable"


def discriminating_features(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether some feature tells the groups apart (q < .05, large effect), and does so on languages left out.

    The estimate is |Cliff's delta| of the decisive feature; p is the larger of its q and the p of the nested AUC
    against the null of the whole search, which both have to be small. `also`: with groups by other metrics.
    """
    groups = study.groups.primary
    found = _search(groups, study.features, rng)
    if isinstance(groups, Refusal) or isinstance(found, Refusal):
        return _refused(found, groups)
    others = {
        metric: _search(of_metric, study.features, rng)
        for metric, of_metric in study.groups.by_metric.items()
        if metric != groups.metric
    }
    also = {
        metric: Estimate.undefined(one.lacking, n=one.n, method=WHAT) if isinstance(one, Refusal) else one.magnitude
        for metric, one in others.items()
    }
    known = {metric: one for metric, one in others.items() if isinstance(one, Discrimination)}
    return _judged(
        found,
        because=f"{_because(found)} Groups: {_members(groups)}.{_left_out(groups)}",
        summary=f"{_sizes(found)}; {_brief(found)}",
        action=_action(groups, found),
        also=also,
        sensitive=any(one.discriminates != found.discriminates for one in known.values()),
        data={
            "groups": {name: _json_of(one) for name, one in study.groups.by_metric.items()},
            "search": found.to_json(),
            "search_by_metric": {metric: one.to_json() for metric, one in known.items()},
            "features": study.features.to_json(),
        },
    )


def more_distributed(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether resilient languages score higher on all features together, each with the sign fixed in advance.

    A language's index is the mean over features of sign x standardised value. The estimate is Cliff's delta of the
    index; p is one-sided, by the same exchange of residuals as the search.
    """
    groups = study.groups.primary
    checked = _search(groups, study.features, rng)
    if isinstance(groups, Refusal) or isinstance(checked, Refusal):
        return _refused(checked, groups)
    usable = study.features.over(groups.languages)
    signs = np.array([EXPECTED[name] for name in usable.names])
    standard = (usable.table - usable.table.mean(axis=0)) / usable.table.std(axis=0)
    index_N1 = (standard * signs).mean(axis=1, keepdims=True)
    resilient, vulnerable = (mask[0] for mask in groups.masks(groups.residual[None]))
    null = arrange(groups, features=len(usable.names), rng=rng)
    assert not isinstance(null, Refusal)  # noqa: S101 - the search above would have been refused as well
    delta = cliffs_delta(index_N1[resilient, 0], index_N1[vulnerable, 0], rng=rng, permutations=1).estimate
    if delta.value is None:
        return _refused(Refusal(verdict=Verdict.NOT_APPLICABLE, lacking=str(delta.reason), because=f"{delta.reason}."))
    scale = float(standardising(resilient[None], vulnerable[None])[0])
    null_B = null.scale * deltas(index_N1, null.resilient, null.vulnerable)[:, 0]
    p = null.p_value(scale * delta.value, null_B, "greater")
    by_feature = {row["feature"]: row["delta"]["value"] or 0.0 for row in checked.rows}
    agreeing = [name for name, value in by_feature.items() if value * EXPECTED[name] > 0]
    against = "" if p < ALPHA else f", needed below {ALPHA:g}"
    return Finding(
        estimate=delta,
        p_value=p,
        verdict=None if p < ALPHA else Verdict.NOT_SUPPORTED,
        because=f"p {p:.3g}{against} ({null.method}, one-sided). {len(agreeing)} of {len(by_feature)} features differ "
        f"in the predicted direction.",
        summary=f"index of distribution; {len(agreeing)} of {len(by_feature)} features as predicted",
        data={
            "index": dict(zip(groups.languages, index_N1[:, 0].tolist(), strict=True)),
            "as_predicted": agreeing,
            "expected_signs": {name: EXPECTED[name] for name in usable.names},
        },
    )


def without_likelihood(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """The search again, with groups by residuals on resource level alone: likelihood takes no part."""
    groups = study.groups.without_likelihood
    return _again(groups, _search(groups, study.features, rng))


def beyond_resource_level(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """The search again, on what is left of each feature when resource level and likelihood are regressed out of it.

    The groups differ in tier by definition; a feature that only follows training text has nothing left here.
    """
    groups = study.groups.primary
    if isinstance(groups, Refusal):
        return _refused(groups)
    usable = study.features.over(groups.languages)
    if not usable.names:
        return _refused(_search(groups, study.features, rng), groups)
    left_NK = left_over(usable, groups)
    adjusted = FeatureTable(
        values={
            name: dict(zip(groups.languages, column.tolist(), strict=True))
            for name, column in zip(usable.names, left_NK.T, strict=True)
        }
    )
    return _again(groups, _search(groups, adjusted, rng))


def without_a_family(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """The least effect of the decisive feature when the languages of any one family are left out of the groups.

    Signed as in the whole: below zero, a family alone makes the sign. Does not arise where nothing discriminates.
    """
    groups = study.groups.primary
    found = _search(groups, study.features, rng)
    if isinstance(groups, Refusal) or isinstance(found, Refusal):
        return _refused(found, groups)
    if not found.discriminates:
        reason = "no feature discriminates, so there is nothing to hold against families"
        return _refused(Refusal(verdict=Verdict.NOT_APPLICABLE, lacking=reason, because=f"{found.refuted or reason}"))
    column = study.features.values[found.best]
    sign = 1.0 if (found.delta.value or 0.0) > 0 else -1.0
    rows: dict[str, float | None] = {}
    estimates: dict[str, Estimate] = {}
    for family in sorted({_family(tag) for tag in (*groups.resilient, *groups.vulnerable)}):
        sides = [
            [sign * float(column[tag] or 0.0) for tag in side if _family(tag) != family]
            for side in (groups.resilient, groups.vulnerable)
        ]
        estimate = cliffs_delta(sides[0], sides[1], rng=rng, permutations=1).estimate
        rows[family] = estimate.value
        if estimate.value is not None:
            estimates[family] = estimate
    alone = [family for family, value in rows.items() if value is None]
    if alone:
        lacking = f"without {alone[0]} fewer than two languages are left in a group"
        return _refused(
            Refusal(verdict=Verdict.UNDERPOWERED, lacking=lacking, because=f"{lacking}. Add other families.")
        )
    worst = min(estimates, key=lambda family: estimates[family].value or 0.0)
    return Finding(
        estimate=estimates[worst],
        because=f"{found.best} is held up least without {worst}, of {len(estimates)} families.",
        summary=f"{found.best}, least without {worst}",
        data={"feature": found.best, "without": rows},
    )


def _search(
    groups: ResilienceGroups | Refusal, features: FeatureTable, rng: np.random.Generator
) -> Discrimination | Refusal:
    return groups if isinstance(groups, Refusal) else discriminate(groups, features, rng=rng)


def _again(groups: ResilienceGroups | Refusal, found: Discrimination | Refusal) -> Finding:
    """Return the finding of a search under another choice."""
    if isinstance(groups, Refusal) or isinstance(found, Refusal):
        return _refused(found, groups)
    return _judged(
        found, because=_because(found), summary=f"{_sizes(found)}; {_brief(found)}",
        data={"groups": groups.to_json(), "search": found.to_json()},
    )  # fmt: skip


def _judged(found: Discrimination, *, because: str, summary: str, data: Mapping[str, Any], action: str | None = None,
            also: Mapping[str, Estimate] | None = None, sensitive: bool = False) -> Finding:  # fmt: skip
    return Finding(
        estimate=found.magnitude, p_value=max(found.q, found.auc_p),
        verdict=None if found.refuted is None else Verdict.NOT_SUPPORTED, because=because, summary=summary,
        action=action, also=also or {}, sensitive=sensitive, data=data,
    )  # fmt: skip


def _refused(why: Discrimination | Refusal, groups: ResilienceGroups | Refusal | None = None) -> Finding:
    refusal = why if isinstance(why, Refusal) else groups
    assert isinstance(refusal, Refusal)  # noqa: S101 - called where one of the two is
    who, data = "", {}
    if isinstance(groups, ResilienceGroups):
        who, data = f" Groups: {_members(groups)}.{_left_out(groups)}", {groups.metric: groups.to_json()}
    return Finding(
        estimate=Estimate.undefined(refusal.lacking, n=refusal.n, method=WHAT),
        verdict=refusal.verdict,
        because=refusal.because + who,
        summary=refusal.lacking,
        data={"groups": data},
    )


def _json_of(groups: ResilienceGroups | Refusal) -> dict[str, Any]:
    return {"none": groups.because} if isinstance(groups, Refusal) else groups.to_json()


def _family(tag: str) -> str:
    return describe(tag).family or tag


def _sizes(found: Discrimination) -> str:
    return f"{found.sizes[0]} resilient low-resource, {found.sizes[1]} vulnerable high-resource languages"


def _members(groups: ResilienceGroups) -> str:
    resilient, vulnerable = (", ".join(side) or "none" for side in (groups.resilient, groups.vulnerable))
    return f"resilient {resilient}; vulnerable {vulnerable}"


def _left_out(groups: ResilienceGroups) -> str:
    by_reason: dict[str, list[str]] = {}
    for tag, reason in groups.left_out.items():
        by_reason.setdefault(reason, []).append(tag)
    out = "; ".join(f"{', '.join(tags)} ({reason})" for reason, tags in by_reason.items())
    return f" Left out: {out}." if out else ""


def _brief(found: Discrimination) -> str:
    auc = found.selection.estimate
    value = "undefined" if auc.value is None else f"{auc.value:.2f}"
    return (
        f"{found.best} delta {found.delta.value or 0.0:+.2f}, q {found.q:.2g}; nested AUC {value}, p {found.auc_p:.2g}"
    )


def _because(found: Discrimination) -> str:
    holding = [row["feature"] for row in found.rows if row["q"] < ALPHA and abs(row["delta"]["value"]) >= LARGE_DELTA]
    told = f"Told apart by {', '.join(holding)}." if holding else "No feature has q < .05 and a large effect."
    wide = found.selection.estimate
    interval = "" if wide.low is None or wide.high is None else f" [{wide.low:.2f}, {wide.high:.2f}]"
    auc = "undefined" if wide.value is None else f"{wide.value:.2f}{interval}"
    return (
        f"{found.refuted or told} {found.best}: delta {found.delta.value or 0.0:+.2f}, where resource level and family "
        f"alone give {found.rows[0]['expected_delta']:+.2f}, q {found.q:.3g}; nested AUC {auc}, p {found.auc_p:.3g} "
        f"({found.method})."
    )


def _action(groups: ResilienceGroups, found: Discrimination) -> str:
    ranked = sorted(zip(groups.languages, groups.residual, strict=True), key=lambda pair: -pair[1])
    most = ", ".join(f"{tag} ({np.exp(residual):.1f}x)" for tag, residual in ranked[:3])
    if not found.discriminates:
        return f"Test first what loses most beyond resource level and likelihood: {most}; no feature tells beforehand."
    more = "more" if (found.delta.value or 0.0) > 0 else "less"
    return f"Look at {found.best} before quantizing, resilient languages have {more}; most beyond expected lose {most}."
