"""A model that is read from disk a layer at a time: every text and every change goes through a layer while it is there.

What is kept between layers is the stream of every position that is read. The numbers are those of scoring in memory:
the same batches, the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from evenbits.models.layout import text_config
from evenbits.models.records import LoadedModel
from evenbits.models.skeleton import Skeleton
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import products_for
from evenbits.scoring.batches import Window, context_limit
from evenbits.scoring.likelihood import CONTEXT, batch_tokens_for
from evenbits.scoring.sweep import Layers, PackedLayers, ReplayLayers, Text, gives_the_same

__all__ = ["Passage", "layers_of", "stream"]


@dataclass(kw_only=True, eq=False)
class Passage:
    """Text that is read under one change. `batches`: its windows; `change(loaded, layer)` holds while a layer runs.

    `name`: of the change; what is called the same is made once a layer for all its text.
    """

    batches: Sequence[Sequence[Window]]
    change: Callable[..., AbstractContextManager[Any]]
    name: str


def layers_of(
    skeleton: Skeleton, text: Text, *, context: int = CONTEXT, whole: Callable[[], LoadedModel] | None = None
) -> Layers | None:
    """Return what runs the layers one at a time, None where nothing shows that this gives what the model gives.

    The lean forward is held to the model's own by tests. Other types are asked on a batch of `text`, for which `whole`
    is the model with all its weights, in whatever dtype it is in memory.
    """
    model = skeleton.loaded.model
    if packed.supports(model, context=context_limit(text_config(model), context)):
        return PackedLayers(model)
    if whole is None or skeleton.loaded.anatomy.projections:
        return None
    there = whole()
    for dry in ("tensor", "tuple"):
        with suppress(RuntimeError, IndexError, TypeError):  # a model that wants the other of the two
            if gives_the_same(ReplayLayers(there, dry=dry), there, text, batch_tokens_for(there.model.device)):
                return ReplayLayers(skeleton.loaded, dry=dry)
    return None


def stream(
    skeleton: Skeleton, layers: Layers, passages: Sequence[Passage], *, advance: Callable[[], None] = lambda: None
) -> list[Callable[[Sequence[Window]], torch.Tensor]]:
    """Run every passage through the layers; return for each what gives the final hidden states of its windows.

    `advance` is called after each layer.
    """
    loaded = skeleton.loaded
    model: Any = loaded.model
    with torch.inference_mode(), products_for(model.dtype, model.device):
        states: list[list[Any]] = [[] for _ in passages]
        by_change: dict[str, list[int]] = {}
        for number, passage in enumerate(passages):
            by_change.setdefault(passage.name, []).append(number)
        for numbers in by_change.values():
            with passages[numbers[0]].change(loaded, None):
                for number in numbers:
                    states[number] = [layers.enter(batch) for batch in passages[number].batches]
        for layer in range(len(loaded.anatomy.layers)):
            with skeleton.layer(layer):
                for numbers in by_change.values():
                    with passages[numbers[0]].change(loaded, layer):
                        for held in (states[number] for number in numbers):
                            for place, state in enumerate(held):
                                held[place] = layers.step(state, layer)
            advance()
        return [_found(layers, passage, held) for passage, held in zip(passages, states, strict=True)]


def _found(layers: Layers, passage: Passage, states: Sequence[Any]) -> Callable[[Sequence[Window]], torch.Tensor]:
    by_start: dict[int, torch.Tensor] = {}
    for batch, state in zip(passage.batches, states, strict=True):
        hidden_ND = layers.finish(state, batch)
        for window, rows_ND in zip(batch, torch.split(hidden_ND, [len(one.targets) for one in batch]), strict=True):
            by_start[window.start] = rows_ND
    return lambda batch: torch.cat([by_start[window.start] for window in batch])
