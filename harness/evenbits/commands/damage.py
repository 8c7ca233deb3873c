"""`evenbits damage`: what each language loses under each spec, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.console import console, say, say_json, say_left_out
from evenbits.commands.options import (
    MEASURING,
    AsJson,
    JustCost,
    configured,
    interval,
    model_of,
    note,
    subject_of,
    tenths,
    text_of,
)
from evenbits.errors import EngineError, UsageError
from evenbits.models.device import describe
from evenbits.numbers import counted
from evenbits.report.environment import describe_environment
from evenbits.report.familiar import NAMES, familiar
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.cells.damage import Damage
    from evenbits.cells.tasks import Answers
    from evenbits.records import Corpus

__all__ = ["asked", "damage", "measured", "say_damage_cost"]


Usual = Annotated[bool, typer.Option("--familiar", help="the columns that llama.cpp and model cards print, too")]


@configured("spec", "tasks", "task-folder", "task-limit", *MEASURING, argument="model")
def damage(
    settings: Settings,
    *,
    usual: Usual = False,
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Measure what each language loses under each spec: the damage table alone, over all segments.

    Of a folder of one's own text all languages are measured, also those that the model was not trained on.
    """
    if just_cost:
        say_damage_cost(settings, as_json=as_json)
        return
    from evenbits.report.answers import answers_and_bits
    from evenbits.studies.gate.harm import with_pooled

    table, text = measured(settings)
    rows = with_pooled(table.rows(seed=settings.seed, by_segment=True))
    if as_json:
        source = {"text": settings.corpus, "digest": text.digest}
        here = describe_environment(seed=settings.seed, dtype=settings.dtype, measured=describe(table.device))
        document: dict[str, Any] = {
            "damage": rows,
            "corpus": source,
            "seed": settings.seed,
            "environment": here,
        }
        if usual:
            document["familiar"] = [{"spec": r["spec"], "language": r["language"], **familiar(r)} for r in rows]
        if table.answers is not None:
            document["tasks"] = [row.to_json() for row in table.answers.rows]
            document["answers_and_bits"] = [found.to_json() for found in answers_and_bits(rows, seed=settings.seed)]
        if table.failed:
            document["errors"] = [{"spec": spec, "reason": reason} for spec, reason in table.failed.items()]
        say_json(document)
    else:
        _show(table, rows, text, usual=usual)
        if table.answers is not None:
            console().print(_task_table(table.answers))
            for found in answers_and_bits(rows, seed=settings.seed):
                say(f"{found.spec}: {found.sentence}")
    for spec, reason in table.failed.items():
        note(f"evenbits: {spec}: {reason}")
    if table.failed:
        raise typer.Exit(EngineError.exit_code)


def say_damage_cost(settings: Settings, *, as_json: bool) -> None:
    """Print what measuring damage would take; `UsageError` for tasks, whose documents only lm-eval knows."""
    from evenbits.commands.cost import say_cost
    from evenbits.studies.study import damage_of

    if settings.tasks:
        raise UsageError(
            f"what {', '.join(settings.tasks)} would take is not known before lm-eval has read it: leave --tasks out "
            "to be told what the rest takes, and try tasks with a small --task-limit"
        )
    subject, text = asked(settings)
    say_cost([(subject, [damage_of(subject, settings.specs, text)], text)], as_json=as_json)


def measured(settings: Settings, given: Corpus | None = None) -> tuple[Damage, Corpus]:
    """Return the damage of the model and the text that it was measured on; `given`: text to take."""
    from evenbits.cells import measure_damage
    from evenbits.cells.tasks import Tasks

    subject, text = asked(settings, given)
    return measure_damage(subject, settings.specs, text, tasks=Tasks.of(settings)), text


def asked(settings: Settings, given: Corpus | None = None) -> tuple[Subject, Corpus]:
    """Return the model, with probe text where a spec needs it, and the text to score."""
    from evenbits.text import parse_corpus, split
    from evenbits.variants.registry import needs

    subject = subject_of(settings, model_of(settings))
    if settings.languages is None and parse_corpus(settings.corpus).kind == "dir":
        settings = replace(settings, languages="all")  # a folder of one's own text is a choice of languages
    text = text_of(settings, [subject], given)
    if any(needs(one) for one in settings.specs):
        subject.probe, text = split(text, seed=settings.seed)
        note(
            f"statistics for retention come from {len(subject.probe)} probe segments, scores from the other {len(text)}"
        )
    return subject, text


