"""The gate of several reports: what no shard by language could decide, disparity and the comparison with a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from evenbits.errors import ReportError
from evenbits.estimates import Measurement, judge
from evenbits.report.compare import (
    BASELINE_TEST,
    CHANGE,
    baseline_digest,
    change_decisions,
    change_threshold,
    refuse_other_corpus,
)
from evenbits.report.described import exposure_of
from evenbits.report.document import order_key
from evenbits.studies.gate.decision import DISPARITY_TEST, decide_disparity
from evenbits.studies.gate.policy import BaselineRule, Policy

__all__ = ["checked_baseline", "over_all_languages"]

Document = Mapping[str, Any]


def checked_baseline(baseline: Document | None, wanted: Mapping[str, Any] | None, first: Document) -> Document | None:
    """Return `baseline` if it is the one the shards ran with, None where they had none; else `ReportError`."""
    if wanted is None:
        if baseline is not None:
            raise ReportError("--baseline is given, but the shards ran without one; run them with the same --baseline.")
        return None
    if baseline is None:
        raise ReportError(
            "the shards ran with --baseline, and comparing all languages was left to the merge: give --baseline again."
        )
    if baseline_digest(baseline) != wanted["digest"]:
        raise ReportError("--baseline is not the report that the shards ran with.")
    refuse_other_corpus(first["inputs"]["corpus"]["digest"], baseline)
    return baseline


def over_all_languages(
    documents: Mapping[str, Document],
    damage: Sequence[Mapping[str, Any]],
    rows: Sequence[Measurement],
    *,
    policy: Policy | None,
    baseline: Document | None,
    today: date,
) -> list[Measurement]:
    """Decide what no shard could decide, for every model and spec whose languages were gated."""
    first = next(iter(documents.values()))
    seed = first["environment"]["seed"]
    languages = [entry["tag"] for entry in first["inputs"]["corpus"].get("languages", [])]
    pairs = dict.fromkeys((row.model, row.spec) for row in rows if row.role == "gate")
    decided = []
    for model, spec in pairs:
        if model is None or spec is None:
            continue
        mine = [row for row in damage if (row["model"], row["spec"]) == (model, spec)]
        case = {"hypothesis": "gate", "role": "gate", "model": model, "spec": spec}
        for metric in policy.overall if policy is not None else ():
            one = decide_disparity(
                policy, mine, metric=metric, model=model, spec=spec, seed=seed, today=today,  # type: ignore[arg-type]
                exposure=exposure_of(documents.values(), model),
            )  # fmt: skip
            decided.append(judge(one.finding(), one.threshold(), test=f"{DISPARITY_TEST}[{metric}]", **case))  # type: ignore[arg-type]
        if baseline is not None:
            rule = BaselineRule() if policy is None else policy.baseline
            threshold = change_threshold(rule)
            for one, p in change_decisions(rule, mine, baseline, languages=languages, seed=seed):
                finding = one.finding(p_value=p)
                decided.append(judge(finding, threshold, test=f"{BASELINE_TEST}[{CHANGE}]", **case))  # type: ignore[arg-type]
    return sorted(decided, key=order_key)
