"""`evenbits diagnose`: which languages a quantization will harm, said without quantizing; and how to calibrate that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenbits.commands.console import console, say, say_json, say_left_out
from evenbits.commands.options import (
    MEASURING,
    AsJson,
    JustCost,
    configured,
    model_of,
    models_of,
    note,
    one_spec,
    output_to,
    subject_of,
    text_of,
)
from evenbits.errors import UsageError
from evenbits.numbers import counted
from evenbits.paths import expanded
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.studies.h035 import Calibration, Diagnosis
    from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["diagnose", "forecast"]


@configured("spec", *MEASURING, argument="models")
def diagnose(
    settings: Settings,
    *,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="file made by --calibrate; default: the reference family's",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="measure metrics and damage of MODEL... and write a calibration")
    ] = False,
    output: Annotated[Path | None, output_to("with --calibrate: the file to write")] = None,
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Forecast what each language would lose, without quantizing the model.

    With a 90 % interval where nine or more other training runs are calibrated.

    One model at a time, and one quantization: without --spec one that is calibrated. --calibrate takes several.
    """
    if calibrate:
        if output is None or calibration is not None:
            raise UsageError("--calibrate writes a calibration: name the file with -o, and leave out --calibration")
        if "spec" not in settings.stated:
            raise UsageError("--calibrate measures damage: name the quantizations with --spec, such as int4-g64")
        chosen = _trained(models_of(settings))
        if just_cost:
            _say_calibration_cost(settings, chosen, as_json=as_json)
        else:
            _calibrate(settings, chosen, output)
        return
    if len(models_of(settings)) != 1 or output is not None:
        raise UsageError("diagnose takes one model; several models and -o belong to --calibrate")
    if just_cost:
        _say_cost(settings, calibration, as_json=as_json)
        return
    found = forecast(settings, calibration)
    if as_json:
        say_json(found.to_json())
        return
    _show(found)


def _say_cost(settings: Settings, calibration: Path | None, *, as_json: bool) -> None:
    from evenbits.commands.cost import say_cost
    from evenbits.studies.h035.wants import predictors
    from evenbits.studies.study import Inputs

    subject, spec, text = _asked(settings, calibration)[1:]
    wants = predictors(Inputs(subject=subject, spec=spec, corpus=text, probe=text))
    say_cost([(subject, [wants], text)], as_json=as_json)


def _say_calibration_cost(settings: Settings, models: Sequence[str], *, as_json: bool) -> None:
    from evenbits.commands.cost import say_cost
    from evenbits.studies.h035.wants import calibrated
    from evenbits.studies.study import Inputs

    specs, subjects, text, probe, evaluation = _to_calibrate(settings, models)
    wanted = [
        (
            subject,
            [calibrated(Inputs(subject=subject, spec=one, corpus=evaluation, probe=probe)) for one in specs],
            text,
        )
        for subject in subjects
    ]
    say_cost(wanted, as_json=as_json)


def forecast(settings: Settings, calibration: Path | None = None, given: Corpus | None = None) -> Diagnosis:
    """Return what each language of the model would lose. `calibration`: the reference family's by default."""
    from evenbits.observe.runs import training_run
    from evenbits.studies.h035 import diagnose as diagnosed
    from evenbits.studies.h035 import measure_predictors

    known, subject, wanted, text = _asked(settings, calibration, given)
    say_left_out(text)
    predictors = measure_predictors(subject, wanted, text)
    run = training_run(subject.local.text)
    return diagnosed(predictors, known, local=subject.local, run=run, corpus=text.name)


def _asked(
    settings: Settings, calibration: Path | None, given: Corpus | None = None
) -> tuple[Calibration, Subject, QuantSpec, Corpus]:
    """Return the calibration, the model, the spec that is forecast and the text, all checked before measuring."""
    from evenbits.studies.h035 import load_calibration

    known = load_calibration(calibration)
    wanted = one_spec(settings, "a forecast from weights") if "spec" in settings.typed else _calibrated(settings, known)
    known.require(str(wanted))  # before anything is measured
    subject = subject_of(settings, model_of(settings))
    return known, subject, wanted, text_of(settings, [subject], given)


def _calibrated(settings: Settings, known: Calibration) -> QuantSpec:
    """Return the default quantization where it is calibrated, else the first that is."""
    from evenbits.variants.quantization.spec import parse_spec

    if not known.specs:
        raise UsageError(f"{known.name} has no quantization that all of its models were measured under")
    return parse_spec(next((str(one) for one in settings.specs if str(one) in known.specs), known.specs[0]))


