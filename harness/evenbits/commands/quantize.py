"""`evenbits quantize`: a quantized model as files, with the weights that a spec keeps in FP16 beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenbits.commands.console import say, say_json
from evenbits.commands.options import (
    AsJson,
    CorpusName,
    Dtype,
    Languages,
    Model,
    Offline,
    Seed,
    Segments,
    StoreFolder,
    explained,
    note,
    subject_of,
    text_of,
)

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus

__all__ = ["quantize"]


@explained
def quantize(
    model: Model,
    spec: Annotated[str, typer.Option("--spec", help="quantization such as int4-g64+keep0.1%:magnitude")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write, which must not exist")],
    corpus: CorpusName = "gettext",
    languages: Languages = None,
    segments: Segments = None,
    dtype: Dtype = "bfloat16",
    seed: Seed = 0,
    store: StoreFolder = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Write a quantized model: packed integers, scales, and the weights that stay in FP16.

    Text is read only for specs that look at activations or gradients: the probe half, as evals do.
    """
    from evenbits.variants.export import check_target, write_quantized
    from evenbits.variants.quantization.spec import parse_spec
    from evenbits.variants.registry import bits_of

    chosen = parse_spec(spec)
    check_target(output)
    subject = subject_of(model, dtype, seed, store, offline=offline)
    bits_of(chosen, subject)  # refuses a spec that does not fit, before anything is loaded
    probe = _probe(subject, corpus, languages, segments, seed, store, offline=offline) if chosen.needs else None
    loaded = subject.loaded("float32" if chosen.needs_float32 else None)
    importance = None
    if probe is not None:
        from evenbits.observe.activations import ActivationImportance

        note(f"statistics come from {len(probe)} probe segments in {len(probe.languages)} languages")
        importance = ActivationImportance(loaded, probe, store=subject.store)
    done = write_quantized(loaded, chosen, output, importance=importance, seed=seed)
    if as_json:
        say_json(done.to_json())
        return
    say(
        f"wrote {done.folder}: {done.spec}, {done.bits_per_weight:.2f} bits per weight in {done.matrices} matrices, "
        f"{done.kept} weights kept in FP16, {done.size / 1e6:.1f} MB"
    )
    note("read it with evenbits.variants.export.load_quantized(FOLDER, dtype=...)")


def _probe(
    subject: Subject,
    corpus: str,
    languages: str | None,
    segments: int | None,
    seed: int,
    store: Path | None,
    *,
    offline: bool,
) -> Corpus:
    """Return the text on which evals take statistics: the probe half, and of it the segments that they would draw."""
    from evenbits.text import sample, split

    half, _ = split(text_of([subject], corpus, languages, None, seed, store, offline=offline), seed=seed)
    return half if segments is None else sample(half, segments, seed=seed)
