"""`evenbits damage`: what each language loses under each spec, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evenbits.commands.console import console, say_json
from evenbits.commands.options import MEASURING, AsJson, configured, interval, model_of, note, subject_of, text_of
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells.damage import Damage
    from evenbits.records import Corpus

__all__ = ["damage"]


@configured("spec", *MEASURING, argument="model")
def damage(settings: Settings, *, as_json: AsJson = False) -> None:
    """Measure what each language loses under each spec: the damage table alone, over all segments.

    Of a folder of one's own text all languages are measured, also those that the model was not trained on.
    """
    from evenbits.cells import measure_damage
    from evenbits.text import parse_corpus, split
    from evenbits.variants.quantization.spec import QuantSpec

    subject = subject_of(settings, model_of(settings))
    if settings.languages is None and parse_corpus(settings.corpus).kind == "dir":
        settings = replace(settings, languages="all")  # a folder of one's own text is a choice of languages
    text = text_of(settings, [subject])
    if any(isinstance(one, QuantSpec) and one.needs for one in settings.specs):
        subject.probe, text = split(text, seed=settings.seed)
        note(
            f"statistics for retention come from {len(subject.probe)} probe segments, scores from the other {len(text)}"
        )
    table = measure_damage(subject, settings.specs, text)
    rows = table.rows(seed=settings.seed)
    if as_json:
        say_json({"damage": rows})
        return
    _show(table, rows, text)


def _show(table: Damage, rows: list[dict[str, Any]], corpus: Corpus) -> None:
    """Print a table per spec, the most harmed language first, and what was left out."""
    from evenbits.report.summary import left_out

    shown_on = console()
    for spec in table.specs:
        mine = [row for row in rows if row["spec"] == spec]
        mine.sort(key=lambda row: -(row["excess_bits"]["value"] or 0.0))
        shown_on.print(_table(table, spec, mine))
    for phrase in left_out(one.to_json() for one in corpus.left_out):
        note(f"left out: {phrase}")


def _table(table: Damage, spec: str, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    column = table.columns[spec]
    floor = column.floor_bits.value
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{table.model}  {spec}  {column.bits_per_weight:.2f} bits per weight",
        caption=f"excess bits per segment, 95 % interval over {len(table.segment_ids)} segments; {column.dtype}; "
        f"noise floor {floor:.2g} bits"
        + ("; * below three floors" if any(_below(row) for row in rows) else "")
        + f"; {_signs(rows)}",
    )
    shown.add_column("language", no_wrap=True)
    for name in ("excess bits", "relative increase %", "KL/token", "top-1 %"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row["language"],
            interval(row["excess_bits"]) + ("*" if _below(row) else ""),
            interval(row["relative_increase"], scale=100),
            "-" if row["kl_nats_per_token"]["mean"] is None else f"{row['kl_nats_per_token']['mean']:.3f}",
            "-" if row["top1_changed"] is None else f"{100 * row['top1_changed']:.1f}",
        )
    return shown


def _signs(rows: list[dict[str, Any]]) -> str:
    """Say in how many languages the damage differs from 0: an order of languages that do not differ is noise."""
    bounds = [(row["excess_bits"]["low"], row["excess_bits"]["high"]) for row in rows]
    above = sum(low is not None and low > 0 for low, _ in bounds)
    less = sum(high is not None and high < 0 for _, high in bounds)
    return f"interval above 0 in {above} of {len(rows)} languages" + (f", below 0 in {less}" if less else "")


def _below(row: dict[str, Any]) -> bool:
    return str(row["excess_bits"]["reason"] or "").startswith("below_floor")
