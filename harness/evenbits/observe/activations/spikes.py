"""Largest activations at the input and output of every product, prefix token included: where super weights show.

The spike of a super weight sits on the first token in most models (arXiv 2411.07191), so these peaks, unlike the
statistics of text tokens, include it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError
from evenbits.models.device import room_on
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import Batch, batches_of, sequences_of
from evenbits.observe.activations.experts import listening_to_experts
from evenbits.observe.activations.hooks import decoder, listening

__all__ = ["Peaks", "spike_peaks"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """Largest |activation| of every channel of one product over all texts: `inputs` [I], `outputs` [O], float64.

    Of experts the inputs are [E, I], the outputs (without a bias) [E * O]; 0 where an expert was never chosen.
    """

    inputs: Float64
    outputs: Float64


def spike_peaks(loaded: LoadedModel, texts: Sequence[str], *, language: str = "the probe texts") -> Mapping[str, Peaks]:
    """Return the peaks of every product inside the decoder layers, by module path, over `texts` with their prefix.

    A spike that is not finite raises `NonFiniteError` naming the module.
    """
    linears = loaded.anatomy.linears
    plain = [linear.name for linear in linears if not linear.experts]
    experts = {linear.name: linear.experts for linear in linears}
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def of_expert(name: str, expert: int, x_NI: torch.Tensor, y_NO: torch.Tensor) -> None:
        for peaks, rows in ((inputs, x_NI), (outputs, y_NO)):
            if name not in peaks:
                peaks[name] = rows.new_zeros(experts[name], rows.shape[1])
            peaks[name][expert] = torch.maximum(peaks[name][expert], _largest(rows))

    sequences = sequences_of(loaded, texts, language=language)
    with torch.inference_mode(), room_on(loaded.device, "activations beside the model"):
        for batch in batches_of(loaded, sequences):
            read = _read_positions(batch)
            before = {name: partial(_raise_peak, inputs, name, read) for name in plain}
            after = {name: partial(_raise_peak, outputs, name, read) for name in plain}
            with (
                listening(loaded.model, before=before, after=after),
                listening_to_experts(loaded, of_expert, count=batch.ids.numel(), rows=read),
            ):
                decoder(loaded)(input_ids=batch.ids, use_cache=False)
    return {
        linear.name: Peaks(inputs=_checked(inputs, linear.name), outputs=_checked(outputs, linear.name).reshape(-1))
        for linear in linears
    }


def _read_positions(batch: Batch) -> torch.Tensor:
    """Flat positions of everything but padding."""
    width = batch.ids.shape[1]
    return torch.cat([torch.arange(row * width, row * width + n) for row, n in enumerate(batch.lengths)]).to(
        batch.ids.device
    )


def _raise_peak(peaks: dict[str, torch.Tensor], name: str, read: torch.Tensor, x: Any) -> None:
    largest = _largest(x.reshape(-1, x.shape[-1]).index_select(0, read.to(x.device)))
    peaks[name] = torch.maximum(peaks[name], largest) if name in peaks else largest


def _largest(rows: torch.Tensor) -> torch.Tensor:
    low, high = torch.aminmax(rows, dim=0)
    return torch.maximum(high, -low)


def _checked(peaks: Mapping[str, torch.Tensor], name: str) -> Float64:
    found: Float64 = peaks[name].cpu().double().numpy()
    if not np.isfinite(found).all():
        raise NonFiniteError(f"activations of {name} are not finite on the probe texts; run with --dtype float32.")
    return found
