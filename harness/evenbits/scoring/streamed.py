"""A model that is read from disk a layer at a time: every text and every change goes through a layer while it is there.

What is kept between layers is the stream of every position that is read. The numbers are those of scoring in memory:
the same batches, the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from evenbits.models.layout import text_config
from evenbits.models.skeleton import Skeleton
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import products_for
from evenbits.scoring.batches import Window, context_limit
from evenbits.scoring.likelihood import CONTEXT
from evenbits.scoring.sweep import PackedLayers

__all__ = ["Passage", "can_stream", "stream"]


@dataclass(kw_only=True, eq=False)
class Passage:
    """Text that is read under one change. `batches`: its windows; `change(loaded, layer)` holds while a layer runs."""

    batches: Sequence[Sequence[Window]]
    change: Callable[..., AbstractContextManager[Any]]


def can_stream(skeleton: Skeleton, *, context: int = CONTEXT) -> bool:
    """Return whether the layers of this model can be run one at a time: those that the lean forward knows."""
    model = skeleton.loaded.model
    return packed.supports(model, context=context_limit(text_config(model), context))


def stream(
    skeleton: Skeleton, passages: Sequence[Passage], *, advance: Callable[[], None] = lambda: None
) -> list[Callable[[Sequence[Window]], torch.Tensor]]:
    """Run every passage through the layers; return for each what gives the final hidden states of its windows.

    `advance` is called after each layer.
    """
    loaded = skeleton.loaded
    model: Any = loaded.model
    layers = PackedLayers(model)
    with torch.inference_mode(), products_for(model.dtype, model.device):
        states = []
        for passage in passages:
            with passage.change(loaded, None):
                states.append([layers.enter(batch) for batch in passage.batches])
        for layer in range(len(loaded.anatomy.layers)):
            with skeleton.layer(layer):
                for passage, held in zip(passages, states, strict=True):
                    with passage.change(loaded, layer):
                        for place, state in enumerate(held):
                            held[place] = layers.step(state, layer)
            advance()
        return [_found(layers, passage, held) for passage, held in zip(passages, states, strict=True)]


def _found(layers: PackedLayers, passage: Passage, states: Sequence[Any]) -> Callable[[Sequence[Window]], torch.Tensor]:
    by_start: dict[int, torch.Tensor] = {}
    for batch, state in zip(passage.batches, states, strict=True):
        hidden_ND = layers.finish(state, batch)
        for window, rows_ND in zip(batch, torch.split(hidden_ND, [len(one.targets) for one in batch]), strict=True):
            by_start[window.start] = rows_ND
    return lambda batch: torch.cat([by_start[window.start] for window in batch])
