"""Scoring one language of a corpus with a loaded model, and what the store keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evenbits.records import Corpus, Losses
from evenbits.store import Entry

if TYPE_CHECKING:
    from evenbits.models import LoadedModel
    from evenbits.scoring import HiddenStates

__all__ = ["pack", "run", "unpack"]

SMALL_BATCH = 128
"""Tokens per batch of the other batch composition that the noise floor is measured against."""


def run(
    loaded: LoadedModel,
    corpus: Corpus,
    tag: str,
    *,
    context: int,
    reference: HiddenStates | None = None,
    keep_hidden: bool = False,
    small_batches: bool = False,
) -> tuple[Losses, HiddenStates | None]:
    """Return the scores of language `tag`, and the final hidden states where they are to be kept."""
    from evenbits.scoring import BATCH_TOKENS, score

    return score(
        loaded,
        tag,
        corpus.segment_ids,
        corpus.texts[tag],
        context=context,
        reference=reference,
        keep_hidden=keep_hidden,
        batch_tokens=SMALL_BATCH if small_batches else BATCH_TOKENS,
    )


def pack(losses: Losses) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Return (arrays, meta) for the store."""
    return dict(losses.arrays()), {}


def unpack(tag: str, corpus: Corpus, entry: Entry) -> Losses:
    """Return the scores of language `tag` from a stored entry."""
    return Losses(language=tag, segment_ids=corpus.segment_ids, **entry.arrays)
