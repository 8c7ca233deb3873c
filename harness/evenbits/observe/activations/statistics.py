"""Record of one language's activations, and its form in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import CorpusError, NonFiniteError, NotApplicableError
from evenbits.store import Entry

__all__ = ["SINK_SEGMENTS", "ActivationStatistics", "packed", "state_layers", "token_parity", "unpacked"]

Float64 = NDArray[np.float64]

LAYERED = (
    "attention_write",
    "mlp_write",
    "attention_norm",
    "mlp_norm",
    "stream_norm",
    "unexplained",
    "participation",
)
MAPPED = ("input_square", "input_peak", "output_peak", "routed")
OPTIONAL = ("head_norm", "sink_mass", "half_prediction")

MOST_UNEXPLAINED = 0.02
"""Share of what a layer adds to the stream above which its two writes are not what it does."""

SINK_SEGMENTS = 4
"""Segments of a language on which attention to the first token is measured."""


def state_layers(layers: int) -> tuple[int, ...]:
    """Return the layers after which hidden states of segments are kept: a quarter, half, three quarters and the whole.

    Without repetition, of `layers` in all.
    """
    return tuple(sorted({max(0, round(layers * quarter / 4) - 1) for quarter in range(1, 5)}))


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationStatistics:
    """Activations of one model on the segments of one language: L layers, H heads, S segments, width D; float64.

    Text tokens only: neither the prefix token nor padding counts, except in `sink_mass`, which is attention *to* the
    prefix token.

    `tokens` [S]: text tokens of each segment.
    `input_square`: module -> E[x_i^2] of every input channel [I]. `input_peak`: module -> max |x_i| [I]. Of fused
    experts both are [E, I], over the tokens sent to each expert; `routed`: how many those were [E].
    `output_peak`: MLP output module -> max |y_o| [O].
    `attention_write`, `mlp_write` [L]: mean of |write| / |residual stream it is added to|; `attention_norm`,
    `mlp_norm`, `stream_norm` [L]: mean raw norms, the stream before the layer. `unexplained` [L]: share of what the
    layer adds to the stream that these two writes do not make; see `writes`.
    `head_norm` [L, H]: root mean square norm of each head's output (input of the attention's output product).
    `sink_mass` [L, H]: mean attention to the prefix token, over the first `sink_segments` segments. Both are None
    where a layer gives no attention weights: a state space, a convolution or linear attention mixes its tokens.
    `participation` [L]: participation ratio of the hidden states after each layer (`features.participation_of_tokens`).
    `half_prediction` [K]: after `state_layers`, the share of variance of half of the channels predicted from the other
    half, on held-out segments (`features.half_prediction`); None where there is one segment only. `projected`:
    dimensions of the random projection both were taken in, or None.
    `segment_state` [K, S, D]: mean hidden state of each segment after the layers `state_layers` (a quarter, half, three
    quarters and the whole of the depth), float32.
    """

    language: str
    tokens: NDArray[np.int64]
    input_square: Mapping[str, Float64]
    input_peak: Mapping[str, Float64]
    output_peak: Mapping[str, Float64]
    routed: Mapping[str, Float64]
    attention_write: Float64
    mlp_write: Float64
    attention_norm: Float64
    mlp_norm: Float64
    stream_norm: Float64
    unexplained: Float64
    head_norm: Float64 | None
    sink_mass: Float64 | None
    sink_segments: int
    participation: Float64
    half_prediction: Float64 | None
    projected: int | None
    segment_state: NDArray[np.float32]
    state_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        layers = len(self.stream_norm)
        for field in LAYERED:
            array = getattr(self, field)
            if array.shape != (layers,):
                raise ValueError(f"{self.language}: {field} has shape {array.shape}, expected ({layers},)")
        for name, array in self._arrays():
            if not np.isfinite(array).all():
                raise NonFiniteError(
                    f"activations of {name} are not finite on the texts in {self.language}. Run with --dtype float32; "
                    "if that does not help, the checkpoint is damaged."
                )
            array.setflags(write=False)

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        named = [(f"{field} of {module}", a) for field in MAPPED for module, a in getattr(self, field).items()]
        named += [(field, getattr(self, field)) for field in (*LAYERED, "segment_state")]
        return named + [(field, array) for field in OPTIONAL if (array := getattr(self, field)) is not None]

    @property
    def token_count(self) -> int:
        """Text tokens of all segments."""
        return int(self.tokens.sum())

    @property
    def layers(self) -> int:
        return len(self.stream_norm)

    @property
    def writes_whole(self) -> bool:
        """Whether attention and MLP write all that the layers add to the stream."""
        return bool((self.unexplained <= MOST_UNEXPLAINED).all())

    def writes(self) -> tuple[Float64, Float64]:
        """Return what each layer writes, attention and MLP added: relative to the stream, and raw norms, [L] each.

        `NotApplicableError` where a layer adds something else, too, or not as it is written: a state space beside
        attention, inputs by layer, a scaled stream.
        """
        if not self.writes_whole:
            layer = int(self.unexplained.argmax())
            raise NotApplicableError(
                f"what layer {layer} adds to the residual stream is not what its attention and feed-forward part "
                f"write: the difference is {self.unexplained[layer]:.0%} of it. Writes by layer, and critical layers, "
                "are not defined for this type of model; leave out what asks for them"
            )
        return self.attention_write + self.mlp_write, self.attention_norm + self.mlp_norm

    def channel_square(self, module: str) -> Float64:
        """Mean square of every input channel of `module` [I]; of experts over all that any of them read."""
        square = self.input_square[module]
        if square.ndim == 1:
            return square
        routed = self.routed[module]
        return np.asarray(routed @ square / routed.sum())

    def energy(self, module: str) -> Float64:
        """Share of activation energy that enters each input channel of `module`, sum 1; equal shares where all is 0."""
        square = self.channel_square(module)
        total = float(square.sum())
        return square / total if total > 0 else np.full_like(square, 1 / len(square))


def token_parity(statistics: Mapping[str, ActivationStatistics], *, reference: str = "en") -> dict[str, float]:
    """Return tokens relative to the `reference` language on the same aligned segments, by language.

    `CorpusError` where the reference is missing or a language has another number of segments.
    """
    if reference not in statistics:
        raise CorpusError(
            f"token parity is relative to {reference}, which was not measured; measured: {', '.join(statistics)}"
        )
    base = statistics[reference]
    for tag, found in statistics.items():
        if len(found.tokens) != len(base.tokens):
            raise CorpusError(f"{tag} has {len(found.tokens)} segments and {reference} {len(base.tokens)}: not aligned")
    return {tag: found.token_count / base.token_count for tag, found in statistics.items()}


def packed(statistics: ActivationStatistics) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return (arrays, meta) for the store. Arrays that several modules share (q, k, v) are written once."""
    arrays: dict[str, NDArray[Any]] = {"tokens": statistics.tokens}
    shared: dict[str, str] = {}
    by_content: dict[tuple[str, bytes], str] = {}
    for field in MAPPED:
        for module, array in getattr(statistics, field).items():
            name = f"{field}/{module}"
            first = by_content.setdefault((field, array.tobytes()), name)
            if first == name:
                arrays[name] = array
            shared[name] = first
    for field in (*LAYERED, "segment_state", *OPTIONAL):
        array = getattr(statistics, field)
        if array is not None:
            arrays[field] = array
    meta = {
        "language": statistics.language,
        "shared": shared,
        "sink_segments": statistics.sink_segments,
        "projected": statistics.projected,
        "state_layers": list(statistics.state_layers),
    }
    return arrays, meta


def unpacked(entry: Entry, *, language: str) -> ActivationStatistics:
    """Return the record of a stored entry; `language` names whose texts they are."""
    arrays, meta = entry.arrays, entry.meta
    mapped: dict[str, Any] = {field: {} for field in MAPPED}
    for name, first in meta["shared"].items():
        field, _, module = name.partition("/")
        mapped[field][module] = arrays[first]
    fixed: dict[str, Any] = {field: arrays[field] for field in (*LAYERED, "segment_state")}
    fixed |= {field: arrays.get(field) for field in OPTIONAL}
    return ActivationStatistics(
        language=language,
        tokens=arrays["tokens"],
        sink_segments=meta["sink_segments"],
        projected=meta["projected"],
        state_layers=tuple(meta["state_layers"]),
        **mapped,
        **fixed,
    )
