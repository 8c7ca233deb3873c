"""What commands print: tables and lines in which texts of users are text, and JSON that any terminal can carry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from evenbits.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from evenbits.records import Corpus

__all__ = ["console", "say", "say_json", "say_left_out"]


def console() -> Console:
    """Return a console on standard output that takes no text for markup, an emoji code or a control code."""
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            options |= {"emoji": False, "markup": False, "highlight": False, "highlighter": None}
            return super().render_str(printable(text), **options)

    return PlainConsole(markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """Print lines to standard output."""
    typer.echo(printable(text, lines=True))


def say_json(document: object) -> None:
    """Print plain JSON; undefined numbers are null, and half a surrogate pair, which has no UTF-8, is escaped."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    typer.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def say_left_out(corpus: Corpus) -> None:
    """Print to standard error what of a corpus was not used, and why."""
    from evenbits.report.omissions import left_out

    for phrase in left_out(one.to_json() for one in corpus.left_out):
        typer.secho(printable(f"left out: {phrase}"), err=True, dim=True)
