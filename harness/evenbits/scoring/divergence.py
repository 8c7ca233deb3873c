"""How far a changed model's predictions are from full precision, token by token.

Full precision is kept as its final hidden states, about a hundredth of its logits; the logits of both models are made
again tile by tile and reduced as they appear.

Shape legend: N tokens, D hidden, V vocabulary, S tokens of a tile, U vocabulary entries of a tile, R tokens of a strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evenbits.scoring.arithmetic import in_float64
from evenbits.scoring.head import AnyHead, AnyTile, Head, Prediction, Reduction, Tile, strips, token_tiles

__all__ = ["Divergence", "HiddenStates", "diverge", "diverge_each"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HiddenStates:
    """Full precision at every scored token of one language, segments one after the other.

    `hidden`: final hidden states, N x D, in the run's dtype. `head`: the full-precision head, a copy that patches do
    not reach. `prediction`: log-sum-exp, true-token logit and most likely token under full precision.
    `digest` tells which tokens they belong to.
    """

    hidden: torch.Tensor
    head: Head
    prediction: Prediction
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes of the hidden states, without the shared head."""
        return self.hidden.nbytes

    def __getitem__(self, places: torch.Tensor | slice) -> HiddenStates:
        return HiddenStates(
            hidden=self.hidden[places], head=self.head, prediction=self.prediction[places], digest=self.digest
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Divergence:
    """What a changed model gives to N tokens, beside full precision.

    `prediction`: the changed model's own. `kl`: KL(full || changed) in nats (float64). `top1_changed`: whether the most
    likely token differs. `delta_p`: p_changed - p_full of the true token (float64).
    """

    prediction: Prediction
    kl: torch.Tensor
    top1_changed: torch.Tensor
    delta_p: torch.Tensor


def diverge(head: AnyHead, hidden_ND: torch.Tensor, targets_N: torch.Tensor, full: HiddenStates) -> Divergence:
    """Compare one changed model (`head`, `hidden_ND`) with full precision on the same tokens (`full`)."""
    return diverge_each([(head, hidden_ND)], targets_N, full)[0]


def diverge_each(
    changed: Sequence[tuple[AnyHead, torch.Tensor]], targets_N: torch.Tensor, full: HiddenStates
) -> list[Divergence]:
    """Compare changed models, each its head and hidden states N x D, with full precision on the same tokens (`full`).

    KL(p || q) = sum_v p_v (log p_v - log q_v). With logits a of p and b of q this is
    sum_v p_v (a_v - b_v - c) + c - lse(a) + lse(b) for any c; lse(a) is known beforehand, so p needs no running
    maximum, and c = a - b at the true token keeps the terms small. float32 inside a tile, float64 between tiles.
    """
    rows = token_tiles(full.hidden)
    streams = [
        [_Stream(head, hidden_ND[row], targets_N[row], full[row]) for head, hidden_ND in changed] for row in rows
    ]
    heads = [head.tiles() for head, _ in changed]
    for full_tile, *tiles in zip(full.head.tiles(), *heads, strict=True):
        for row, beside in zip(rows, streams, strict=True):
            _add(full_tile, full[row], tiles, beside)
    return [_joined([beside[place] for beside in streams], full.prediction) for place in range(len(changed))]


def _add(full_tile: Tile, full: HiddenStates, tiles: Sequence[AnyTile], streams: Sequence[_Stream]) -> None:
    """Take in a tile of the vocabulary; the logits of full precision are made once, whatever they are held against."""
    lse_S = full.prediction.lse.float().to(full.hidden.device)
    logits = [strips(tile, stream.hidden_SD) for tile, stream in zip(tiles, streams, strict=True)]
    for (rows, full_RU), *each in zip(strips(full_tile, full.hidden), *logits, strict=True):
        p_RU = (full_RU - lse_S[rows, None]).exp_()
        for tile, stream, (_, changed_RU) in zip(tiles, streams, each, strict=True):
            stream.add(rows, tile, changed_RU, full_RU, p_RU)


def _joined(streams: Sequence[_Stream], was: Prediction) -> Divergence:
    changed = Prediction.joined([stream.reduction.result() for stream in streams])
    if was.top1 is None or changed.top1 is None:
        raise ValueError("full precision was scored without its most likely tokens")
    sum_N = torch.cat([stream.sum_S for stream in streams])
    shift_N = torch.cat([stream.shift_S for stream in streams])
    # Rounding can leave a KL of the order of -1e-7 where the true one is zero.
    kl_N = (sum_N + in_float64(shift_N) - was.lse + changed.lse).clamp_(min=0)
    return Divergence(
        prediction=changed,
        kl=kl_N,
        top1_changed=torch.ne(changed.top1, was.top1),
        delta_p=(-changed.nll).exp() - (-was.nll).exp(),
    )


class _Stream:
    """The running sums of a changed model's tile of tokens over the vocabulary."""

    def __init__(self, head: AnyHead, hidden_SD: torch.Tensor, targets_S: torch.Tensor, full: HiddenStates) -> None:
        self.hidden_SD = hidden_SD
        self.reduction = Reduction(targets_S, top1=True)
        self.shift_S = full.prediction.target.float().to(hidden_SD.device) - head.true_logit(hidden_SD, targets_S)
        self.sum_S = torch.zeros_like(full.prediction.lse)

    def add(
        self, rows: slice, tile: AnyTile, changed_RU: torch.Tensor, full_RU: torch.Tensor, p_RU: torch.Tensor
    ) -> None:
        """Add a strip of logits, which are overwritten, beside those of full precision and its probabilities."""
        terms_RU = (full_RU - changed_RU).sub_(self.shift_S[rows, None]).mul_(p_RU)
        self.sum_S[rows] += in_float64(terms_RU.sum(dim=1))
        self.reduction.add(rows, changed_RU, tile)