def _trained(models: Sequence[str]) -> list[str]:
    """Return the models without checkpoints from the way to another of them: nobody ships a half-trained model."""
    from evenbits.observe.runs import latest

    kept = latest(models)
    left = [one for one in models if one not in kept]
    if left:
        note(f"left out: {', '.join(left)}, from the middle of a training run whose end is there too")
    return list(kept)


def _to_calibrate(
    settings: Settings, models: Sequence[str]
) -> tuple[tuple[QuantSpec, ...], list[Subject], Corpus, Corpus, Corpus]:
    """Return specs, models and text, whole and in the halves that metrics and damage are measured on."""
    from evenbits.text import split
    from evenbits.variants.registry import simulated

    specs = tuple(simulated(one, "a forecast from weights") for one in settings.specs)
    subjects = [subject_of(settings, name) for name in models]
    text = text_of(settings, subjects)
    probe, evaluation = split(text, seed=settings.seed)
    for subject in subjects:
        subject.probe = probe
    return specs, subjects, text, probe, evaluation


def _calibrate(settings: Settings, models: Sequence[str], output: Path) -> None:
    from evenbits.observe.runs import training_run
    from evenbits.report.document import write
    from evenbits.studies.h035 import Calibration, calibrated_model, one_run_by_function

    specs, subjects, text, probe, evaluation = _to_calibrate(settings, models)
    say_left_out(text)
    found = []
    for subject in subjects:
        run = training_run(subject.local.text)
        found.append(calibrated_model(subject, specs, probe=probe, evaluation=evaluation, run=run))
        subject.release()
    described = {
        "name": text.name,
        "digest": text.digest,
        "languages": len(text.languages),
        "seed": settings.seed,
        "segments": {"metrics": len(probe), "damage": len(evaluation)},
    }
    made = Calibration(name=str(output), corpus=described, models=one_run_by_function(found))
    write(output, made.dump())
    size = _size(len(made.models), len(made.runs))
    note(f"wrote {output}: {size}, {', '.join(made.specs)}")
    for one in made.specs:
        _show_performance(made, one)


def _show_performance(made: Calibration, spec: str) -> None:
    """Print how the chosen metric and the other predictors do on every left-out model."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from evenbits.studies.h035 import METRICS, performances

    found = performances(made, spec)
    level = found["best"].level
    of = "" if level is None else f"{level:.0%} "
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{spec}: each training run left out",
        caption=f"share of languages inside the {of}interval / share of the worst quarter found",
    )
    shown.add_column("left out", overflow="fold")
    shown.add_column("chosen metric")
    for name in found:
        shown.add_column("chosen" if name == "best" else METRICS[name].label, justify="right")
    for model in made.models:
        rows = [next((one for one in p.models if one.model == model.text), None) for p in found.values()]
        metric = METRICS[rows[0].metric].label if rows[0] is not None else "none"
        held = [f"{_share(one.coverage)} / {_share(one.recall)}" if one is not None else "n/a" for one in rows]
        shown.add_row(model.text, metric, *held)
    shown.add_row("mean over runs", "", *(f"{_share(p.coverage)} / {_share(p.recall)}" for p in found.values()))
    console().print(shown)


def _size(models: int, runs: int) -> str:
    return f"{counted(models, 'model')} of {counted(runs, 'training run')}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"


def _show(found: Diagnosis) -> None:
    """Print the languages, the most endangered first, and what the forecast is worth."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from evenbits.studies.h035 import METRICS, standings

    intervals = any(one.low is not None for one in found.languages)
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{found.model}  {found.spec}  forecast from {METRICS[found.metric].label}; nothing was quantized",
        caption=f"excess bits per segment{' with 90 % interval' if intervals else ''}; "
        "severe: more than three quarters of calibrated pairs lost"
        + ("; * outside the calibrated range, not flagged" if any(one.outside for one in found.languages) else ""),
    )
    shown.add_column("language", no_wrap=True)
    shown.add_column("excess bits", justify="right", no_wrap=True)
    shown.add_column("flag", no_wrap=True)
    shown.add_column("because")
    for one in found.languages:
        limits = "" if one.low is None or one.high is None else f" [{one.low:.1f}, {one.high:.1f}]"
        shown.add_row(one.language, f"{one.value:+.1f}{limits}{'*' * one.outside}", one.flag or "", one.reason)
    console().print(shown)
    out = f", without {', '.join(found.left_out)}" if found.left_out else ""
    say(f"calibration  {found.calibration}: {_size(len(found.calibrated), found.runs)}{out}")
    say("on models left out of it, the metric chosen anew without each")
    for line in standings(found.performance, found.metric, intervals=intervals):
        say(f"  {line}")
    for sentence in found.warnings:
        note(f"beware: {sentence}")
