"""H-039's positive control on a trained model: `python -m controls.ruined_rows` prints verdict and power by dose.

*The plant.* In every layer the MLP channels most specific to the low-resource languages get, in their rows of
`gate_proj` and `up_proj`, one weight 60 times as large as their largest other. It stands at an input that is always
zero, because the norm before the MLP gives it no gain: full precision does not see it, a grid fitted to the row has to
span it and rounds the row away. The dose is the number of channels. At dose 0 the input is dead all the same, so that
doses differ in nothing but the rows.

*The bench.* Parity can only be shown where rounding alone takes about the same from every language. So the model, the
grid and the languages are such that it does, before anything is planted: the model in `trained/` at
`int3-row+include:head`, the languages of high and of low exposure in Latin script (ratio 1.03, 95 % interval .89 to
1.19). What else was looked at, and why it will not do, is in docs/method-reference.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from evenbits.commands.options import store_of
from evenbits.estimates import Estimate, Measurement, Threshold, judge
from evenbits.fixtures.reference.training.tables import bench
from evenbits.records import Losses, digest_of
from evenbits.studies.h039 import RetentionStudy, parity, study_retention
from evenbits.studies.h039.study import brief
from evenbits.text.languages import describe, tiers
from evenbits.variants.quantization.spec import parse_spec
from numpy.typing import NDArray

from controls.planted import RUIN

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.store import Store
    from evenbits.variants.interventions.shape import LlamaShape
    from torch import Tensor

__all__ = [
    "DOSES",
    "MODEL",
    "SPEC",
    "USUAL",
    "app",
    "judged",
    "main",
    "plain_bench",
    "planted_bench",
    "planted_study",
    "redrawn",
    "texts",
]

Float64 = NDArray[np.float64]
IntArray = NDArray[np.int64]

MODEL = Path(__file__).with_name("trained")
SPEC = "int3-row+include:head"
SCRIPT = "Latn"
DOSES = (0, 12, 24, 48, 96)
USUAL = 48
"""Of 384 channels in each layer. k keeps so many weights of such a matrix: 5, 15, 49, 147 and 492."""
PARITY = Threshold(metric="disparity_ratio", op="<", bound=1.25, why="as in the eval")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def plain_bench(store: Store, *, seed: int = 0) -> Subject:
    """Return the model that effects are planted into."""
    return bench(str(MODEL), store, seed=seed)


def texts(subject: Subject, *, seed: int = 0) -> tuple[Corpus, Corpus]:
    """Return probe and evaluation half in the Latin-script languages whose exposure is low or high."""
    from evenbits.text import load_corpus, split

    exposure = subject.local.exposure or {}
    chosen = [tag for tag in tiers(sorted(exposure), exposure=exposure) if describe(tag).script == SCRIPT]
    return split(load_corpus("gettext", languages=chosen, seed=seed, store=subject.store), seed=seed)


def planted_bench(subject: Subject, probe: Corpus, *, channels: int, directed: bool = True) -> Subject:
    """Return a copy of the model with `channels` ruined rows in each layer, written once into the store's folder.

    `directed`: the channels most specific to low-exposure languages; else random ones, which are everybody's.
    """
    from evenbits.observe.activations.lookup import activations
    from evenbits.variants.interventions import (
        Channels,
        altered_copy,
        distinctive_channels,
        random_channels,
        weights_of,
    )
    from evenbits.variants.interventions.shape import SCALABLE, llama_shape

    key = {
        "plant": "ruined rows",
        "model": subject.local.fingerprint,
        "probe": probe.digest,
        "channels": channels,
        "directed": directed,
        "seed": subject.seed,
    }
    target = subject.store.root / "planted" / digest_of(key)
    if not target.exists():
        loaded = subject.loaded()
        shape = llama_shape(loaded.anatomy, loaded.model.config, needs=SCALABLE, what="ruining rows")
        used = activations(loaded, probe, store=subject.store)
        tier = tiers(probe.languages, exposure=subject.local.exposure)
        weights = weights_of(loaded)
        if not channels:
            chosen = Channels()
        elif directed:
            low = [tag for tag in probe.languages if tier[tag] == "low"]
            chosen = distinctive_channels(shape, used, low, channels)
        else:
            size = loaded.model.config.intermediate_size
            chosen = random_channels(shape, channels, size, rng=np.random.default_rng(subject.seed))
        for layer, block in enumerate(shape.anatomy.blocks):
            energy = np.mean([one.input_square[f"{block.mlp}.gate_proj"] for one in used.values()], axis=0)
            weights |= _ruined(weights, shape, layer, chosen.mlp.get(layer), energy)
        altered_copy(subject.local, weights, target)
        subject.release()
    return bench(str(target), subject.store, seed=subject.seed)


def _ruined(
    weights: dict[str, Tensor], shape: LlamaShape, layer: int, rows: IntArray | None, energy: Float64
) -> dict[str, Tensor]:
    """Return the layer's changed tensors: the norm's gain without the input that matters least, the rows ruined."""
    block = shape.anatomy.blocks[layer]
    norm = f"{block.name}.post_attention_layernorm.weight"
    read = [f"{block.mlp}.{name}.weight" for name in ("gate_proj", "up_proj")]
    changed = {name: weights[name].clone() for name in (norm, *read)}
    dead = int(np.argmin(energy * sum(changed[name].double().square().sum(dim=0).numpy() for name in read)))
    changed[norm][dead] = 0.0
    if rows is not None:
        for name in read:
            changed[name][rows, dead] = RUIN * changed[name][rows].abs().amax(dim=1)
    return changed


def planted_study(planted: Subject, evaluation: Corpus) -> RetentionStudy:
    """The study of H-039 on the planted copy, as the eval makes it: tiers are those of the copy's own exposure."""
    tier = tiers(evaluation.languages, exposure=planted.local.exposure)
    return study_retention(planted, parse_spec(SPEC), evaluation, tier=tier)


