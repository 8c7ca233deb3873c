"""Candidates for super weights: single weights whose loss ruins a model (Yu et al. 2024, arXiv 2411.07191).

A super weight shows as one spike at the input and one at the output of a layer's MLP down projection, for any text: the
candidate is W[channel of the output spike, channel of the input spike]. Spikes come from activations; whether a
candidate really is one is decided by ablation, which is not done here: a re-test of published coordinates found most of
them harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError

__all__ = ["SpikeProfile", "SuperWeightCandidate", "super_weight_candidates"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeProfile:
    """Largest activations at one down projection over the probe texts, prefix token included (the spike sits there).

    `input_peak` [I], `output_peak` [O]: largest |activation| of each channel. `first_row`: of an expert's matrix among
    those that lie one below the other.
    """

    name: str
    layer: int
    input_peak: Float64
    output_peak: Float64
    first_row: int = 0

    def __post_init__(self) -> None:
        for what, peak in (("input", self.input_peak), ("output", self.output_peak)):
            if peak.ndim != 1 or not np.isfinite(peak).all():
                raise NonFiniteError(f"{self.name}: {what} peaks must be finite, one per channel")
            peak.setflags(write=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperWeightCandidate:
    """A weight W[row, column] of module `name` (out x in) at which both spikes meet.

    `input_ratio`, `output_ratio`: the spike over the median channel of the same layer; None where that median is 0.
    `explained`: share of the output spike that this one weight can produce, |W| x input spike / output spike; near 1
    (it may be above) for a super weight, small where many weights make the spike together.
    """

    name: str
    layer: int
    row: int
    column: int
    weight: float
    input_peak: float
    output_peak: float
    input_ratio: float | None
    output_ratio: float | None
    explained: float

    @property
    def place(self) -> str:
        """The weight's name and indices, for people: `model.layers.2.mlp.down_proj[3, 17]`."""
        return f"{self.name}[{self.row}, {self.column}]"

    @property
    def score(self) -> float:
        """What candidates are ranked by: the activation the weight carries, |W| x input spike.

        Unlike the ratios it is comparable over layers: it is what the weight adds to the residual stream.
        """
        return abs(self.weight) * self.input_peak


def super_weight_candidates(
    profiles: Iterable[SpikeProfile],
    weight_at: Callable[[str, int, int], float],
    *,
    limit: int | None = None,
) -> tuple[SuperWeightCandidate, ...]:
    """Return one candidate per profile, largest score first; `limit` keeps the first ones.

    `weight_at(name, row, column)` reads W[row, column] of the module, out x in.
    """
    found = [_candidate(profile, weight_at) for profile in profiles]
    # The name decides between equal scores, so that the order never depends on the order of hooks.
    found.sort(key=lambda candidate: (-candidate.score, candidate.layer, candidate.name))
    return tuple(found[:limit])


def _candidate(profile: SpikeProfile, weight_at: Callable[[str, int, int], float]) -> SuperWeightCandidate:
    column, output = int(profile.input_peak.argmax()), int(profile.output_peak.argmax())
    row = profile.first_row + output
    weight = float(weight_at(profile.name, row, column))
    if not np.isfinite(weight):
        raise NonFiniteError(f"{profile.name}: weight [{row}, {column}] is {weight}; check the checkpoint.")
    spike_in, spike_out = float(profile.input_peak[column]), float(profile.output_peak[output])
    return SuperWeightCandidate(
        name=profile.name,
        layer=profile.layer,
        row=row,
        column=column,
        weight=weight,
        input_peak=spike_in,
        output_peak=spike_out,
        input_ratio=_ratio(profile.input_peak),
        output_ratio=_ratio(profile.output_peak),
        explained=abs(weight) * spike_in / spike_out if spike_out > 0 else 0.0,
    )


def _ratio(peak: NDArray[Any]) -> float | None:
    middle = float(np.median(peak))
    return float(peak.max()) / middle if middle > 0 else None
