"""`evenbits corpora`: what a corpus offers, and what would not enter a measurement, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.console import console, say_json
from evenbits.commands.options import AsJson, configured, note, text_of
from evenbits.numbers import counted
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.records import Corpus

__all__ = ["corpora", "left_out"]

NAMED = 8
"""Languages that a line names before it only counts them; --json has every one."""


Tasks = Annotated[
    Path | None,
    typer.Option("--lm-eval", metavar="FOLDER", help="write the corpus there as tasks for lm_eval --include_path"),
]


@configured("languages", "segments", "seed", "store", "offline", argument="corpus")
def corpora(settings: Settings, *, tasks: Tasks = None, as_json: AsJson = False) -> None:
    """Show the languages of a corpus, how much aligned text each has, and what is left out and why."""
    from evenbits.text.languages import describe

    found = text_of(settings, ())
    if tasks is not None:
        from evenbits.text.lm_eval_tasks import write_tasks

        names = write_tasks(found, tasks)
        note(f"{len(names)} tasks in {tasks}: lm_eval --include_path {tasks} --tasks evenbits, or {names[0]}, ...")
    rows = [
        describe(tag).to_json() | {"segments": len(found), "utf8_bytes": found.utf8_bytes(tag)}
        for tag in found.languages
    ]
    if as_json:
        document = {
            "corpus": settings.corpus,
            "source": found.source,
            "segments": len(found),
            "digest": found.digest,
            "languages": rows,
            "left_out": [one.to_json() for one in found.left_out],
        }
        say_json(document)
        return
    _show(found, rows)


def _show(corpus: Corpus, rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD)
    for name in ("language", "script", "family", "level"):
        shown.add_column(name, no_wrap=name != "family")
    shown.add_column("bytes", justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            f"{row['tag']}  {row['name']}",
            row["script"] or "-",
            row["family"] or "-",
            row["tier"] or "unknown",
            f"{row['utf8_bytes']:,}",
        )
    shown_on = console()
    # not the table's title, which would be folded to the width of the table, a long path with it
    heading = f"{corpus.name}: {counted(len(rows), 'language')}, {counted(len(corpus), 'aligned segment')} each"
    shown_on.print(heading, soft_wrap=True)
    shown_on.print(shown)
    shown_on.print(f"{corpus.source}; resource level by Joshi class, unless a model says what it was trained on")
    for line in left_out(corpus):
        shown_on.print(line)


def left_out(corpus: Corpus) -> list[str]:
    """Return what was left out, a line per kind and reason: how many, and in which languages."""
    from evenbits.report.omissions import by_reason

    lines = []
    for (what, reason), group in sorted(by_reason(one.to_json() for one in corpus.left_out).items()):
        total = sum(entry["count"] for entry in group)
        tags = sorted({entry["language"] for entry in group if entry["language"]})
        named = ", ".join(tags[:NAMED]) + (f" and {len(tags) - NAMED} more" if len(tags) > NAMED else "")
        lines.append(f"left out: {total:,} x {what}: {reason}" + (f" ({named})" if named else ""))
    return lines
