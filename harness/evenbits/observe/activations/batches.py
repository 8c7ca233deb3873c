"""Texts as batches of token ids for measuring activations.

Shapes: B sequences of a batch, T positions of the longest, N real positions (neither prefix nor padding).

Every sequence starts with one prefix token (BOS, else EOS), as in scoring. The prefix position is kept out of the
statistics: in many models it is an attention sink with activations thousands of times larger than those of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from evenbits.errors import CorpusError, ModelError
from evenbits.models.layout import text_config
from evenbits.models.records import LoadedModel
from evenbits.scoring.batches import context_limit, grouped, length_limit, prefix_token, tokenize

__all__ = ["Batch", "Sequenced", "batches_of", "sequences_of"]

CONTEXT = 1024
BATCH_TOKENS = 1024
DEVICE_TOKENS = 4096
"""Positions of a batch on a CPU, and on a GPU: of each, a layer's products are held in float32 beside the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequenced:
    """One sequence the model reads: the prefix token, then neighbouring tokens of segment number `segment`."""

    segment: int
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Sequences as `ids` [B, T], padded on the right, where padding cannot reach the tokens of a causal model.

    `packed`: [1, T] instead, one sequence behind the other, for a forward that keeps them apart. `real` [N]: flat
    positions of text tokens in `ids`. `segments` [N]: the segment each belongs to. `windows`: the token ids of each
    sequence, `starts`: where it begins in `ids`, flat.
    """

    ids: torch.Tensor
    real: torch.Tensor
    segments: torch.Tensor
    starts: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...]
    packed: bool

    @property
    def read(self) -> torch.Tensor:
        """Flat positions of everything but padding."""
        spans = zip(self.starts, self.windows, strict=True)
        return torch.cat([torch.arange(start, start + len(ids)) for start, ids in spans]).to(self.ids.device)


def sequences_of(loaded: LoadedModel, texts: Sequence[str], *, language: str) -> list[Sequenced]:
    """Return the sequences of all segments; one longer than the context is cut into disjoint runs, never shortened.

    The model's own limit is kept where it is smaller than `CONTEXT`. `CorpusError` names a segment without tokens,
    `ModelError` a tokenizer without BOS and EOS.
    """
    if not texts:
        raise CorpusError(f"no segments in {language}: activations cannot be measured there.")
    prefix = prefix_token(loaded.tokenizer, loaded.local.text)
    run = context_limit(text_config(loaded.model), CONTEXT) - 1
    if run < 1:
        raise ModelError("the model's context has no room for a token beside the prefix token")
    tokens = tokenize(loaded.tokenizer, texts, [str(number) for number in range(len(texts))], language)
    return [
        Sequenced(segment=segment, ids=(prefix, *ids[start : start + run]))
        for segment, ids in enumerate(tokens)
        for start in range(0, len(ids), run)
    ]


def batches_of(
    loaded: LoadedModel, sequences: Sequence[Sequenced], *, tokens: int | None = None, packed: bool = False
) -> Iterator[Batch]:
    """Yield the sequences, longest first, in batches of at most `tokens` positions with padding (one at least).

    `tokens`: by default what suits the device. `packed`: without padding, see `evenbits.observe.activations.hooks`.
    Batches lie where the model reads them. Sequences on either side of its `length_limit` are never together.
    """
    device = loaded.model.device
    most = tokens or (BATCH_TOKENS if device.type == "cpu" else DEVICE_TOKENS)
    apart = length_limit(text_config(loaded.model))
    ordered = sorted(sequences, key=lambda s: (-len(s), s.segment, s.ids))
    for held in grouped(ordered, tokens=most, padded=not packed, apart=apart):
        yield _batch(held, device, packed=packed)


def _batch(held: Sequence[Sequenced], device: torch.device, *, packed: bool) -> Batch:
    windows = tuple(sequence.ids for sequence in held)
    ends = tuple(itertools.accumulate(map(len, windows)))
    shape = (1, ends[-1]) if packed else (len(windows), len(windows[0]))
    starts = (0, *ends[:-1]) if packed else tuple(row * shape[1] for row in range(len(windows)))
    ids = torch.zeros(shape, dtype=torch.long)
    real, segments = [], []
    for start, sequence in zip(starts, held, strict=True):
        ids.view(-1)[start : start + len(sequence)] = torch.tensor(sequence.ids)
        real.append(torch.arange(start + 1, start + len(sequence)))
        segments.append(torch.full((len(sequence) - 1,), sequence.segment))
    return Batch(
        ids=ids.to(device),
        real=torch.cat(real).to(device),
        segments=torch.cat(segments).to(device),
        starts=starts,
        windows=windows,
        packed=packed,
    )
