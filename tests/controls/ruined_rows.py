"""H-039's positive control on a trained model: `python -m controls.ruined_rows` prints verdict and power by dose.

*The plant.* In every layer the MLP channels most specific to the low-resource languages get, in their rows of
`gate_proj` and `up_proj`, one weight 60 times as large as their largest other. It stands at an input that is always
zero, because the norm before the MLP gives it no gain: full precision does not see it, a grid fitted to the row has to
span it and rounds the row away. The dose is the number of channels. At dose 0 the input is dead all the same, so that
doses differ in nothing but the rows.

*The bench.* Parity can only be shown where rounding alone takes about the same from every language, and of many enough
languages. So the model is `eq` of the reference family, which saw as much text of each of its 33 languages, at a grid
that takes much the same from all of them; which languages are hurt, and stand for the low-resource tier, is dealt by
lot within families. What else was looked at, and why it will not do, is in docs/method-reference.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from evenbits.text.languages import families_of
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
    "dealt",
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

MODEL = "reference:eq"
SPEC = "int3-row"
PROBED = 24
LOT = 1
"""The first seed whose two tiers lose the same within 2 % before anything is planted (log ratio -.006; seed 0: .12)."""
DOSES = (0, 24, 48, 64)
USUAL = 64
"""Of 256 channels in each layer. k keeps so many weights of such a matrix: 7, 20, 66, 197 and 655."""
PARITY = Threshold(metric="disparity_ratio", op="<", bound=1.25, why="as in the eval")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def plain_bench(store: Store, *, seed: int = 0) -> Subject:
    """Return the model that effects are planted into."""
    return bench(MODEL, store, seed=seed)


def texts(subject: Subject, *, seed: int = 0) -> tuple[Corpus, Corpus]:
    """Return `PROBED` segments to choose channels on, and all others, in the languages the model was trained on."""
    from evenbits.text import load_corpus, sample

    whole = load_corpus("gettext", languages=sorted(subject.local.exposure or {}), seed=seed, store=subject.store)
    probe = sample(whole, PROBED, seed=seed)
    others = tuple(place for place, name in enumerate(whole.segment_ids) if name not in probe.segment_ids)
    return probe, whole.select(indices=others, part="evaluation")


def dealt(languages: Sequence[str]) -> dict[str, str]:
    """Return a tier for each language by lot: half of each family is low, so that no family carries the difference."""
    families = families_of(languages)
    lots = np.random.default_rng(LOT).permutation(len(languages))
    order = sorted(range(len(languages)), key=lambda place: (families[languages[place]], lots[place]))
    return {languages[place]: ("low", "high")[rank % 2] for rank, place in enumerate(order)}


def planted_bench(subject: Subject, probe: Corpus, *, channels: int, directed: bool = True) -> Subject:
    """Return a copy of the model with `channels` ruined rows in each layer, written once into the store's folder.

    `directed`: the channels most specific to the languages dealt low; else random ones, which are everybody's.
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
        tier = dealt(probe.languages)
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
    """The study of H-039 on the planted copy, as the eval makes it, but for tiers, which were dealt."""
    tier = dealt(evaluation.languages)
    return study_retention(planted, parse_spec(SPEC), evaluation, tier=tier)


def judged(study: RetentionStudy, *, rng: np.random.Generator) -> Measurement:
    """The criterion of H-039, judged as the eval judges it."""
    return judge(parity(study, rng=rng), PARITY, hypothesis="H-039", test="control", role="control", model=MODEL)


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
