"""Second moments of hidden states, layer by layer, reduced to what describes how distributed they are.

Shapes: h_ND hidden states of N text tokens; moments [D, D]. Streams wider than `WIDEST` are projected to `PROJECTED`
dimensions by a seeded Gaussian matrix. Even and odd segments are summed apart, so that a prediction fitted on one half
can be judged on the other. The matrices live while one language is measured; what is kept of them is per layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.observe.activations.features import half_prediction, participation_of_tokens
from evenbits.scoring.arithmetic import home_of_sums, in_float64

__all__ = ["PROJECTED", "WIDEST", "LayerStates", "StateSums", "projection"]

Float64 = NDArray[np.float64]

WIDEST = 1024
PROJECTED = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStates:
    """What is kept of the moments, float64.

    `participation` [L]: participation ratio of the hidden states after every layer, 1 to D. `half_prediction` [K]:
    after the judged layers, the share of the variance of one random half of the channels that a linear map from the
    other half explains on held-out segments; None without at least two tokens in each half of the segments.
    """

    participation: Float64
    half_prediction: Float64 | None


def projection(width: int, *, rng: np.random.Generator) -> torch.Tensor | None:
    """Return a Gaussian matrix [width, PROJECTED] with unit-length rows in expectation; None for narrow streams."""
    if width <= WIDEST:
        return None
    matrix = rng.standard_normal((width, PROJECTED)) / np.sqrt(PROJECTED)
    return torch.from_numpy(matrix.astype(np.float32))


class StateSums:
    """Sums over text tokens, in float64: for every layer, and over even segments alone for the `judged` layers."""

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        judged: tuple[int, ...],
        project: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self.project = None if project is None else project.to(device)
        self.home = home_of_sums(device)
        zeros = partial(torch.zeros, dtype=torch.float64, device=self.home)
        self.judged = judged
        d = width if project is None else int(project.shape[1])
        self.second = zeros(layers, d, d)
        self.first = zeros(layers, d)
        self.skewed = zeros(layers, d)  # sum of |h|^2 h
        self.fourth = zeros(layers)  # sum of |h|^4
        self.even_second = zeros(len(judged), d, d)
        self.even_first = zeros(len(judged), d)
        self.tokens = self.even_tokens = 0

    def count(self, tokens: int, even: int) -> None:
        """Count a batch's text tokens, and those of even segments."""
        self.tokens += tokens
        self.even_tokens += even

    def add(self, layer: int, h_ND: torch.Tensor, even: torch.Tensor) -> None:
        """Add hidden states (float32) of `layer`; `even` are the rows of even segments."""
        h = h_ND if self.project is None else h_ND @ self.project
        norms = torch.einsum("nd,nd->n", h, h)
        weights = torch.stack([torch.ones_like(norms), norms])
        first, skewed = (weights @ h).to(self.home)
        self.fourth[layer] += in_float64(norms).square().sum()
        self.first[layer] += first
        self.skewed[layer] += skewed
        self.second[layer] += (h.T @ h).to(self.home)
        if layer in self.judged:
            x = h.index_select(0, even)
            self.even_second[self.judged.index(layer)] += (x.T @ x).to(self.home)
            self.even_first[self.judged.index(layer)] += x.sum(0).to(self.home)

    def finish(self, *, rng: np.random.Generator) -> LayerStates:
        """Reduce the sums of every layer. `rng` draws the halves of the channels."""
        for name in ("second", "first", "skewed", "fourth", "even_second", "even_first"):
            setattr(self, name, getattr(self, name).cpu())
        second, first = self.second.numpy(), self.first.numpy()
        projected = None if self.project is None else second.shape[-1]
        participation = [
            participation_of_tokens(
                second[layer],
                first[layer],
                self.skewed[layer].numpy(),
                float(self.fourth[layer]),
                tokens=self.tokens,
                projected=projected,
            )
            for layer in range(len(second))
        ]
        return LayerStates(participation=np.array(participation), half_prediction=self._half_prediction(rng))

    def _half_prediction(self, rng: np.random.Generator) -> Float64 | None:
        odd_tokens = self.tokens - self.even_tokens
        if min(self.even_tokens, odd_tokens) < 2:
            return None
        d = self.second.shape[-1]
        order = rng.permutation(d)
        predicted = []
        for place, layer in enumerate(self.judged):
            even = (self.even_second[place] / self.even_tokens, self.even_first[place] / self.even_tokens)
            odd = (
                (self.second[layer] - self.even_second[place]) / odd_tokens,
                (self.first[layer] - self.even_first[place]) / odd_tokens,
            )
            predicted.append(
                half_prediction(
                    (even[0].numpy(), even[1].numpy()),
                    (odd[0].numpy(), odd[1].numpy()),
                    (order[: d // 2], order[d // 2 :]),
                )
            )
        return np.array(predicted)
