"""Attention sinks: how much attention the first token gets, head by head.

Shapes: attention weights p_BHTT (query x key) of one layer, reduced at once to [H]. Torch's fused attention never
makes them, so a few segments are run with transformers' eager attention, and the model is set back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from evenbits.models.device import room_on
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import BATCH_TOKENS, Batch, Sequenced, batches_of
from evenbits.observe.activations.hooks import read
from evenbits.scoring.arithmetic import in_float64

__all__ = ["sink_masses"]


def sink_masses(loaded: LoadedModel, sequences: Sequence[Sequenced]) -> NDArray[np.float64] | None:
    """Return the mean attention mass that text tokens give to the prefix token, per layer and head [L, H].

    None where a layer gives none: a state space, a convolution or linear attention mixes its tokens, or nothing does,
    or transformers hands none out (Falcon).

    `sequences` start with the prefix token, whose attention to itself (always 1) is not counted. Batches are small on
    every device: attention weights grow with the square of their length.
    """
    blocks = loaded.anatomy.blocks
    mixing = {block.index: block.attention for block in blocks if block.attention is not None}
    if len(mixing) < len(blocks):
        return None
    sums: dict[int, NDArray[np.float64]] = {}
    count = 0
    room = room_on(loaded.device, "attention weights beside the model")
    with eager_attention(loaded.model), torch.inference_mode(), room:
        for batch in batches_of(loaded, sequences, tokens=BATCH_TOKENS):
            read(loaded, batch, after={name: partial(_add, sums, layer, batch) for layer, name in mixing.items()})
            if len(sums) < len(blocks):
                return None
            count += len(batch.real)
    return np.stack([sums[block.index] for block in blocks]) / count


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Have `model` compute attention weights explicitly, and set its own attention back on leaving."""
    before = model.config._attn_implementation  # noqa: SLF001 - transformers gives no public reading of it
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _add(sums: dict[int, NDArray[np.float64]], layer: int, batch: Batch, output: Any) -> None:
    weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
    positions = batch.ids.shape[1]
    if weights is None or weights.shape[2:] != (positions, positions):  # a state of linear attention is 4-D, too
        return
    to_first = weights[..., 0].permute(0, 2, 1).reshape(-1, weights.shape[1])  # [B * T, H]
    mass = in_float64(to_first.index_select(0, batch.real.to(to_first.device))).sum(0).cpu().numpy()
    sums[layer] = sums.get(layer, 0.0) + mass
