"""Retention: which single weights stay in FP16 beside the quantized matrix.

Shapes: O outputs, I inputs, K kept weights. Indices are flat, row by row, into the O x I matrix. Scores are float32,
the largest is kept first; of equal scores the one with the lowest index (with scope `global`, of the earlier tensor)
wins, so that the choice does not depend on the sorting algorithm.

| criterion     | score of weight w_oi                         | from                                                  |
|---------------|----------------------------------------------|-------------------------------------------------------|
| magnitude     | abs(w)                                       | the weights                                           |
| activation    | abs(w) * rms(x_i)                            | Wanda, arXiv 2306.11695, read as what to keep         |
| sensitivity   | mean(g^2) * (w - Q(w))^2                     | SqueezeLLM, arXiv 2306.07629 (diagonal Fisher)        |
| superweight   | abs(w) * peak(x_i) * peak(y_o)               | Super Weight, arXiv 2411.07191                        |
| random        | uniform numbers, by seed and tensor name     | control                                               |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from evenbits.errors import NonFiniteError, SpecError
from evenbits.variants.quantization.importance import Importance
from evenbits.variants.quantization.spec import Keep

__all__ = ["GlobalChoice", "Importance", "largest", "random_scores", "retention_scores"]

SAMPLE_STRIDE = 61  # prime, so that the sample does not follow rows or groups
SMALL = 1 << 15


def retention_scores(
    w_OI: Tensor,
    keep: Keep,
    *,
    name: str,
    rounded: Callable[[], Tensor],
    importance: Importance | None,
    seed: int,
) -> Tensor:
    """Return the scores (O x I, float32) by which `keep` ranks the weights `w_OI` (float32) of the tensor `name`.

    `rounded` gives Q(w) on the whole grid, without retention; only sensitivity asks for it. `SpecError` where a
    measurement is missing or has another shape.
    """
    if keep.criterion == "magnitude":
        return w_OI.abs()
    if keep.criterion == "random":
        return random_scores(name, (w_OI.shape[0], w_OI.shape[1]), seed=seed).to(w_OI.device)
    if importance is None:
        raise SpecError(f"{keep} needs measurements of activations or gradients, and none were given")
    languages = keep.languages or None
    rows, columns = w_OI.shape
    if keep.criterion == "activation":
        rms = importance.input_rms(name, languages)
        return by_inputs(w_OI.abs(), _of_inputs(rms, w_OI, name, "input second moments"))
    if keep.criterion == "superweight":
        peak_I, peak_O = importance.peaks(name)
        peak_O = _checked(peak_O, (rows,), name, "output peaks").to(w_OI.device)
        return by_inputs(w_OI.abs(), _of_inputs(peak_I, w_OI, name, "input peaks")).mul_(peak_O[:, None])
    gradient_OI = _checked(importance.gradient_square(name, languages), (rows, columns), name, "squared gradients")
    return (w_OI - rounded()).square_().mul_(gradient_OI.to(w_OI.device))


def random_scores(name: str, shape_OI: tuple[int, int], *, seed: int) -> Tensor:
    """Return uniform scores that depend on `seed` and `name` only, not on the order in which tensors are visited."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    return torch.from_numpy(rng.random(shape_OI, dtype=np.float32))


def largest(scores: Tensor, count: int) -> Tensor:
    """Return the flat indices (int64, ascending) of exactly `count` largest scores; ties go to the lowest index."""
    flat = scores.reshape(-1)
    if bool(flat.isnan().any()):
        raise NonFiniteError("retention scores contain NaN: check the measurements they were made from")
    if count <= 0:
        return torch.empty(0, dtype=torch.int64, device=flat.device)
    if count >= len(flat):
        return torch.arange(len(flat), device=flat.device)
    places = _candidates(flat, count)
    among = flat if places is None else flat[places]
    threshold = _nth_largest(among, count)
    chosen = among > threshold
    # every score above the threshold, then the first ones equal to it
    ties = (among == threshold).nonzero().view(-1)[: count - int(chosen.sum())]
    chosen[ties] = True
    picked = chosen.nonzero().view(-1)
    return picked if places is None else places[picked]


