"""Measurements as JUnit: properties beside a test of a run, and a file of its own for a merged report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from evenbits.estimates import Measurement
from evenbits.printable import printable
from evenbits.studies.gate.decision import language_of, outcome_of

__all__ = ["case_name", "junit_xml", "properties"]

RESULTS: Mapping[str, str | None] = {
    "supported": None,
    "not_applicable": "skipped",
    "not_supported": "failure",
    "underpowered": "failure",
    "error": "error",
}
"""Element below a test case, by its worst verdict."""


def properties(measurement: Measurement, *, number: int = 1) -> list[tuple[str, str]]:
    """Return (name, text) pairs. `number`: which measurement of its test this is; from the second on it is in the name.

    Undefined numbers are left out, their reason stands under `reason`. Numbers are unrounded.
    """
    estimate, threshold = measurement.estimate, measurement.threshold
    row = measurement.to_json() if measurement.role == "gate" else None
    values: dict[str, object | None] = {
        "hypothesis": measurement.hypothesis,
        "role": measurement.role,
        "model": measurement.model,
        "spec": measurement.spec,
        "verdict": str(measurement.verdict),
        "outcome": outcome_of(row) if row else measurement.data.get("outcome"),
        "language": language_of(row) if row else measurement.data.get("language"),
        "metric": measurement.metric,
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "reason": estimate.reason,
        "p_value": measurement.p_value,
        "needed": None if threshold is None else f"{threshold.op} {threshold.bound!r}",
        "metric_sensitive": "true" if measurement.metric_sensitive else None,
    }
    prefix = "evenbits." if number == 1 else f"evenbits.{number}."
    return [
        (prefix + name, repr(value) if isinstance(value, float) else printable(str(value)))
        for name, value in values.items()
        if value is not None
    ]


def case_name(*, hypothesis: str, test: str, model: str | None, spec: str | None) -> dict[str, str]:
    """Return `classname` and `name` of a test case, the same in single, sharded and merged runs."""
    name = " ".join(part for part in (test, model, spec) if part)
    return {"classname": printable(f"evenbits.{hypothesis}"), "name": printable(name)}


def junit_xml(document: Mapping[str, Any]) -> str:
    """Return a checked report document as JUnit XML: a test case per test, model and spec, as a run would write it.

    A run's own file comes from pytest; a merged report has tests that no run of it decided.
    """
    cases: dict[tuple[str, str, str, str], list[Measurement]] = {}
    for entry in document["measurements"]:
        row = Measurement.from_json(entry)
        cases.setdefault((row.hypothesis, row.test, row.model or "", row.spec or ""), []).append(row)
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name="evenbits", tests=str(len(cases)))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for (hypothesis, test, model, spec), rows in cases.items():
        case = ET.SubElement(suite, "testcase", case_name(hypothesis=hypothesis, test=test, model=model, spec=spec))
        listed = ET.SubElement(case, "properties")
        for number, row in enumerate(rows, start=1):
            for key, text in properties(row, number=number):
                ET.SubElement(listed, "property", name=key, value=text)
        worst = max(rows, key=lambda row: list(RESULTS).index(str(row.verdict)))
        result = RESULTS[str(worst.verdict)]
        if result is not None:
            counts[result] += 1
            message = " ".join(row.explain() for row in rows if RESULTS[str(row.verdict)] == result)
            ET.SubElement(case, result, message=printable(message))
    for key, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(counts[key]))
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
