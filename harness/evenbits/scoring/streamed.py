"""A model that is read from disk a layer at a time: every text and every change goes through a layer while it is there.

What is kept between layers is the stream of every position that is read. The numbers are those of scoring in memory:
the same batches, the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from evenbits.models.device import lacks_room
from evenbits.models.layout import text_config
from evenbits.models.records import LoadedModel
from evenbits.models.skeleton import Skeleton
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import products_for
from evenbits.scoring.batches import Window, context_limit
from evenbits.scoring.body import padded_hidden
from evenbits.scoring.likelihood import CONTEXT, batch_tokens_for
from evenbits.scoring.sweep import Layers, PackedLayers, ReplayLayers, Text, close, first_batch, one_by_one

__all__ = ["Passage", "layers_of", "same_way", "stream"]


ASKS_ITS_NEIGHBOURS = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)
"""What a layer that is called alone may end in where it needs something of another."""


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
    """Return what runs the layers one at a time, None where that does not give what the model gives.

    The lean forward is held to the model's own by tests. Other types are asked on a batch of `text`: of `whole`, the
    model with all its weights in whatever dtype it is in memory, or, without it, of the skeleton, which costs two
    passes over the checkpoint.
    """
    model = skeleton.loaded.model
    if packed.supports(model, context=context_limit(text_config(model), context)):
        return PackedLayers(model)
    if whole is not None:
        return _proven(skeleton, text, whole(), at_once=nullcontext, held=lambda _layer: nullcontext())
    with skeleton.outside():
        return _proven(skeleton, text, skeleton.loaded, at_once=skeleton.layers_as_they_run, held=skeleton.layer)


def same_way(layers: Layers, skeleton: Skeleton) -> Layers:
    """Return what runs the layers of `skeleton`, the same model in another dtype, as `layers` does."""
    if isinstance(layers, ReplayLayers):
        return ReplayLayers(skeleton.loaded, dry=layers.dry)
    return PackedLayers(skeleton.loaded.model)


def _proven(
    skeleton: Skeleton,
    text: Text,
    there: LoadedModel,
    *,
    at_once: Callable[[], AbstractContextManager[Any]],
    held: Callable[[int], AbstractContextManager[Any]],
) -> Layers | None:
    """Ask the model `there`, which has all its weights within `at_once()` and those of a layer within `held(layer)`."""
    model: Any = there.model
    batch = first_batch(there, text, batch_tokens_for(model.device))
    boxed: list[bool] = []
    with torch.inference_mode(), products_for(model.dtype, model.device):
        listening = model.get_submodule(there.anatomy.layers[0]).register_forward_hook(
            lambda _module, _args, output: boxed.append(isinstance(output, tuple))
        )
        try:
            with at_once():
                own_ND = padded_hidden(model, batch)
        finally:
            listening.remove()
        dry: Literal["tensor", "tuple"] = "tuple" if boxed[0] else "tensor"
        try:
            ours_ND = one_by_one(ReplayLayers(there, dry=dry), there, batch, held)
        except ASKS_ITS_NEIGHBOURS as error:
            if isinstance(error, RuntimeError) and lacks_room(error):
                raise
            return None
    return ReplayLayers(skeleton.loaded, dry=dry) if close(own_ND, ours_ND) else None


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