def _candidates(flat: Tensor, count: int) -> Tensor | None:
    """Return ascending indices that certainly contain the `count` largest and all their ties, or None for all.

    A sample gives a bound below which nothing is looked at again; if fewer than `count` scores reach it, it was no
    bound, and everything is looked at. The result never depends on the sample.
    """
    if len(flat) < SMALL or count * 8 > len(flat):
        return None
    sample = flat[::SAMPLE_STRIDE]
    rank = min(len(sample), 2 * count // SAMPLE_STRIDE + 16)
    bound = _nth_largest(sample, rank)
    places = (flat >= bound).nonzero().view(-1)
    return places if len(places) >= count else None


def _nth_largest(scores: Tensor, rank: int) -> Tensor:
    if scores.device.type == "cpu":
        return torch.kthvalue(scores, len(scores) - rank + 1).values
    return torch.topk(scores, rank).values[-1]  # CUDA's kthvalue is slow and promises no order


class GlobalChoice:
    """The `count` largest scores of many tensors, offered one after the other; memory grows with `count` only."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._offset = 0
        self._starts: dict[str, tuple[int, int]] = {}
        self._scores = torch.empty(0)
        self._places = torch.empty(0, dtype=torch.int64)

    def offer(self, name: str, scores: Tensor) -> None:
        """Add the scores of the tensor `name`."""
        flat = scores.reshape(-1)
        here = self._worth_adding(flat)
        pool = torch.cat([self._scores.to(flat.device), flat[here]])
        places = torch.cat([self._places.to(flat.device), here + self._offset])
        best = largest(pool, min(self._count, len(pool)))  # ascending, so earlier tensors win ties
        self._scores, self._places = pool[best], places[best]
        self._starts[name] = (self._offset, self._offset + len(flat))
        self._offset += len(flat)

    def _worth_adding(self, flat: Tensor) -> Tensor:
        """Return the ascending places of `flat` that may still be among the largest."""
        if len(self._scores) < self._count:
            return largest(flat, min(self._count, len(flat)))
        if self._count == 0 or bool(flat.isnan().any()):
            return largest(flat, 0)
        above = (
            (flat > self._scores.min().to(flat.device)).nonzero().view(-1)
        )  # an equal score loses to the earlier tensor
        return above[largest(flat[above], self._count)]

    def kept(self, name: str) -> Tensor:
        """Return the flat indices (int64, ascending) chosen in the tensor `name`, after all were offered."""
        start, end = self._starts[name]
        bounds = torch.tensor([start, end], device=self._places.device)
        low, high = torch.searchsorted(self._places, bounds).tolist()
        return self._places[low:high] - start


def by_inputs(w_OI: Tensor, values: Tensor) -> Tensor:
    """Return `w_OI` after it was multiplied by the `values` of its inputs: [I], or [E, I] of E experts' rows."""
    w_OI.view(len(values) if values.dim() == 2 else 1, -1, w_OI.shape[1]).mul_(values.unsqueeze(-2))
    return w_OI


def _of_inputs(values: Tensor, w_OI: Tensor, name: str, what: str) -> Tensor:
    """Return the values of inputs, [I] or of each expert [E, I], where the weights are."""
    rows, columns = w_OI.shape
    experts = values.dim() == 2 and rows % len(values) == 0
    return _checked(values, (len(values), columns) if experts else (columns,), name, what).to(w_OI.device)


def _checked(array: Tensor, shape: tuple[int, ...], name: str, what: str) -> Tensor:
    if tuple(array.shape) != shape:
        raise SpecError(f"{name}: the {what} have shape {tuple(array.shape)}, the weights need {shape}")
    return array
