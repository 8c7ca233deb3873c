"""From measurements to one verdict per hypothesis.

The criterion decides a hypothesis. Established findings, the gate and the controls never change that verdict: an
established finding has one under its own name (`E-1`), everything else of the kind one as a group (`gate`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from evenbits.estimates import Estimate, Measurement, Verdict
from evenbits.report.runs import training_runs_of
from evenbits.studies.study import studies

__all__ = ["GROUPS", "combine", "hypotheses", "rank", "verdicts"]

ESTABLISHED = "established"
GROUPS = (ESTABLISHED, "gate", "control")
"""Roles that form a group of their own, in the order in which they follow the hypotheses."""

WORST_FIRST = (Verdict.ERROR, Verdict.NOT_SUPPORTED, Verdict.UNDERPOWERED, Verdict.SUPPORTED, Verdict.NOT_APPLICABLE)


def hypotheses() -> tuple[str, ...]:
    """Return the built-in hypotheses in order of execution and of reporting."""
    return tuple(name for study in studies() if study.place is not None for name in study.claims)


def rank(name: str) -> tuple[int, str]:
    """Return the sort key of a hypothesis or group: the programme's order, others by name, groups last."""
    known = hypotheses()
    if name in known:
        return known.index(name), ""
    if name in GROUPS:
        return 100 + GROUPS.index(name), ""
    return 50, name


def combine(found: Iterable[Verdict]) -> Verdict:
    """Return the verdict over several cases (models, specs, tests).

    An error anywhere is an error: a missing result never looks like an answer. Cases that do not apply do not count,
    unless there are no others. One refuted case refutes; all others supported, it takes one underpowered case to leave
    the question open.
    """
    counted = set(found)
    for verdict in WORST_FIRST:
        if verdict in counted:
            return verdict
    return Verdict.NOT_APPLICABLE


def verdicts(measurements: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
    """Return the `verdicts` of the report: by hypothesis or group, in reporting order."""
    named = _established_by_name(measurements)
    groups = {row.role for row in measurements if row.role in GROUPS and row.hypothesis not in named}
    names = sorted({row.hypothesis for row in measurements} | groups, key=rank)
    return {name: _verdict(name, measurements, named) for name in names}


def _established_by_name(measurements: Sequence[Measurement]) -> set[str]:
    """Return the names under which nothing but established findings stands: each is judged by itself."""
    mixed = {row.hypothesis for row in measurements if row.role != ESTABLISHED}
    return {row.hypothesis for row in measurements} - mixed - {ESTABLISHED, *hypotheses()}


def _verdict(name: str, measurements: Sequence[Measurement], named: Collection[str]) -> dict[str, Any]:
    if name in GROUPS:
        deciding = [row for row in measurements if row.role == name and row.hypothesis not in named]
    else:
        role = ESTABLISHED if name in named else "criterion"
        deciding = [row for row in measurements if row.hypothesis == name and row.role == role]
    if not deciding:
        return _undecided(name)
    verdict = combine(row.verdict for row in deciding)
    first = next(row for row in deciding if row.verdict is verdict)
    return {
        "verdict": str(verdict),
        "metric": first.metric,
        "estimate": first.estimate.to_json(),
        "threshold": None if first.threshold is None else first.threshold.to_json(),
        "n": first.estimate.n,
        "p_value": first.p_value,
        "metric_sensitive": any(row.metric_sensitive for row in deciding),
        "explain": _explain(first, deciding),
        "summary": first.summary,
        "action": first.action,
        "by_case": [_case(row) for row in deciding],
    }


def _undecided(name: str) -> dict[str, Any]:
    reason = f"no criterion test of {name} was selected"
    return {
        "verdict": str(Verdict.NOT_APPLICABLE),
        "metric": None,
        "estimate": Estimate.undefined(reason).to_json(),
        "threshold": None,
        "n": 0,
        "p_value": None,
        "metric_sensitive": False,
        "explain": f"not_applicable: {reason}, so nothing decides it.",
        "summary": reason,
        "action": None,
        "by_case": [],
    }


def _explain(first: Measurement, deciding: Sequence[Measurement]) -> str:
    if len(deciding) == 1:
        return first.explain()
    counts = Counter(row.verdict for row in deciding)
    others = "".join(
        f", {str(verdict).replace('_', ' ')} for {counts[verdict]}"
        for verdict in WORST_FIRST
        if counts[verdict] and verdict is not Verdict.SUPPORTED
    )
    counted = f"{counts[Verdict.SUPPORTED]} of {len(deciding)}{others}{_of_runs(deciding)}"
    return f"Supported for {counted}. {_where(first)}: {first.explain()}"


def _of_runs(deciding: Sequence[Measurement]) -> str:
    """Return what the number of models stands for, where it is larger than that of training runs."""
    models, runs = len({row.model for row in deciding if row.model}), training_runs_of(deciding)
    if runs >= models:
        return ""
    return f" ({models} models of {runs} training run{'' if runs == 1 else 's'}: copies and checkpoints are no others)"


def _where(row: Measurement) -> str:
    return ", ".join(part for part in (row.test, row.model, row.spec) if part)


def _case(row: Measurement) -> dict[str, Any]:
    return {
        "test": row.test,
        "model": row.model,
        "spec": row.spec,
        "verdict": str(row.verdict),
        "metric": row.metric,
        "estimate": row.estimate.to_json(),
        "threshold": None if row.threshold is None else row.threshold.to_json(),
        "n": row.estimate.n,
        "p_value": row.p_value,
        "metric_sensitive": row.metric_sensitive,
        "explain": row.explain(),
        "summary": row.summary,
        "action": row.action,
    }
