"""Texts become tokens, tokens become windows, windows become batches of about equal cost.

Shape legend: B windows of a batch, T positions of its longest window, N real positions of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

from evenbits.errors import CorpusError, ModelError, UsageError

__all__ = ["Window", "batched", "context_limit", "grouped", "length_limit", "prefix_token", "tokenize", "windows_of"]

Part = TypeVar("Part", bound=Sized)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One pass of the model over neighbouring tokens of a segment.

    `inputs`: token ids the model reads. `targets`: token ids it is scored on, predicted from the last
    `len(targets)` positions of `inputs`. `start`: place of the first target among all scored tokens, segments one
    after the other.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.targets) <= len(self.inputs):
            raise ValueError(f"a window of {len(self.inputs)} inputs cannot score {len(self.targets)} tokens")

    def __len__(self) -> int:
        return len(self.inputs)


def prefix_token(tokenizer: Any, model: str) -> int:
    """Return the id of the one token of context before a segment: BOS, else EOS. `ModelError` where both lack."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        f"{model}: the tokenizer has neither a BOS nor an EOS token, so the first token of a segment has no context. "
        "Set bos_token or eos_token in tokenizer_config.json."
    )


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    segment_ids: Sequence[str],
    language: str,
    *,
    rows: int | None = None,
) -> list[list[int]]:
    """Return the token ids of each text, without special tokens and never cut. `rows`: of the model's embedding.

    `CorpusError` names a segment that yields no token: nothing of it could be scored; and one with a special token
    that the model has no embedding for.
    """
    if not texts:
        return []
    tokens: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)[
        "input_ids"
    ]
    for segment_id, ids in zip(segment_ids, tokens, strict=True):
        if not ids:
            raise CorpusError(
                f"segment {segment_id} in {language} has no token under this model's tokenizer; leave it out"
            )
        if rows is not None and (last := max(ids)) >= rows:
            raise CorpusError(
                f"segment {segment_id} in {language} holds the token {tokenizer.convert_ids_to_tokens(last)}, number "
                f"{last}, but the model embeds only {rows}; leave the segment out"
            )
    return tokens


def context_limit(config: Any, context: int) -> int:
    """Return the largest window in tokens: `context`, or the model's own limit where that is smaller."""
    if context < 1:
        raise UsageError(f"context must be at least 1 token, got {context}")
    limit = getattr(config, "max_position_embeddings", None)  # None: BLOOM's ALiBi has no table of positions
    return context if limit is None else min(context, int(limit))


def length_limit(config: Any) -> int | None:
    """Return the number of positions beyond which a model turns to other rotary tables, None where it never does.

    transformers chooses the tables of LongRoPE by the longest row of a batch, so windows on either side of this limit
    must not be read together: a text's score would depend on what it is read beside.
    """
    ropes = getattr(config, "rope_parameters", None) or {}
    kinds = [
        ropes,
        *(rope for rope in ropes.values() if isinstance(rope, dict)),
    ]  # one for all layers, or by their type
    limits = [int(rope["original_max_position_embeddings"]) for rope in kinds if rope.get("rope_type") == "longrope"]
    return min(limits, default=None)


def windows_of(tokens: Sequence[Sequence[int]], *, prefix: int, context: int) -> list[Window]:
    """Return the windows that score every token of every segment once.

    A segment of at most `context` tokens is one window: the prefix token, then the segment. A longer one is cut into
    disjoint runs of `context` tokens, each read after one token of context; the last run is filled up to `context`
    inputs with the tokens before it. These are the windows of lm-eval's rolling log-likelihood
    (`lm_eval.utils.get_rolling_token_windows`, `context_len=1`).
    """
    windows: list[Window] = []
    scored = 0
    for ids in tokens:
        text = [prefix, *ids]  # text[i] is what ids[i] is predicted from
        for start in range(0, len(ids), context):
            end = min(start + context, len(ids))
            first = max(0, end - context) if start else 0
            windows.append(Window(inputs=tuple(text[first:end]), targets=tuple(ids[start:end]), start=scored + start))
        scored += len(ids)
    return windows


def batched(
    windows: Sequence[Window], *, tokens: int, padded: bool, apart: int | None = None
) -> Iterator[list[Window]]:
    """Yield the windows in batches of at most `tokens` positions, longest first; ties keep their order.

    `padded` counts a batch as its longest window times their number, else as the sum of lengths. A window longer than
    the budget is a batch of its own, and windows longer than `apart` (see `length_limit`) are never together with
    others. The same windows always give the same batches, in any order of segments of different length.
    """
    if tokens < 1:
        raise UsageError(f"batch_tokens must be at least 1, got {tokens}")
    ordered = sorted(windows, key=lambda window: (-len(window), window.inputs))
    yield from grouped(ordered, tokens=tokens, padded=padded, apart=apart)


def grouped(ordered: Iterable[Part], *, tokens: int, padded: bool, apart: int | None = None) -> Iterator[list[Part]]:
    """Yield what comes longest first in groups as `batched` has them."""
    batch: list[Part] = []
    used = 0
    for one in ordered:
        cost = len(batch[0]) if padded and batch else len(one)
        crossed = apart is not None and bool(batch) and len(batch[0]) > apart >= len(one)
        if batch and (crossed or used + cost > tokens):
            yield batch
            batch, used, cost = [], 0, len(one)
        batch.append(one)
        used += cost
    if batch:
        yield batch
