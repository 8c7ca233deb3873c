"""`evenbits quantize`: a quantized model as files, with the weights that a spec keeps in FP16 beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from evenbits.commands.console import say, say_json, say_left_out
from evenbits.commands.options import (
    HERE,
    AsJson,
    JustCost,
    configured,
    model_of,
    note,
    one_spec,
    output_to,
    subject_of,
    text_of,
)
from evenbits.numbers import counted
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["quantize"]


@configured("spec", *HERE, argument="model")
def quantize(
    settings: Settings,
    *,
    output: Annotated[Path, output_to("folder to write, which must not exist")],
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Write a quantized model: packed integers, scales, and the weights that stay in FP16.

    Text is read only for specs that look at activations or gradients: the probe half, as evals do.
    """
    from evenbits.variants.export import check_target, write_quantized
    from evenbits.variants.registry import bits_of

    chosen = one_spec(settings, "a quantized model as files")
    check_target(output)
    subject = subject_of(settings, model_of(settings))
    bits = bits_of(chosen, subject)  # refuses a spec that does not fit, before anything is loaded
    probe = _probe(settings, subject) if chosen.needs else None
    if just_cost:
        _say_cost(subject, chosen, probe, bits or 16.0, as_json=as_json)
        return
    loaded = subject.loaded("float32" if chosen.needs_float32 else None)
    importance = None
    if probe is not None:
        from evenbits.observe.activations.importance import ActivationImportance

        languages = counted(len(probe.languages), "language")
        note(f"statistics come from {counted(len(probe), 'probe segment')} in {languages}")
        importance = ActivationImportance(loaded, probe, store=subject.store, progress=subject.progress)
    done = write_quantized(loaded, chosen, output, importance=importance, seed=settings.seed)
    if as_json:
        say_json(done.to_json())
        return
    say(
        f"wrote {done.folder}: {done.spec}, {done.bits_per_weight:.2f} bits per weight in {done.matrices} matrices, "
        f"{done.kept} weights kept in FP16, {done.size / 1e6:.1f} MB"
    )
    note(f"measure it with `evenbits damage {model_of(settings)} --spec checkpoint:{done.folder}`")


def _say_cost(subject: Subject, spec: QuantSpec, probe: Corpus | None, bits: float, *, as_json: bool) -> None:
    from evenbits.commands.cost import say_cost_of
    from evenbits.studies.cost import export_load, lacking
    from evenbits.studies.observation import statistics_for
    from evenbits.studies.study import Wants

    subject.probe = probe
    work = lacking(Wants(observations=statistics_for(subject, [spec])), subject.store)
    work["written"] = export_load(subject, spec, bits_per_weight=bits)
    say_cost_of([(subject, work, probe)], as_json=as_json)


def _probe(settings: Settings, subject: Subject) -> Corpus:
    """Return the text on which evals take statistics: the probe half, and of it the segments that they would draw."""
    from evenbits.text import sample, split

    text = text_of(replace(settings, segments=None), [subject])
    say_left_out(text)
    half, _ = split(text, seed=settings.seed)
    return half if settings.segments is None else sample(half, settings.segments, seed=settings.seed)
