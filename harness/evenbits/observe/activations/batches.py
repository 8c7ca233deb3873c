"""Texts as batches of token ids for measuring activations.

Shapes: B sequences of a batch, T positions of the longest, N real positions (neither prefix nor padding).

Every sequence starts with one prefix token (BOS, else EOS), as in scoring. The prefix position is kept out of the
statistics: in many models it is an attention sink with activations thousands of times larger than those of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from evenbits.errors import CorpusError, ModelError

__all__ = ["Batch", "Sequenced", "batches_of", "sequences_of"]

CONTEXT = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequenced:
    """One sequence the model reads: the prefix token, then neighbouring tokens of segment number `segment`."""

    segment: int
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`ids` [B, T], padded on the right, where padding cannot reach the tokens of a causal model.

    `real` [N]: flat positions of text tokens in [B * T]. `segments` [N]: the segment each belongs to.
    """

    ids: torch.Tensor
    real: torch.Tensor
    segments: torch.Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """Return the batch where a model can read it."""
        return replace(self, ids=self.ids.to(device), real=self.real.to(device), segments=self.segments.to(device))


def sequences_of(
    tokenizer: Any,
    config: Any,
    texts: Sequence[str],
    *,
    language: str,
    context: int = CONTEXT,
) -> list[Sequenced]:
    """Return the sequences of all segments; one longer than the context is cut into disjoint runs, never shortened.

    `context` counts the prefix token; the model's own limit is kept where it is smaller. `CorpusError` names a segment
    without tokens, `ModelError` a tokenizer without BOS and EOS.
    """
    prefix = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None)
    if prefix is None:
        raise ModelError(
            "the tokenizer has neither a BOS nor an EOS token, so a segment has no prefix token. Set bos_token or "
            "eos_token in tokenizer_config.json."
        )
    if not texts:
        raise CorpusError(f"no segments in {language}: activations cannot be measured there.")
    limit = getattr(config, "max_position_embeddings", None)  # None: BLOOM's ALiBi has no table of positions
    run = (context if limit is None else min(context, int(limit))) - 1
    if run < 1:
        raise ModelError("the model's context has no room for a token beside the prefix token")
    tokens = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    sequences: list[Sequenced] = []
    for segment, ids in enumerate(tokens):
        if not ids:
            raise CorpusError(f"segment {segment} in {language} has no token under this tokenizer; leave it out")
        runs = (ids[start : start + run] for start in range(0, len(ids), run))
        sequences += [Sequenced(segment=segment, ids=(int(prefix), *tokens_of_run)) for tokens_of_run in runs]
    return sequences


def batches_of(sequences: Sequence[Sequenced], *, tokens: int, apart: int | None = None) -> Iterator[Batch]:
    """Yield the sequences, longest first, in batches of at most `tokens` positions with padding (one at least).

    Sequences longer than `apart` are never together with others, see `evenbits.scoring.batches.length_limit`.
    """
    held: list[Sequenced] = []
    for sequence in sorted(sequences, key=lambda s: (-len(s), s.segment, s.ids)):
        crossed = apart is not None and bool(held) and len(held[0]) > apart >= len(sequence)
        if held and (crossed or (len(held) + 1) * len(held[0]) > tokens):
            yield _batch(held)
            held = []
        held.append(sequence)
    if held:
        yield _batch(held)


def _batch(held: Sequence[Sequenced]) -> Batch:
    longest = len(held[0])
    ids = torch.zeros(len(held), longest, dtype=torch.long)
    real, segments = [], []
    for row, sequence in enumerate(held):
        ids[row, : len(sequence)] = torch.tensor(sequence.ids)
        real.append(torch.arange(row * longest + 1, row * longest + len(sequence)))
        segments.append(torch.full((len(sequence) - 1,), sequence.segment))
    return Batch(
        ids=ids, real=torch.cat(real), segments=torch.cat(segments), lengths=tuple(len(sequence) for sequence in held)
    )
