"""`evenbits policy`: the limits of the deployment gate, drafted from a measured report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenbits.commands.options import ReportFile, explained, note, output_to
from evenbits.errors import UsageError

__all__ = ["policy"]

policy = typer.Typer(help="The limits of the deployment gate.", no_args_is_help=True)


@policy.callback()
def limits() -> None:
    """The limits of the deployment gate."""


@policy.command("init")
@explained
def init(
    report: ReportFile,
    output: Annotated[Path | None, output_to("file to write; default: print it")] = None,
    margin: Annotated[float, typer.Option(min=0, help="share added to the upper end of each interval")] = 0.1,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
) -> None:
    """Write a commented policy from what was measured: upper ends of the intervals plus a margin.

    REPORT is a run's report.json, or what `evenbits damage --json` printed.
    """
    from evenbits.report.document import write
    from evenbits.report.policy_draft import measured, policy_draft

    text = policy_draft(measured(report), margin=margin)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise UsageError(f"{output} exists; give --force to replace it")
    write(output, text)
    note(f"wrote {output}")
