"""Scoring with an engine that gives logits for windows of token ids: the same windows, sums and divergence as in torch.

Shape legend: N tokens of a window, V vocabulary, S tokens of a tile, U vocabulary entries of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import EngineError
from evenbits.records import Losses
from evenbits.scoring.batches import windows_of
from evenbits.scoring.divergence import HiddenStates, diverge
from evenbits.scoring.head import TILE_VOCABULARY, predict
from evenbits.scoring.likelihood import _digest, _Sheet

__all__ = ["GivesLogits", "score_logits"]


class GivesLogits(Protocol):
    """Anything that reads a window of token ids from an empty cache."""

    def logits(self, ids: Sequence[int], last: int) -> NDArray[np.float32]:
        """Return the logits after each of the `last` tokens of `ids`, shape (last, vocabulary)."""


def score_logits(
    engine: GivesLogits,
    language: str,
    segment_ids: Sequence[str],
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    *,
    prefix: int,
    context: int,
    reference: HiddenStates | None = None,
) -> Losses:
    """Score `texts`, whose token ids are `tokens`, in windows of at most `context` tokens after `prefix`.

    NLL in nats per whole segment (float64); log-sum-exp of the engine's float32 logits. With `reference` (full
    precision on the same tokens, from `scoring.score`) also KL, top-1 changes and squared probability differences.
    Raises `EngineError` where the engine's vocabulary is not the reference's, `NonFiniteError` for NaN or infinity.
    """
    windows = windows_of(tokens, prefix=prefix, context=context)
    if reference is not None and reference.digest != _digest(windows):
        raise ValueError(f"{language}: the full-precision hidden states belong to other text, tokens or context")
    sheet = _Sheet(tokens, divergence=reference is not None)
    with torch.inference_mode():
        for window in windows:
            rows_NV = torch.from_numpy(engine.logits(window.inputs, len(window.targets)))
            targets_N = torch.tensor(window.targets)
            places = slice(window.start, window.start + len(window.targets))
            at = np.arange(places.start, places.stop)
            head = GivenHead(size=rows_NV.shape[1])
            if reference is None:
                sheet.put(at, predict(head, rows_NV, targets_N))
                continue
            full = reference[places]
            if full.head.weight.shape[0] != head.size:
                raise EngineError(
                    f"the engine gives {head.size} logits, the original has {full.head.weight.shape[0]}: "
                    "their vocabularies differ, so there is no KL between them"
                )
            device = full.hidden.device
            sheet.put(at, diverge(head, rows_NV.to(device), targets_N.to(device), full))
    return sheet.losses(language, segment_ids, texts)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenTile:
    """Vocabulary entries `begin` to `end` of logits that exist already."""

    begin: int
    end: int

    def products(self, rows_SV: torch.Tensor) -> torch.Tensor:
        """Return this tile's entries, S x U."""
        return rows_SV[:, self.begin : self.end]

    def logits(self, products_RU: torch.Tensor) -> torch.Tensor:
        """Return a copy in float32 (reductions overwrite what they are given)."""
        return products_RU.to(torch.float32, copy=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenHead:
    """Stands where a head would: the "hidden states" it is given are logits already, of `size` entries."""

    size: int

    def tiles(self) -> Iterator[GivenTile]:
        """Yield tiles over the vocabulary, cut as a model's head is."""
        for begin in range(0, self.size, TILE_VOCABULARY):
            yield GivenTile(begin=begin, end=min(begin + TILE_VOCABULARY, self.size))

    def true_logit(self, rows_SV: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
        """Return the logit of each true token (float32)."""
        return rows_SV.gather(1, targets_S[:, None]).squeeze(1).float()
