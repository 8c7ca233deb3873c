"""`evenbits plan`: what a run can decide with so much text, before it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.console import console, say, say_json, say_left_out
from evenbits.commands.options import MEASURING, AsJson, JustCost, configured, note
from evenbits.errors import UsageError
from evenbits.paths import expanded
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.records import Corpus
    from evenbits.studies.plan import Pilot, Planned

__all__ = ["checked_sizes", "plan", "powers"]

PILOT_SEGMENTS = 6
AT = "10,20,40,80"
MOST = 10_000
"""Segments that are planned for at most: more than corpora have, and as many as a simulation has room for."""


@configured("spec", *MEASURING, argument="model")
def plan(
    settings: Settings,
    *,
    pilot: Annotated[
        Path | None,
        typer.Option("--pilot", help="an earlier report.json instead of a pilot", metavar="REPORT", parser=expanded),
    ] = None,
    at: Annotated[str, typer.Option("--at", help="segments per language to plan for", metavar="N,N,...")] = AT,
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run can decide: the power of each decision as it is made, from a pilot of a few segments.

    A pilot measures the model under the first spec on --segments segments (default: 6) of each language; --pilot takes
    an earlier report in its place. Power is simulated from its variance components.
    """
    sizes = checked_sizes(at.split(","))
    if just_cost:
        _say_cost(settings, pilot, as_json=as_json)
        return
    found, decisions, cost = powers(settings, pilot, sizes)
    if as_json:
        say_json({"pilot": found.to_json(), "decisions": [one.to_json() for one in decisions], "cost": cost})
        return
    _show(found, decisions, sizes, cost)


def powers(
    settings: Settings, report: Path | None, sizes: Sequence[int], corpus: Corpus | None = None
) -> tuple[Pilot, tuple[Planned, ...], dict[str, Any]]:
    """Return a pilot (of `report` where there is one, else measured), the power of each decision, and the cost.

    That is what measuring the first spec on the largest of `sizes` segments would take, as far as it is not stored yet.
    """
    import numpy as np

    from evenbits.studies.plan import planned

    if report is not None:
        pilot, cost = _pilot_of_report(report), {}
    else:
        pilot, cost = _measured(settings, corpus), _cost(settings, max(sizes), corpus)
    return pilot, planned(pilot, sizes, rng=np.random.default_rng(settings.seed)), cost


def checked_sizes(sizes: Iterable[int | str]) -> list[int]:
    """Return numbers of segments, each once and in order; `UsageError` where one is none that can be planned for."""
    given = list(sizes)
    try:
        found = sorted({int(size) for size in given})
    except ValueError:
        found = []
    if not found or found[0] < 2 or found[-1] > MOST:
        said = ",".join(map(str, given))
        raise UsageError(f"--at {said!r} is not understood; write numbers of segments, 2 to {MOST:,}, such as {AT}.")
    return found


def _say_cost(settings: Settings, report: Path | None, *, as_json: bool) -> None:
    """Print what the pilot would take."""
    if report is None:
        from evenbits.commands.damage import say_damage_cost

        say_damage_cost(_small(settings), as_json=as_json)
        return
    _pilot_of_report(report)  # said now where there is none
    if as_json:
        say_json({"cost": {}})
    else:
        say(f"nothing would be measured: the pilot is that of {report}")


def _pilot_of_report(file: Path) -> Pilot:
    from evenbits.report.document import load
    from evenbits.report.pilot import pilot_in

    found = pilot_in(load(file))
    if found is None:
        raise UsageError(f"{file} has no damage with values by segment; measure a pilot: evenbits plan MODEL --spec S.")
    return found


def _measured(settings: Settings, corpus: Corpus | None) -> Pilot:
    from evenbits.commands.damage import measured
    from evenbits.commands.options import model_of, subject_of
    from evenbits.models.blueprint import blueprint
    from evenbits.studies.plan import pilot_of

    small = _small(settings)
    subject = subject_of(small, model_of(small))
    table, _ = measured(small, corpus)
    layers = len(blueprint(subject.local, store=subject.store).anatomy.layers)
    return pilot_of(table.rows(seed=settings.seed, by_segment=True), exposure=subject.local.exposure, layers=layers)


def _cost(settings: Settings, most: int, corpus: Corpus | None) -> dict[str, Any]:
    """Return what damage under the first spec takes on `most` segments, or on as many as the text has."""
    from evenbits.commands.damage import asked
    from evenbits.studies.cost import cost_of, lacking
    from evenbits.studies.study import damage_of
    from evenbits.text import sample

    subject, text = asked(replace(settings, segments=None, specs=settings.specs[:1]), corpus)
    say_left_out(text)
    text = sample(text, most, seed=settings.seed)
    work = lacking(damage_of(subject, settings.specs[:1], text), subject.store)
    return {"segments": len(text), **cost_of(subject, work.values(), text).to_json()}


def _small(settings: Settings) -> Settings:
    """Return the settings of a pilot: the first spec, on a few segments."""
    return replace(settings, segments=settings.segments or PILOT_SEGMENTS, specs=settings.specs[:1])


def _show(pilot: Pilot, decisions: tuple[Planned, ...], sizes: list[int], cost: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    parts = pilot.components
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{pilot.model}  {pilot.spec}  power by segments per language",
        caption=f"simulated for {len(pilot.languages)} languages of {len(set(pilot.families.values()))} families from "
        f"{pilot.segments} segments: mean {parts.mean:.3g} bits; SD between families {parts.family**0.5:.3g}, "
        f"languages {parts.language**0.5:.3g}, segments {parts.segment**0.5:.3g}, rest {parts.residual**0.5:.3g}",
    )
    shown.add_column("decision", no_wrap=True)
    shown.add_column("if")
    for size in sizes:
        shown.add_column(str(size), justify="right")
    for one in decisions:
        cells = [f"{one.power[size].value:.2f}" if size in one.power else "-" for size in sizes]
        shown.add_row(one.decision, one.lacking or one.truth, *cells)
    console().print(shown)
    for one in decisions:
        if one.lacking or one.enough is None:
            note(one.sentence())
    if cost:
        from evenbits.numbers import counted
        from evenbits.studies.cost import Cost

        work = Cost(**{name: value for name, value in cost.items() if name != "segments"})
        rest = ", for what is not stored yet" if work.seconds else ""
        whole = "" if cost["segments"] == max(sizes) else ", all that the text has,"
        say(f"damage on {counted(cost['segments'], 'segment')}{whole} would take: {work.sentence()}{rest}")
