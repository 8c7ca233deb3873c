"""Findings of H-038: do features of redundancy tell resilient from vulnerable languages, and does that hold?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import LARGE_DELTA, cliffs_delta
from evenbits.studies.h038.arrangements import ALPHA
from evenbits.studies.h038.discrimination import Discrimination, discriminate
from evenbits.studies.h038.features import EXPECTED, FeatureTable
from evenbits.studies.h038.gradient import left_over
from evenbits.studies.h038.groups import Refusal, ResilienceGroups
from evenbits.studies.h038.sentences import WHAT, left_out, members, refused
from evenbits.studies.h038.study import ResilienceStudy
from evenbits.text.languages import describe

__all__ = [
    "beyond_resource_level",
    "discriminating_features",
    "without_a_family",
    "without_likelihood",
]

Float64 = NDArray[np.float64]


def discriminating_features(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether some feature tells the groups apart (q < .05, large effect), and does so on languages left out.

    The estimate is Cliff's delta of the decisive feature, as expected above 0; p is the larger of its q and the p of
    the nested AUC against the null of the whole search, which both have to be small. `also`: with groups by other
    metrics.
    """
    groups = study.groups.primary
    found = _search(groups, study.features, rng)
    if isinstance(groups, Refusal) or isinstance(found, Refusal):
        return _without(found, groups)
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
        because=f"{_because(found)} Groups: {members(groups)}.{left_out(groups)}",
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
        return refused(groups)
    usable = study.features.over(groups.languages)
    if not usable.names:
        return _without(_search(groups, study.features, rng), groups)
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
        return _without(found, groups)
    column = study.features.values[found.best]
    sign = EXPECTED.get(found.best, 1)
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
    data = {"feature": found.best, "without": rows}
    if not found.discriminates:
        reason = "no feature discriminates, so there is nothing to hold against families"
        return refused(
            Refusal(verdict=Verdict.NOT_APPLICABLE, lacking=reason, because=found.refuted or f"{reason}."), data=data
        )
    alone = [family for family, value in rows.items() if value is None]
    if alone:
        lacking = f"without {alone[0]} fewer than two languages are left in a group"
        return refused(
            Refusal(verdict=Verdict.UNDERPOWERED, lacking=lacking, because=f"{lacking}. Add other families."), data=data
        )
    worst = min(estimates, key=lambda family: estimates[family].value or 0.0)
    return Finding(
        estimate=estimates[worst],
        shown=True,
        because=f"{found.best} is held up least without {worst}, of {len(estimates)} families.",
        summary=f"{found.best}, least without {worst}",
        data=data,
    )


def _search(
    groups: ResilienceGroups | Refusal, features: FeatureTable, rng: np.random.Generator
) -> Discrimination | Refusal:
    return groups if isinstance(groups, Refusal) else discriminate(groups, features, rng=rng)


def _again(groups: ResilienceGroups | Refusal, found: Discrimination | Refusal) -> Finding:
    """Return the finding of a search under another choice."""
    if isinstance(groups, Refusal) or isinstance(found, Refusal):
        return _without(found, groups)
    return _judged(
        found,
        because=_because(found),
        summary=f"{_sizes(found)}; {_brief(found)}",
        data={"groups": groups.to_json(), "search": found.to_json()},
    )


def _judged(
    found: Discrimination,
    *,
    because: str,
    summary: str,
    data: Mapping[str, Any],
    action: str | None = None,
    also: Mapping[str, Estimate] | None = None,
    sensitive: bool | None = None,
) -> Finding:
    undecided = Verdict.NOT_SUPPORTED if found.ruled_out else Verdict.UNDERPOWERED
    return Finding(
        estimate=found.magnitude,
        p_value=max(found.q, found.auc_p),
        shown=True,
        verdict=None if found.refuted is None else undecided,
        because=because,
        summary=summary,
        action=action,
        also=also or {},
        sensitive=sensitive,
        data=data,
    )


def _without(found: Discrimination | Refusal, groups: ResilienceGroups | Refusal) -> Finding:
    """Return the finding of a search that could not be made, by whichever of the two says why."""
    refusal = found if isinstance(found, Refusal) else groups
    assert isinstance(refusal, Refusal)  # noqa: S101 - called where one of the two is
    return refused(refusal, groups)


def _json_of(groups: ResilienceGroups | Refusal) -> dict[str, Any]:
    return {"none": groups.because} if isinstance(groups, Refusal) else groups.to_json()


def _family(tag: str) -> str:
    return describe(tag).family or tag


def _sizes(found: Discrimination) -> str:
    return f"{found.sizes[0]} resilient low-resource, {found.sizes[1]} vulnerable high-resource languages"


def _brief(found: Discrimination) -> str:
    auc = found.selection.estimate
    value = "undefined" if auc.value is None else f"{auc.value:.2f}"
    return (
        f"{found.best} delta {found.delta.value or 0.0:+.2f}, q {found.q:.2g}; nested AUC {value}, p {found.auc_p:.2g}"
    )


def _because(found: Discrimination) -> str:
    holding = [
        row["feature"]
        for row in found.rows
        if row["q"] < ALPHA and EXPECTED.get(row["feature"], 1) * row["delta"]["value"] >= LARGE_DELTA
    ]
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
        return (
            f"Test first what loses most beyond resource level and likelihood: {most}; no feature is shown to tell "
            "beforehand."
        )
    more = "more" if (found.delta.value or 0.0) > 0 else "less"
    return f"Look at {found.best} before quantizing, resilient languages have {more}; most beyond expected lose {most}."
