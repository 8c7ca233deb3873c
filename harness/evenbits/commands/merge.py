"""`evenbits merge`: the reports of shards joined into that of an unsharded run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenbits.commands.console import say
from evenbits.commands.options import configured, note, output_to
from evenbits.paths import expanded
from evenbits.settings import Settings

__all__ = ["merge"]


@configured("baseline", "saved")
def merge(
    settings: Settings,
    *,
    reports: Annotated[
        list[Path], typer.Argument(help="report.json of each shard", metavar="REPORT...", parser=expanded)
    ],
    output: Annotated[Path, output_to("file ending in .json, or a folder for all forms")],
) -> None:
    """Join the reports of shards into that of an unsharded run; exit code 1 if its gate is not passed.

    --baseline is the one that the shards ran with.
    """
    from datetime import UTC, datetime

    from evenbits.report.document import dump, load, write
    from evenbits.report.files import write_files
    from evenbits.report.junit import junit_xml
    from evenbits.report.merge import merge as merged
    from evenbits.report.summary import summary
    from evenbits.studies.gate.decision import lets_through

    whole = merged(
        {str(path): load(path) for path in reports},
        today=datetime.now(UTC).date(),
        baseline=None if settings.baseline is None else load(settings.baseline),
    )
    file = output if output.suffix == ".json" else output / "report.json"
    write(file, dump(whole))
    if file != output:
        write(output / "junit.xml", junit_xml(whole))
        for sentence in write_files(whole, output)[1]:
            note(sentence)
    for line in summary(whole, report=file):
        say("".join(span.text for span in line).rstrip())
    if not lets_through(whole):
        raise typer.Exit(1)
