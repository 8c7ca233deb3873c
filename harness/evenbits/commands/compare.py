"""`evenbits compare`: two reports beside each other, in the terminal, as Markdown, JSON or a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenbits.commands.console import console, say_json
from evenbits.commands.options import AsJson, configured, note
from evenbits.paths import expanded
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.report.compare import Comparison

__all__ = ["compare"]

NAMED = "a report.json, the number of a saved report (--autosave), or latest"


@configured("saved")
def compare(
    settings: Settings,
    *,
    report: Annotated[str, typer.Argument(help=NAMED, metavar="REPORT")],
    baseline: Annotated[str, typer.Argument(help=f"the earlier one: {NAMED}", metavar="BASELINE")],
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="write the comparison as a page", metavar="FILE", parser=expanded),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two reports of the same text segment by segment: what each language loses now against a baseline."""
    from evenbits.report.compare import compare as compared
    from evenbits.report.compare import comparison_markdown
    from evenbits.report.document import load, write
    from evenbits.report.saved import find_report

    files = [find_report(text, settings.saved) for text in (report, baseline)]
    found = compared(load(files[0]), load(files[1]))
    if page is not None:
        from evenbits.report.comparison_page import comparison_html

        write(page, comparison_html(found, after=str(files[0]), before=str(files[1])))
        note(f"wrote {page}")
    if as_json:
        say_json(found.to_json())
    elif as_markdown:
        typer.echo(comparison_markdown(found), nl=False)
    else:
        _show(found)


def _show(found: Comparison) -> None:
    """Print a table per model and spec, the language that became worst first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from evenbits.numbers import estimate, number, p_value
    from evenbits.report.compare import word

    shown_on = console()
    for (model, spec), then in found.pairs.items():
        title = f"{model}  {spec}" + ("" if then == (model, spec) else f"  against {' '.join(then)}")
        caption = "excess bits per segment, now minus baseline, over the same segments; p over all languages at once"
        shown = Table(box=SIMPLE_HEAD, title=title, caption=caption)
        for name in ("language", "baseline", "now", "change", "p", ""):
            shown.add_column(name, justify="left" if name in {"language", ""} else "right", no_wrap=True)
        for one in found.changes:
            if (one.model, one.spec) == (model, spec):
                values = [number(side.value, sign=True) for side in (one.before, one.after)]
                values.append(estimate(one.difference.to_json(), sign=True))
                shown.add_row(one.language, *values, p_value(one.adjusted_p).removeprefix("p "), word(one))
        shown_on.print(shown)
    for phrase in found.unmatched:
        note(f"not compared: {phrase}")
    if found.warnings:
        note(f"the environments differ: {', '.join(found.warnings)}")
