"""The `evenbits` command: one module per command.

Heavy modules are imported inside the commands that need them, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from evenbits.commands.compare import compare
from evenbits.commands.corpora import corpora
from evenbits.commands.damage import damage
from evenbits.commands.diagnose import diagnose
from evenbits.commands.merge import merge
from evenbits.commands.models import models
from evenbits.commands.plan import plan
from evenbits.commands.policy import policy
from evenbits.commands.protect import protect
from evenbits.commands.quantize import quantize
from evenbits.commands.rank import rank
from evenbits.commands.report import report
from evenbits.commands.run import PYTEST_OPTIONS, gate, run

__all__ = ["app", "main"]

app = typer.Typer(
    help="Which languages pay when a multilingual language model is quantized, why, and what to protect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if show:
        typer.echo(f"evenbits {version('evenbits')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options before the command."""


for command in (damage, diagnose, rank, protect, quantize, plan):
    app.command()(command)
for command in (gate, run):
    app.command(context_settings=PYTEST_OPTIONS)(command)
for command in (compare, merge, report):
    app.command()(command)
app.add_typer(policy, name="policy")
for command in (corpora, models):
    app.command()(command)


def main() -> None:
    """Run the command; the entry point of the package."""
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes out as it ends
        typer.secho(f"evenbits: the disk is full, and what was to be printed is lost: {error}", err=True, fg="red")
        sys.exit(2)