def _task_table(answers: Answers) -> Any:
    """Return what each task loses: score of both, paired loss, and what flipped."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    refused = "".join(f"; {spec}: {reason}" for spec, reason in answers.refused.items())
    caption = "points lost: 95 % interval over documents; p: McNemar's exact test"
    shown = Table(box=SIMPLE_HEAD, caption=caption + refused)
    for name in ("task", "spec"):
        shown.add_column(name, no_wrap=True)
    for name in ("full %", "spec %", "points lost", "recovery %", "lost", "gained", "p"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in answers.rows:
        shown.add_row(
            row.task,
            row.spec,
            f"{100 * row.full:.1f}",
            f"{100 * row.quantized:.1f}",
            interval(row.loss.to_json(), scale=100),
            "-" if row.recovery is None else f"{row.recovery:.1f}",
            str(row.lost),
            str(row.gained),
            f"{row.p:.2g}",
        )
    return shown


def _show(table: Damage, rows: list[dict[str, Any]], corpus: Corpus, *, usual: bool) -> None:
    """Print a table per spec, the most harmed language first, and what was left out."""
    from evenbits.studies.gate.harm import pooled_bits

    shown_on = console()
    for spec in table.specs:
        mine = [row for row in rows if row["spec"] == spec]
        mine.sort(key=lambda row: -pooled_bits(row))
        # not the table's title, which would be folded to the width of the table, a long path with it
        weight = table.columns[spec].bits_per_weight
        bits = "" if weight is None else f"  {weight:.2f} bits per weight"
        shown_on.print(f"{table.model}  {spec}{bits}", soft_wrap=True)
        shown_on.print(_table(table, spec, mine))
        if usual:
            shown_on.print(_usual(spec, mine))
        for row in mine:
            if row["excess_bits"]["value"] is None:
                say(f"{row['language']} is undefined: {row['excess_bits']['reason']}")
    say_left_out(corpus)


def _table(table: Damage, spec: str, rows: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from evenbits.studies.gate.harm import pooled_bits

    column = table.columns[spec]
    floor = column.floor_bits.value
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),  # all of it in 80 columns
        show_edge=False,
        caption=f"excess bits per segment, {_sure(table, rows)}, by pooled estimate "
        f"(drawn towards the others as far as segments are few); {column.dtype}; "
        + ("no noise floor" if floor is None else f"noise floor {floor:.2g} bits")
        + _artefact(column.facts)
        + ("; * below three floors" if any(_below(row) for row in rows) else "")
        + f"; {_signs(rows)}",
    )
    shown.add_column("language", no_wrap=True)
    answered = any("tasks" in row for row in rows)
    names = ("excess bits", "pooled", "relative\nincrease %", "KL per\ntoken", "top-1\nchanged %")
    for name in (*names, *(("points\nlost", "recovery\n%") if answered else ())):
        shown.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row["language"],
            interval(row["excess_bits"]) + ("*" if _below(row) else ""),
            tenths(pooled_bits(row), sign=True),
            interval(row["relative_increase"], scale=100),
            "-" if row["kl_nats_per_token"]["mean"] is None else f"{row['kl_nats_per_token']['mean']:.3f}",
            "-" if row["top1_changed"] is None else f"{100 * row['top1_changed']:.1f}",
            *(_answers(row) if answered else ()),
        )
    return shown


def _answers(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a language's answers to tasks lose, in points, and its recovery; dashes where it has no task."""
    found = row.get("tasks")
    if found is None or found["loss"]["value"] is None:
        return "-", "-"
    recovered = found["recovery_percent"]
    return interval(found["loss"], scale=100), "-" if recovered is None else f"{recovered:.1f}"


def _usual(spec: str, rows: list[dict[str, Any]]) -> Any:
    """Return the familiar figures of each language; they compare neither languages nor models."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, title=f"{spec}  per token, as llama.cpp names it")
    shown.add_column("language", no_wrap=True)
    for name in NAMES:
        shown.add_column(Text(name.replace(" ", "\n", 1).replace("/", "/\n")), justify="right", no_wrap=True)
    for row in rows:
        values = familiar(row).values()
        shown.add_row(row["language"], *("-" if value is None else f"{value:.4g}" for value in values))
    return shown


def _artefact(facts: Mapping[str, Any]) -> str:
    """Say what ran: engine, version, build, device and the types of its tensors."""
    if not facts:
        return ""
    named = " ".join(str(facts[name]) for name in ("engine", "version", "build", "device", "format") if facts.get(name))
    types = ", ".join(f"{count} x {name}" for name, count in facts.get("tensor_types", {}).items())
    rest = "; weights only" if facts.get("weights_only") else ""
    return f"; {named}{f' ({types})' if types else ''}{rest}"


def _sure(table: Damage, rows: list[dict[str, Any]]) -> str:
    """Say over how many segments the intervals are, or why there is none."""
    segments = counted(len(table.segment_ids), "segment")
    why = {str(row["excess_bits"]["reason"]) for row in rows if row["excess_bits"]["value"] is not None}
    bounded = not why or any(row["excess_bits"]["low"] is not None for row in rows)
    return f"95 % interval over {segments}" if bounded else f"over {segments} ({'; '.join(sorted(why))})"


def _signs(rows: list[dict[str, Any]]) -> str:
    """Say in how many languages the damage differs from 0: an order of languages that do not differ is noise."""
    bounds = [(row["excess_bits"]["low"], row["excess_bits"]["high"]) for row in rows]
    above = sum(low is not None and low > 0 for low, _ in bounds)
    less = sum(high is not None and high < 0 for _, high in bounds)
    return f"interval above 0 in {above} of {counted(len(rows), 'language')}" + (f", below 0 in {less}" if less else "")


def _below(row: dict[str, Any]) -> bool:
    return str(row["excess_bits"]["reason"] or "").startswith("below_floor")
