"""Scoring one language: negative log-likelihood per segment, and divergence from full precision where it is asked for.

The body runs on batches of a token budget; each batch's hidden states are reduced over the vocabulary at once, so the
logits of a whole batch never exist.

Shape legend: N scored tokens, D hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.models.layout import text_config
from evenbits.records import Losses
from evenbits.scoring import packed
from evenbits.scoring.batches import Window, batched, context_limit, length_limit, prefix_token, tokenize, windows_of
from evenbits.scoring.body import final_hidden, halved
from evenbits.scoring.divergence import Divergence, HiddenStates, diverge
from evenbits.scoring.head import Head, Prediction, head_of, kept_head, predict

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel

__all__ = ["BATCH_TOKENS", "CONTEXT", "batch_tokens_for", "read_batches", "read_text", "score"]

CONTEXT = 1024
BATCH_TOKENS = 1024
"""About a thousand positions keep a layer's activations in cache; 8,192 took 1.7 times as long."""

DEVICE_TOKENS = 16384
"""Positions of a batch on a GPU: enough rows to fill it, and a layer's activations of an 8B model are below a GiB."""


def batch_tokens_for(device: torch.device) -> int:
    """Return how many positions a batch has on `device`."""
    return BATCH_TOKENS if device.type == "cpu" else DEVICE_TOKENS


def score(
    loaded: LoadedModel,
    language: str,
    segment_ids: Sequence[str],
    texts: Sequence[str],
    *,
    context: int = CONTEXT,
    batch_tokens: int | None = None,
    reference: HiddenStates | None = None,
    keep_hidden: bool = False,
    lean: bool = True,
    body: Callable[[Sequence[Window]], torch.Tensor] | None = None,
    prefix: int | None = None,
) -> tuple[Losses, HiddenStates | None]:
    """Score `texts` (one language's segments) with the model as it is now, patches included.

    NLL is in nats per whole segment (float64): all tokens without special tokens, after one prefix token (BOS, else
    EOS) that is not scored. A segment longer than `context` tokens (or the model's limit) is scored in the windows of
    lm-eval's rolling log-likelihood. Projection in the model's dtype, log-sum-exp in float32.

    `batch_tokens`: positions per batch, by default what suits the device. A batch that does not fit into the device's
    memory is halved until it does. `reference`: full precision on the same text, as an earlier call with
    `keep_hidden` returned it; the losses then carry KL, top-1 changes and squared probability differences.
    `lean=False`: always use the model's own forward (some wrappers and hooks need it; hooks on modules that the lean
    forward skips are noticed without it). `body`: what gives the final hidden states of a batch's scored positions,
    where that is not the model in memory (`evenbits.scoring.streamed`). `prefix`: the token of context, by default the
    tokenizer's own.

    Raises `CorpusError` for a segment without tokens, `ModelError` for a head that is not a linear layer,
    `NonFiniteError` (naming segment and language) where the model gives NaN or infinity, `DeviceError` where a single
    window is too much for the device's memory.
    """
    if len(segment_ids) != len(texts):
        raise ValueError(f"{language}: {len(segment_ids)} segment ids for {len(texts)} texts")
    model: Any = loaded.model
    tokens, windows = read_text(loaded, language, segment_ids, texts, context=context, prefix=prefix)
    digest = _digest(windows)
    if reference is not None and reference.digest != digest:
        raise ValueError(f"{language}: the full-precision hidden states belong to other text, tokens or context")
    pack = lean and packed.supports(model, context=context_limit(text_config(model), context))
    sheet = _Sheet(tokens, divergence=reference is not None)
    with torch.inference_mode():
        head = kept_head(loaded) if keep_hidden else head_of(loaded)
        keeper = _Keeper(head) if keep_hidden else None

        def reduced(batch: Sequence[Window]) -> tuple[torch.Tensor, Prediction | Divergence]:
            hidden_ND = final_hidden(model, batch, pack=pack) if body is None else body(batch)
            targets_N = torch.tensor([token for w in batch for token in w.targets], device=hidden_ND.device)
            if reference is None:
                return hidden_ND, predict(head, hidden_ND, targets_N, top1=keep_hidden)
            at_N = _places(batch).to(hidden_ND.device)
            return hidden_ND, diverge(head, hidden_ND, targets_N, reference[at_N])

        for whole in _batches(model, windows, batch_tokens, padded=not pack):
            for batch, (hidden_ND, scored) in halved(whole, reduced, device=model.device):
                places_N = _places(batch)
                sheet.put(places_N.numpy(), scored)
                if keeper is not None:
                    prediction = scored if isinstance(scored, Prediction) else scored.prediction
                    keeper.put(places_N.to(hidden_ND.device), hidden_ND, prediction)
        hidden = None if keeper is None else keeper.result(digest)
    return sheet.losses(language, segment_ids, texts), hidden


