"""`evenbits report`: the files of a run written again, from its report.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenbits.commands.console import say, say_json
from evenbits.commands.options import AsJson, ReportFile, explained, note
from evenbits.paths import expanded

__all__ = ["report"]


@explained
def report(
    document: ReportFile,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="folder to write to; default: that of REPORT", metavar="PATH", parser=expanded
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write page, summary, tables and model card of a run again, from its report.json alone."""
    from evenbits.report.document import load
    from evenbits.report.files import write_files

    written, notes = write_files(load(document), document.parent if out is None else out)
    if as_json:
        found = {"written": [str(file) for file in written], "notes": notes}
        say_json(found)
        return
    for file in written:
        say(str(file))
    for remark in notes:
        note(remark)