def judged(study: RetentionStudy, *, rng: np.random.Generator) -> Measurement:
    """The criterion of H-039, judged as the eval judges it."""
    return judge(parity(study, rng=rng), PARITY, hypothesis="H-039", test="control", role="control", model=MODEL.name)


def redrawn(study: RetentionStudy, *, rng: np.random.Generator) -> RetentionStudy:
    """Return the study on as many segments, drawn with replacement, the same in all languages and specs."""
    count = len(study.table.segment_ids)
    places = rng.integers(0, count, count)

    def drawn(losses: Losses) -> Losses:
        arrays = {name: array[places] for name, array in losses.arrays() if name != "token_kl"}
        return Losses(language=losses.language, segment_ids=losses.segment_ids, **arrays)

    columns = {
        spec: replace(
            column,
            full={tag: drawn(one) for tag, one in column.full.items()},
            quantized={tag: drawn(one) for tag, one in column.quantized.items()},
        )
        for spec, column in study.table.columns.items()
    }
    return replace(study, table=replace(study.table, columns=columns))


@app.command()
def main(
    draws: Annotated[int, typer.Option(min=1, help="Draws of the segments for each dose.")] = 40,
    store: Annotated[Path | None, typer.Option(help="Where copies and measurements are kept.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Print the disparity ratio over k, the verdict and its power at each dose, as Markdown."""
    kept = store_of(store)
    subject = plain_bench(kept, seed=seed)
    probe, evaluation = texts(subject, seed=seed)
    for line in rows(subject, probe, evaluation, draws=draws, seed=seed):
        typer.echo(line)


def rows(subject: Subject, probe: Corpus, evaluation: Corpus, *, draws: int, seed: int) -> Iterator[str]:
    """The table, line by line as it is measured."""
    started = False
    for dose, directed in (*((dose, True) for dose in DOSES), (USUAL, False)):
        planted = planted_bench(subject, probe, channels=dose, directed=directed)
        study = planted_study(planted, evaluation)
        planted.release()
        found = judged(study, rng=np.random.default_rng(seed))
        if not started:
            yield "| channels | " + " | ".join(f"k {percent} %" for percent in study.kept) + " | verdict | power |"
            yield "|---" * (len(study.kept) + 3) + "|"
            started = True
        generators = (np.random.default_rng([seed, dose, draw]) for draw in range(draws))
        hits = sum(judged(redrawn(study, rng=rng), rng=rng).supported for rng in generators)
        ratios = [brief(Estimate(**row["disparity"]["excess_bits"]["ratio"])) for row in found.data["rows"]]
        yield f"| {dose}{'' if directed else ', random'} | {' | '.join(ratios)} | {found.verdict} | {hits} of {draws} |"


if __name__ == "__main__":
    app()
