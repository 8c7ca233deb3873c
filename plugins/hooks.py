"""Hooks for other plugins: measurements and sections of their own in the report.

Both are called once, when all tests have run, on the process that writes the report: alone, or xdist's controller. An
error in one of them fails the run with a sentence and leaves the report without what it would have added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from evenbits.estimates import Measurement
from evenbits.report.sections import Section

__all__ = ["pytest_evenbits_measurements", "pytest_evenbits_sections"]


@pytest.hookspec
def pytest_evenbits_measurements(
    config: pytest.Config, damage: Sequence[Mapping[str, Any]], measurements: Sequence[Measurement]
) -> Iterable[Measurement]:
    """Return measurements to add to the report.

    `damage`: all damage rows, as the published schema describes them. `measurements`: what the evals recorded. Each
    new one is made by `evenbits.estimates.judge`, which holds a finding against a threshold; its `role` decides where
    it counts: a `criterion` gives its hypothesis the verdict, `gate` counts for the deployment gate. Where the gate or
    the run should fail because of it, write an eval instead: a hook only reports.
    """
    raise NotImplementedError  # a specification; implementations return something


@pytest.hookspec
def pytest_evenbits_sections(config: pytest.Config, document: Mapping[str, Any]) -> Iterable[Section]:
    """Return sections to add to the report: a title, a text, a table.

    `document`: the report as it stands, with all measurements. Sections are shown in the terminal (title and text), in
    Markdown and on the page, in the order of their titles.
    """
    raise NotImplementedError  # a specification; implementations return something
