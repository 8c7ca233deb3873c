"""Another model in torch beside the original: scored on the same text, compared where the tokens are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evenbits.scoring import score
from evenbits.scoring.batches import context_limit, prefix_token, tokenize
from evenbits.variants.variant import SMALL_BATCH

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel
    from evenbits.records import Losses
    from evenbits.scoring import HiddenStates
    from evenbits.variants.tokens import OriginalTokens

__all__ = ["OtherModel"]


class OtherModel:
    """Scores `loaded`, whose modules may be a library's own; `original` says how the original cuts the text."""

    def __init__(self, loaded: LoadedModel, original: OriginalTokens, *, context: int) -> None:
        self.loaded, self._original, self._context = loaded, original, context
        # Another BOS in a copy's tokenizer would pass for damage, of tens of bits a segment.
        alike = original.spells_its_prefix(loaded.tokenizer)
        self._prefix = original.prefix if alike else prefix_token(loaded.tokenizer, loaded.local.text)

    @property
    def arithmetic(self) -> str:
        """The dtype that it was loaded in, and the device; products are the library's own."""
        return f"{str(self.loaded.dtype).removeprefix('torch.')} on {self.loaded.model.device.type}"

    def score(
        self,
        language: str,
        segment_ids: Sequence[str],
        texts: Sequence[str],
        *,
        reference: HiddenStates | None = None,
        keep_hidden: bool = False,
        small_batches: bool = False,
    ) -> tuple[Losses, HiddenStates | None]:
        """Return the losses; without divergence, and the reason why, where tokens, windows or vocabulary differ."""
        reason = None if reference is None else self._difference(language, segment_ids, texts, reference)
        losses, hidden = score(
            self.loaded,
            language,
            segment_ids,
            texts,
            context=self._context,
            reference=None if reason else reference,
            keep_hidden=keep_hidden,
            batch_tokens=SMALL_BATCH if small_batches else None,
            lean=False,  # the lean forward multiplies with plain weights
            prefix=self._prefix,
        )
        return losses.without_divergence(reason) if reason else losses, hidden

    def _difference(
        self, language: str, segment_ids: Sequence[str], texts: Sequence[str], reference: HiddenStates
    ) -> str | None:
        loaded = self.loaded
        tokens = tokenize(loaded.tokenizer, texts, segment_ids, language)
        reason = self._original.difference(language, segment_ids, texts, tokens, prefix=self._prefix)
        if reason is not None:
            return reason
        limit = context_limit(loaded.model.config.get_text_config(), self._context)
        longest = max(len(ids) for ids in tokens)
        if limit != self._original.context and longest > min(limit, self._original.context):
            return f"no KL: its windows hold {limit} tokens, the original's {self._original.context}"
        model: Any = loaded.model
        rows = int(model.get_output_embeddings().weight.shape[0])
        known = int(reference.head.weight.shape[0])
        return None if rows == known else f"no KL: it has {rows} tokens, the original {known}"
