"""Redundancy by ablation: what each language loses when random channels, or random heads, are dropped.

Dropping a channel of an MLP, or a head of attention, sets to zero what the output product reads from it, in every
layer at once. The same draws serve all languages, so that these differ by what they lose alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import FULL_PRECISION, ModelUnderTest, Variant
from evenbits.errors import ModelError
from evenbits.records import Corpus

if TYPE_CHECKING:
    from evenbits.models import LoadedModel

__all__ = ["DRAWS", "KINDS", "Kind", "drop_variant", "dropping", "loss_increase"]

Kind = Literal["channel", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHARE = {"channel": 0.1, "head": 0.125}
"""Dropped of each layer's MLP channels, and of its heads (at least one)."""

DRAWS = 3
SEGMENTS = 16
"""Segments per language, spread evenly: a mean over three draws of the relative increase needs no more."""


def loss_increase(model: ModelUnderTest, probe: Corpus) -> dict[str, dict[str, float]]:
    """Return, by kind and language, sum NLL ablated / sum NLL - 1 on probe text: the mean over `DRAWS` draws."""
    places = np.unique(np.linspace(0, len(probe) - 1, min(len(probe), SEGMENTS)).astype(int))
    sample = probe.select(indices=tuple(int(place) for place in places))
    full = model.losses(FULL_PRECISION, sample)
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        draws = [model.losses(drop_variant(kind, seed=model.seed, draw=draw), sample) for draw in range(DRAWS)]
        found[kind] = {
            tag: float(np.mean([draw[tag].nll.sum() / full[tag].nll.sum() - 1 for draw in draws]))
            for tag in sample.languages
        }
    return found


def drop_variant(kind: Kind, *, seed: int, draw: int) -> Variant:
    """Return one draw as a variant, without divergence, which loss increase does not need."""
    return Variant(
        label=f"{SHARE[kind]:.3g} of {kind}s dropped, draw {draw}",
        key={"dropped": kind, "share": SHARE[kind], "seed": seed, "draw": draw},
        apply=partial(dropping, kind=kind, seed=(seed, draw)),
        divergence=False,
    )


def dropping(loaded: LoadedModel, *, kind: Kind, seed: Iterable[int]) -> AbstractContextManager[None]:
    """Drop random channels or heads of every layer while the context lasts; `seed` draws them."""
    import torch  # noqa: PLC0415 - collecting evals must not import torch

    from evenbits.variants.quantization import zeroed  # noqa: PLC0415 - same
    from evenbits.variants.quantization.patching import shapes_of  # noqa: PLC0415 - same

    shapes = shapes_of(loaded.model, loaded.anatomy)
    rng = np.random.default_rng(list(seed))
    places = {}
    for block in loaded.anatomy.blocks:
        name = block.mlp_output if kind == "channel" else block.attention_output
        rows, columns = shapes[name]
        parts = columns if kind == "channel" else _heads(loaded, columns, name)
        dropped = rng.choice(parts, size=max(1, round(SHARE[kind] * parts)), replace=False)
        places[name] = torch.from_numpy(_flat(dropped, parts=parts, rows=rows, columns=columns))
    return zeroed(loaded, places)


def _heads(loaded: LoadedModel, columns: int, name: str) -> int:
    heads = int(loaded.model.config.num_attention_heads)
    if columns % heads:
        raise ModelError(f"{name} has {columns} inputs, not a multiple of {heads} heads")
    return heads


def _flat(dropped: NDArray[np.int64], *, parts: int, rows: int, columns: int) -> NDArray[np.int64]:
    """Return flat indices into [rows, columns] of the columns that the `dropped` of `parts` equal parts hold."""
    width = columns // parts
    chosen = (dropped[:, None] * width + np.arange(width)).ravel()
    return np.asarray((np.arange(rows)[:, None] * columns + chosen).ravel(), dtype=np.int64)
