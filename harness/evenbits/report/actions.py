"""What to do about what was found: each advice once, with the models and specs that it is for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenbits.studies.gate.harm import Harm, harms

__all__ = ["Action", "actions", "advice", "spent", "subject"]

POINTS_AT = re.compile(r"\bmeasure\b[^.;]*\((H-\d+)\)")
"""An advice to measure another hypothesis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """An advice of one test. `subjects`: models and specs it is for, in the order of the report; none: for all."""

    hypothesis: str
    test: str
    text: str
    subjects: tuple[str, ...]


def subject(row: Mapping[str, Any]) -> str:
    """Return model and spec of a measurement or case."""
    return " ".join(row[key] for key in ("model", "spec") if row.get(key))


def actions(document: Mapping[str, Any]) -> list[Action]:
    """Return the advices in the order of the report; a test that does not apply advises nothing."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in document["measurements"]:
        if row["action"] and row["verdict"] != "not_applicable":
            found.setdefault((row["hypothesis"], row["test"], row["action"]), []).append(subject(row))
    return [
        Action(hypothesis=hypothesis, test=test, text=text, subjects=tuple(dict.fromkeys(filter(None, subjects))))
        for (hypothesis, test, text), subjects in found.items()
    ]


def spent(document: Mapping[str, Any], text: str) -> bool:
    """Whether an advice is to measure what the run has measured."""
    pointed = POINTS_AT.search(text)
    return pointed is not None and bool(document["verdicts"].get(pointed[1], {}).get("by_case"))


def advice(document: Mapping[str, Any], lead: Harm | None = None) -> list[Action]:
    """Return one advice for each hypothesis, for the model and spec asked about, in the order of the report.

    Tests of one hypothesis may each advise, of other predictors or at other cost; what decides the hypothesis speaks
    for it. An advice to measure what the run has measured is none. `lead`: whom it is for, by default the first.
    """
    lead = lead or next(harms(document), None)
    about = {lead.model, f"{lead.model} {lead.spec}"} if lead else set()
    roles = {(row["hypothesis"], row["test"]): row.get("role") for row in document["measurements"]}
    chosen: dict[str, Action] = {}
    deciding: dict[str, bool] = {}
    for one in actions(document):
        role = roles[one.hypothesis, one.test]
        others = bool(about) and bool(one.subjects) and not about & set(one.subjects)
        if role == "gate" or others or spent(document, one.text):
            continue
        if one.hypothesis not in chosen or (role == "criterion" and not deciding[one.hypothesis]):
            chosen[one.hypothesis], deciding[one.hypothesis] = one, role == "criterion"
    return list(chosen.values())
