"""A pilot from an earlier report: the damage of one model under one spec, with values by segment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from evenbits.report.described import exposure_of
from evenbits.studies.gate.decision import segments_of
from evenbits.studies.gate.harm import harms
from evenbits.studies.plan import Pilot, pilot_of

__all__ = ["pilot_in"]


def pilot_in(
    document: Mapping[str, Any],
    *,
    models: Collection[str] = (),
    specs: Collection[str] = (),
    languages: Collection[str] = (),
) -> Pilot | None:
    """Return the pilot that the first damage table of `document` makes, None where it has none with segments.

    `models`, `specs`, `languages`: of these alone, where they are named. `ReportError` where that is too little.
    """
    for one in harms(document, every_spec=True):
        rows = [row for row in one.ranked if not languages or row["language"] in languages]
        wanted = (not models or one.model in models) and (not specs or one.spec in specs)
        if rows and wanted and all(segments_of(row) is not None for row in rows):
            exposure = exposure_of([document], one.model)
            return pilot_of(rows, exposure=exposure, layers=_layers_of(document, one.model))
    return None


def _layers_of(document: Mapping[str, Any], model: str) -> int | None:
    """Return how many layers the sweep of H-036's criterion went through, None where the report has none."""
    rows = (row for row in document["measurements"] if row["hypothesis"] == "H-036" and row["role"] == "criterion")
    swept = ((row["data"] or {}).get("layer_language") for row in rows if row["model"] == model)
    return next((len(found["layers"]) for found in swept if found), None)
