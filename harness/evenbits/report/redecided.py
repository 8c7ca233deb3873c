"""Findings over all models, decided again from the records of several reports: what no shard by model could decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evenbits.errors import ReportError
from evenbits.estimates import Measurement, Role, Threshold, Verdict, judge
from evenbits.report.contributions import Contributions
from evenbits.report.document import asked
from evenbits.studies.over_models import DECISIONS, KINDS, Kind, ModelRecord, Records, decide
from evenbits.variants.quantization.spec import parse_spec

__all__ = ["Redecided", "ended_early", "redecide"]

Document = Mapping[str, Any]
Case = tuple[str, str, str | None]
"""Hypothesis, test and spec of a finding over models."""


@dataclass(kw_only=True)
class Redecided:
    """What an unsharded run would have found over all models, and contributed.

    `settled`: hypothesis, test and spec of the shards' rows in whose place `rows` stand. `recipes`: all that there are
    of the kinds `recipe_kinds`.
    """

    rows: list[Measurement] = field(default_factory=list)
    settled: set[Case] = field(default_factory=set)
    decisions: list[Mapping[str, Any]] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    recipes: list[Mapping[str, Any]] = field(default_factory=list)
    recipe_kinds: set[str] = field(default_factory=set)


def redecide(documents: Mapping[str, Document], *, models: Sequence[str], seed: int) -> Redecided:
    """Decide every finding over models of `documents` over all of `models`, in their order.

    A finding under the first spec of a run is that of the first of `documents`; what shards found under another first
    spec falls away. Where the test of a finding ended early in a shard, it would have in an unsharded run: that row
    stands. `ReportError` where shards contradict each other, or a model has no part in a finding.
    """
    whole = Redecided()
    first = _first_spec(next(iter(documents.values())))
    cases: dict[Case, str] = {}
    for document in documents.values():
        for entry in _part(document, "decisions"):
            case = (entry["hypothesis"], entry["test"], entry["spec"])
            decision = DECISIONS.get(entry["decision"])
            if decision is None:
                raise ReportError(f"{entry['test']} was decided by {entry['decision']}, which this evenbits lacks.")
            whole.settled |= {case, (*case[:2], None)}
            whole.recipe_kinds |= set() if decision.recipes is None else {decision.recipes}
            cases[(*case[:2], first) if KINDS[decision.kind].per == "first spec" else case] = entry["decision"]
    for case, name in cases.items():
        _settle(case, name, documents, whole, models=models, seed=seed)
    return whole


def ended_early(rows: Sequence[Measurement]) -> bool:
    """Return whether the rows of a test say that it came to no measurement: an error before it, or a skip."""
    return all(row.metric == "none" and row.verdict in {Verdict.ERROR, Verdict.NOT_APPLICABLE} for row in rows)


def _settle(
    case: Case, name: str, documents: Mapping[str, Document], whole: Redecided, *, models: Sequence[str], seed: int
) -> None:
    """Add what an unsharded run would have of one case."""
    hypothesis, test, spec = case
    decision = DECISIONS[name]
    parts = {one: part for one, part in documents.items() if _belongs(part, KINDS[decision.kind], spec)}
    rows = {one: list(_rows(part, case)) for one, part in parts.items()}
    early = next((found for found in rows.values() if found and ended_early(found)), None)
    if early is not None:
        whole.rows += early
        return
    _refuse_models_without(case, {one: part for one, part in parts.items() if rows[one]}, models)
    records = _joined(parts, decision.kind, spec, models)
    threshold, role = _rule(rows, test)
    found = decide(name, records, threshold, seed=seed)
    whole.rows.append(
        judge(found.finding, threshold, hypothesis=hypothesis, test=test, role=role, model=None, spec=spec)
    )
    whole.decisions.append({"decision": name, "hypothesis": hypothesis, "test": test, "spec": spec})
    whole.records += [record.to_json() for record in records.records]
    whole.recipes += found.recipes


def _part(document: Document, name: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = document.get("over_models", {}).get(name, ())
    return found


def _first_spec(document: Document) -> str | None:
    texts = asked(document, "specs")
    return str(parse_spec(texts[0]).base) if texts else None


def _belongs(document: Document, kind: Kind, spec: str | None) -> bool:
    """Whether an unsharded run's finding under `spec` takes anything from this shard."""
    if kind.per == "first spec":
        return _first_spec(document) == spec
    return kind.per == "model" or spec in asked(document, "specs")


def _rows(document: Document, case: Case) -> Iterator[Measurement]:
    """Yield the rows of a case; a test that ended early says no spec unless it has one of its own."""
    for row in document["measurements"]:
        if (row["hypothesis"], row["test"]) == case[:2] and row["model"] is None and row["spec"] in {None, case[2]}:
            yield Measurement.from_json(row)


def _refuse_models_without(case: Case, parts: Mapping[str, Document], models: Sequence[str]) -> None:
    """Raise `ReportError` where a model took part in no shard's finding: an unsharded run would have it."""
    have = {text for part in parts.values() for text in asked(part, "models")}
    lost = [text for text in models if text not in have]
    if lost:
        where = case[1] if case[2] is None else f"{case[1]} under {case[2]}"
        raise ReportError(
            f"a part of the run is missing: {where} is over all models, and was not run for {', '.join(lost)}. Run the "
            "shards with the same selection of tests, and merge the reports of all."
        )


def _joined(parts: Mapping[str, Document], kind: str, spec: str | None, models: Sequence[str]) -> Records:
    joined = Contributions()
    for name, part in parts.items():
        try:
            joined.add("records", [one for one in _part(part, "records") if (one["kind"], one["spec"]) == (kind, spec)])
        except ReportError as error:
            raise ReportError(f"{name} contradicts the reports before it: {error}") from None
    found = {one["model"]: ModelRecord.from_json(one) for one in joined.entries("records")}
    return Records(kind=kind, spec=spec, records=tuple(found[text] for text in models if text in found))


def _rule(rows: Mapping[str, Sequence[Measurement]], test: str) -> tuple[Threshold, Role]:
    """Return threshold and role of a case, which its shards must share."""
    rules = {name: (row.threshold, row.role) for name, found in rows.items() for row in found}
    (first, (threshold, role)), *others = rules.items()
    for name, rule in others:
        if rule != (threshold, role):
            raise ReportError(f"{first} and {name} decided {test} by different thresholds; run the shards alike.")
    if threshold is None:
        raise ReportError(f"{first} has no threshold for {test}, so it cannot be decided again.")
    return threshold, role
