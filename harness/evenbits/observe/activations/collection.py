"""One pass over a language's segments that measures everything `ActivationStatistics` holds.

Shapes: B sequences, T positions, N text tokens of a batch, L layers, H heads, S segments, D width of the stream.
Sums are taken in float32 within a batch and kept in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import ModelError
from evenbits.models.device import room_on
from evenbits.models.layout import text_config, writes_in_parallel
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import Batch, Sequenced, batches_of, sequences_of
from evenbits.observe.activations.channels import ChannelSums, gathered, largest_of
from evenbits.observe.activations.experts import listening_to_experts
from evenbits.observe.activations.hooks import first_tensor, packs, read, write_factor, write_modules
from evenbits.observe.activations.sinks import sink_masses
from evenbits.observe.activations.states import PROJECTED, StateSums, projection
from evenbits.observe.activations.statistics import SINK_SEGMENTS, ActivationStatistics, state_layers
from evenbits.observe.activations.writes import WriteSums
from evenbits.scoring.arithmetic import home_of_sums, in_float64

__all__ = ["measure"]

SEED = 20240817
"""Draws the random projection and the halves of the channels: one draw for all languages and runs, so that features
of two languages differ by their states alone."""


def measure(
    loaded: LoadedModel,
    texts: Sequence[str],
    *,
    language: str,
    sink_segments: int = SINK_SEGMENTS,
    batch_tokens: int | None = None,
) -> ActivationStatistics:
    """Measure `texts` without a store. `batch_tokens`: positions of a batch, by default what suits the device."""
    sequences = sequences_of(loaded, texts, language=language)
    rng = np.random.default_rng(SEED)
    listener = _Listener(loaded, segments=len(texts), project=projection(_width(loaded), rng=rng))
    with torch.inference_mode(), room_on(loaded.device, f"activations of {language} beside the model"):
        for batch in batches_of(loaded, sequences, tokens=batch_tokens, packed=packs(loaded)):
            listener.start(batch)
            with listening_to_experts(loaded, listener.expert, count=batch.ids.numel(), rows=batch.real):
                read(loaded, batch, before=listener.before, after=listener.after)
    sampled = [sequence for sequence in sequences if sequence.segment < sink_segments]
    sinks = sink_masses(loaded, sampled)
    tokens = _tokens_by_segment(sequences, len(texts))
    total = int(tokens.sum())
    square, peak = listener.channels.finish(total)
    writes = listener.writes.finish(total)
    states = listener.states.finish(rng=rng)
    return ActivationStatistics(
        language=language,
        tokens=tokens,
        input_square=square,
        input_peak=peak,
        routed={name: count.cpu().numpy() for name, count in listener.channels.routed.items()},
        output_peak={name: largest.cpu().double().numpy() for name, largest in listener.output_peak.items()},
        attention_write=writes.attention_write,
        mlp_write=writes.mlp_write,
        attention_norm=writes.attention_norm,
        mlp_norm=writes.mlp_norm,
        stream_norm=writes.stream_norm,
        unexplained=writes.unexplained,
        head_norm=None if sinks is None else _head_norms(loaded, square, heads=sinks.shape[1]),
        sink_mass=sinks,
        sink_segments=min(sink_segments, len(texts)),
        participation=states.participation,
        half_prediction=states.half_prediction,
        projected=None if listener.states.project is None else PROJECTED,
        segment_state=(listener.segment_sum.cpu() / torch.from_numpy(tokens)[:, None]).float().numpy(),
        state_layers=listener.state_layers,
    )


class _Listener:
    """Hooks of one pass. Within a layer they fire in this order: stream in, attention write, MLP write, stream out."""

    def __init__(self, loaded: LoadedModel, *, segments: int, project: torch.Tensor | None) -> None:
        blocks, width = loaded.anatomy.blocks, _width(loaded)
        self.channels = ChannelSums()
        self.writes = WriteSums(len(blocks), parallel=writes_in_parallel(loaded.model), device=loaded.model.device)
        self.state_layers = state_layers(len(blocks))
        self.states = StateSums(
            len(blocks), width, judged=self.state_layers, project=project, device=loaded.model.device
        )
        self.output_peak: dict[str, torch.Tensor] = {}
        self.segment_sum = torch.zeros(
            len(self.state_layers), segments, width, dtype=torch.float64, device=home_of_sums(loaded.model.device)
        )
        self._batch: Batch | None = None
        self._even: torch.Tensor | None = None
        self._held: dict[str, torch.Tensor] = {}
        self.before: dict[str, Any] = {
            linear.name: partial(self.channels.add, linear.name)
            for linear in loaded.anatomy.linears
            if not linear.experts
        }
        self._experts = {linear.name: linear.experts for linear in loaded.anatomy.linears}
        self._home = loaded.model.device
        self._factors = [write_factor(loaded.model, block) for block in blocks]
        self.after: dict[str, Any] = {}
        for block in blocks:
            self.before[block.name] = partial(self._hold, "stream")
            for what, module in zip(("attention", "mlp"), write_modules(loaded.model, block), strict=True):
                if module is not None:
                    self.after[module] = partial(self._hold, what)
            self.after[block.name] = partial(self._leave, block.index)
            if block.mlp_output is not None:
                # Two things may be wanted of one module: its output as the write, and its peak.
                inner = self.after.get(block.mlp_output)
                self.after[block.mlp_output] = partial(self._peak, block.mlp_output, inner)

    def start(self, batch: Batch) -> None:
        self.channels.start(batch)
        self._batch = batch
        self._even = (batch.segments % 2 == 0).nonzero()[:, 0]
        self.states.count(len(batch.real), len(self._even))

    def expert(self, name: str, expert: int, x_NI: torch.Tensor, _y_NO: torch.Tensor) -> None:
        """Add what an expert read."""
        self.channels.add_expert(name, expert, x_NI, experts=self._experts[name])

    def _hold(self, what: str, x: Any) -> None:
        assert self._batch is not None  # noqa: S101 - start() comes first
        self._held[what] = gathered(first_tensor(x), self._batch.real).to(self._home)

    def _peak(self, name: str, inner: Any, y: torch.Tensor) -> None:
        assert self._batch is not None  # noqa: S101 - start() comes first
        largest = largest_of(gathered(y, self._batch.real))
        before = self.output_peak.get(name)
        self.output_peak[name] = largest if before is None else torch.maximum(before, largest)
        if inner is not None:
            inner(y)

    def _leave(self, layer: int, output: Any) -> None:
        assert self._batch is not None  # noqa: S101 - start() comes first
        assert self._even is not None  # noqa: S101 - same
        stream = first_tensor(output)
        h_ND = gathered(stream, self._batch.real).to(self._home)
        # What a part adds by several products stays unexplained, and one that is not there adds nothing.
        a_ND, m_ND = (
            self._held.pop(what).mul_(self._factors[layer]) if what in self._held else torch.zeros_like(h_ND)
            for what in ("attention", "mlp")
        )
        self.writes.add(layer, self._held.pop("stream"), a_ND, m_ND, h_ND, dtype=stream.dtype)
        self.states.add(layer, h_ND, self._even)
        if layer in self.state_layers:
            sums = self.segment_sum[self.state_layers.index(layer)]
            sums.index_add_(0, self._batch.segments.to(sums.device), in_float64(h_ND))


def _width(loaded: LoadedModel) -> int:
    """Width of the residual stream."""
    return int(text_config(loaded.model).hidden_size)


def _tokens_by_segment(sequences: Sequence[Sequenced], segments: int) -> NDArray[np.int64]:
    counts = np.zeros(segments, dtype=np.int64)
    for sequence in sequences:
        counts[sequence.segment] += len(sequence) - 1
    return counts


def _head_norms(loaded: LoadedModel, square: Mapping[str, NDArray[np.float64]], *, heads: int) -> NDArray[np.float64]:
    """Root mean square norm of every head's output [L, H]; heads lie side by side in the output product's input."""
    rows = []
    for block in loaded.anatomy.blocks:
        energy = square[block.attention_product]
        if len(energy) % heads:
            raise ModelError(f"{block.attention_product} has {len(energy)} inputs, not a multiple of {heads} heads")
        rows.append(np.sqrt(energy.reshape(heads, -1).sum(axis=1)))
    return np.stack(rows)