def read_text(
    loaded: LoadedModel,
    language: str,
    segment_ids: Sequence[str],
    texts: Sequence[str],
    *,
    context: int,
    prefix: int | None = None,
) -> tuple[list[list[int]], list[Window]]:
    """Return the tokens of each text, and the windows in which they are scored, each after `prefix` or BOS or EOS."""
    embedding: Any = loaded.model.get_input_embeddings()
    tokens = tokenize(loaded.tokenizer, texts, segment_ids, language, rows=len(embedding.weight))
    first = prefix_token(loaded.tokenizer, loaded.local.text) if prefix is None else prefix
    return tokens, windows_of(tokens, prefix=first, context=context_limit(text_config(loaded.model), context))


def read_batches(
    loaded: LoadedModel,
    language: str,
    segment_ids: Sequence[str],
    texts: Sequence[str],
    *,
    context: int,
    batch_tokens: int | None,
) -> list[list[Window]]:
    """Return the batches in which a text is scored."""
    _, windows = read_text(loaded, language, segment_ids, texts, context=context)
    pack = packed.supports(loaded.model, context=context_limit(text_config(loaded.model), context))
    return _batches(loaded.model, windows, batch_tokens, padded=not pack)


def _batches(model: Any, windows: Sequence[Window], tokens: int | None, *, padded: bool) -> list[list[Window]]:
    apart = length_limit(text_config(model))
    return list(batched(windows, tokens=tokens or batch_tokens_for(model.device), padded=padded, apart=apart))


def _places(batch: Sequence[Window]) -> torch.Tensor:
    """Return the places of a batch's targets among all scored tokens."""
    return torch.cat([torch.arange(window.start, window.start + len(window.targets)) for window in batch])


def _digest(windows: Sequence[Window]) -> str:
    """Return what identifies tokens and windows: hidden states fit only the text they were made from."""
    state = hashlib.sha256()
    for window in windows:
        numbers = [window.start, len(window.inputs), *window.inputs, len(window.targets), *window.targets]
        state.update(np.asarray(numbers, dtype=np.int64).tobytes())
    return state.hexdigest()


class _Sheet:
    """Per-token results in the order of the text, filled batch by batch."""

    def __init__(self, tokens: Sequence[Sequence[int]], *, divergence: bool) -> None:
        self.counts = np.asarray([len(ids) for ids in tokens], dtype=np.int64)
        size = int(self.counts.sum())
        self.nll_N = np.full(size, np.nan)
        self.kl_N = np.full(size, np.nan) if divergence else None
        self.top1_changed_N = np.zeros(size, dtype=np.int64) if divergence else None
        self.delta_p_N = np.full(size, np.nan) if divergence else None

    def put(self, places: NDArray[np.int64], scored: Prediction | Divergence) -> None:
        if isinstance(scored, Prediction):
            self.nll_N[places] = scored.nll.cpu().numpy()
            return
        self.nll_N[places] = scored.prediction.nll.cpu().numpy()
        for column, values in (
            (self.kl_N, scored.kl),
            (self.top1_changed_N, scored.top1_changed),
            (self.delta_p_N, scored.delta_p),
        ):
            if column is not None:
                column[places] = values.cpu().numpy()

    def losses(self, language: str, segment_ids: Sequence[str], texts: Sequence[str]) -> Losses:
        """Return the sums over each segment's tokens."""
        return Losses(
            language=language,
            segment_ids=tuple(segment_ids),
            nll=self._sums(self.nll_N),
            tokens=self.counts,
            utf8_bytes=np.asarray([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
            kl=None if self.kl_N is None else self._sums(self.kl_N),
            top1_changed=None if self.top1_changed_N is None else self._sums(self.top1_changed_N),
            delta_p=None if self.delta_p_N is None else self._sums(self.delta_p_N),
            square_delta_p=None if self.delta_p_N is None else self._sums(np.square(self.delta_p_N)),
            token_kl=None if self.kl_N is None else self.kl_N.astype(np.float32),
        )

    def _sums(self, values: NDArray[Any]) -> NDArray[Any]:
        if not len(self.counts):
            return values
        return np.add.reduceat(values, np.cumsum(self.counts) - self.counts)


class _Keeper:
    """Full precision gathered batch by batch into the order of the text."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.places: list[torch.Tensor] = []
        self.hidden: list[torch.Tensor] = []
        self.predictions: list[Prediction] = []

    def put(self, places_N: torch.Tensor, hidden_ND: torch.Tensor, prediction: Prediction) -> None:
        self.places.append(places_N)
        self.hidden.append(hidden_ND)
        self.predictions.append(prediction)

    def result(self, digest: str) -> HiddenStates:
        order = torch.cat(self.places).argsort()
        kept = HiddenStates(
            hidden=torch.cat(self.hidden), head=self.head, prediction=Prediction.joined(self.predictions), digest=digest
        )
        return kept[order]
