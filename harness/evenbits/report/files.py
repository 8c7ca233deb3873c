"""Everything that is written from a report document: page, summary, tables, model cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenbits.report.document import write
from evenbits.report.html import MissingTemplatesError, html
from evenbits.report.markdown import markdown
from evenbits.report.model_card import model_card
from evenbits.report.tables import parquet_is_missing, write_tables

__all__ = ["write_files"]


def write_files(document: Mapping[str, Any], folder: Path) -> tuple[list[Path], list[str]]:
    """Write all forms of `document` into `folder`; return the files, and a sentence for each that is missing.

    `index.html`, `summary.md`, `damage.csv` and `measurements.csv` (and `.parquet` where pyarrow is installed), and
    `model-card.md`, or `model-card-NAME.md` for each of several models with damage. Raises `ReportError` where a
    file cannot be written.
    """
    notes: list[str] = []
    page = folder / "index.html"
    written = [page]
    try:
        write(page, html(document))
    except MissingTemplatesError as error:
        page.unlink(missing_ok=True)  # one of an earlier run must not stand beside this report
        notes.append(str(error))
        written.clear()
    written.append(folder / "summary.md")
    write(written[-1], markdown(document))
    written += write_tables(document, folder)
    if parquet_is_missing():
        notes.append(
            "damage.parquet and measurements.parquet need pyarrow: install evenbits[parquet], then "
            "`evenbits report report.json` writes them."
        )
    for name, model in _card_names(document).items():
        written.append(folder / name)
        write(written[-1], model_card(document, model))
    return written, notes


def _card_names(document: Mapping[str, Any]) -> dict[str, str]:
    """Return a file name for each model: plain for one, else with what a file name can hold of the model's."""
    models = list(dict.fromkeys(row["model"] for row in document["damage"]))
    if len(models) == 1:
        return {"model-card.md": models[0]}
    names: dict[str, str] = {}
    for model in models:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:80]
        name, again = f"model-card-{plain}.md", 2
        while name.lower() in {taken.lower() for taken in names}:
            name, again = f"model-card-{plain}-{again}.md", again + 1
        names[name] = model
    return names
