"""Energy and peaks of the channels of activations, summed over text tokens.

Shapes: x_BTI activations of a batch, x_NI its text tokens, channel vectors [I].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.observe.activations.batches import Batch
from evenbits.scoring.arithmetic import home_of_sums, in_float64

__all__ = ["ChannelSums", "gathered", "largest_of"]


def gathered(x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the text tokens of a batch in float32, [N, channels]: a new tensor that may be overwritten."""
    rows = x.reshape(-1, x.shape[-1]).index_select(0, real.to(x.device))
    return rows.float() if rows.dtype != torch.float32 else rows


def largest_of(x_NI: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of every channel, [I]; down the columns, torch's own `aminmax` takes seven times."""
    return torch.maximum(x_NI.amax(dim=0), x_NI.amin(dim=0).neg_())


class ChannelSums:
    """Sum of squares (float64) and largest magnitude of every input channel, by module path; of experts, each its own.

    Modules that read the same tensor (q, k and v; gate and up) are measured once per batch.
    """

    def __init__(self) -> None:
        self.squares: dict[str, torch.Tensor] = {}
        self.peaks: dict[str, torch.Tensor] = {}
        self.routed: dict[str, torch.Tensor] = {}
        self._batch: Batch | None = None
        self._seen: torch.Tensor | None = None
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def start(self, batch: Batch) -> None:
        """Forget the last tensor seen: the activations that follow belong to `batch`."""
        self._batch, self._seen, self._last = batch, None, None

    def add(self, name: str, x: torch.Tensor) -> None:
        """Add the text tokens of `x` [..., I] to module `name`."""
        assert self._batch is not None  # noqa: S101 - start() comes first
        if self._last is None or x is not self._seen:
            square = gathered(x, self._batch.real).square_()
            # A product with ones sums down the columns several times faster than sum(0).
            total = in_float64((square.new_ones(1, len(square)) @ square)[0])
            self._seen, self._last = x, (total, square.amax(0))
        total, largest = self._last
        if name in self.squares:
            self.squares[name] += total
            self.peaks[name] = torch.maximum(self.peaks[name], largest)
        else:
            self.squares[name], self.peaks[name] = total.clone(), largest.clone()

    def add_expert(self, name: str, expert: int, x_NI: torch.Tensor, *, experts: int) -> None:
        """Add the text tokens that were sent to one of the `experts` whose product is `name`."""
        if name not in self.squares:
            zeros = partial(torch.zeros, dtype=torch.float64, device=home_of_sums(x_NI.device))
            self.squares[name], self.routed[name] = zeros(experts, x_NI.shape[1]), zeros(experts)
            self.peaks[name] = x_NI.new_zeros(experts, x_NI.shape[1], dtype=torch.float32)
        square = x_NI.float().square()
        self.squares[name][expert] += in_float64(square.sum(0))
        self.peaks[name][expert] = torch.maximum(self.peaks[name][expert], square.amax(0))
        self.routed[name][expert] += len(x_NI)

    def finish(self, tokens: int) -> tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]:
        """Return E[x_i^2] over `tokens` text tokens and max |x_i|, by module, float64 [I]; of experts [E, I].

        An expert's mean is over the tokens that were sent to it, and 0 where there were none.
        """
        counts = {name: count.clamp(min=1)[:, None] for name, count in self.routed.items()}
        return (
            {name: (total / counts.get(name, tokens)).cpu().numpy() for name, total in self.squares.items()},
            {name: largest.sqrt().cpu().double().numpy() for name, largest in self.peaks.items()},
        )
