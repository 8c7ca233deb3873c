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
from evenbits.observe.activations.batches import batches_of, sequences_of
from evenbits.observe.activations.channels import largest_of
from evenbits.observe.activations.experts import listening_to_experts
from evenbits.observe.activations.hooks import packs, read

__all__ = ["Peaks", "spike_peaks"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """Largest |activation| of every channel of one product over all texts: `inputs` [I], `outputs` [O], float64.

    Of experts the inputs are [E, I], the outputs [E * O]; 0 where an expert was never chosen. Outputs of experts and of
    Mamba's steps are those without a bias.
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
            peaks[name][expert] = torch.maximum(peaks[name][expert], largest_of(rows))

    sequences = sequences_of(loaded, texts, language=language)
    with torch.inference_mode(), room_on(loaded.device, "activations beside the model"):
        for batch in batches_of(loaded, sequences, packed=packs(loaded)):
            rows = batch.read
            before = {name: partial(_raise_peak, inputs, name, rows) for name in plain}
            after = {name: partial(_raise_peak, outputs, name, rows) for name in plain}
            with listening_to_experts(loaded, of_expert, count=batch.ids.numel(), rows=rows):
                read(loaded, batch, before=before, after=after)
    return {
        linear.name: Peaks(inputs=_checked(inputs, linear.name), outputs=_checked(outputs, linear.name).reshape(-1))
        for linear in linears
    }


def _raise_peak(peaks: dict[str, torch.Tensor], name: str, rows: torch.Tensor, x: Any) -> None:
    largest = largest_of(x.reshape(-1, x.shape[-1]).index_select(0, rows.to(x.device)))
    peaks[name] = torch.maximum(peaks[name], largest) if name in peaks else largest


def _checked(peaks: Mapping[str, torch.Tensor], name: str) -> Float64:
    found: Float64 = peaks[name].cpu().double().numpy()
    if not np.isfinite(found).all():
        raise NonFiniteError(f"activations of {name} are not finite on the probe texts; run with --dtype float32.")
    return found
