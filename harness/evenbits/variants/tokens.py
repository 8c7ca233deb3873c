"""The original's way to cut text into tokens and windows, beside that of an artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from evenbits.models.loading import tokenizer_of
from evenbits.scoring.batches import context_limit, prefix_token, tokenize
from evenbits.variants.variant import Original

__all__ = ["OriginalTokens"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginalTokens:
    """`tokenizer`: transformers' of the original. `prefix`: the token before a segment. `context`: of a window."""

    tokenizer: Any
    prefix: int
    context: int

    @classmethod
    def of(cls, original: Original) -> Self:
        from transformers import AutoConfig

        local = original.local
        config = AutoConfig.from_pretrained(local.folder, local_files_only=True, trust_remote_code=local.allow_code)
        tokenizer = tokenizer_of(local)
        return cls(
            tokenizer=tokenizer,
            prefix=prefix_token(tokenizer, local.text),
            context=context_limit(config.get_text_config(), original.context),
        )

    def tokens(self, language: str, segment_ids: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
        """Return the original's tokens of each text, without special tokens."""
        return tokenize(self.tokenizer, texts, segment_ids, language)

    def spells_its_prefix(self, tokenizer: Any) -> bool:
        """Return whether another tokenizer of transformers' means the same token by the id of the prefix."""
        return bool(tokenizer.convert_ids_to_tokens(self.prefix) == self.tokenizer.convert_ids_to_tokens(self.prefix))

    def difference(
        self,
        language: str,
        segment_ids: Sequence[str],
        texts: Sequence[str],
        theirs: Sequence[Sequence[int]],
        *,
        prefix: int,
    ) -> str | None:
        """Return why there can be no KL on these texts: a sentence naming what is cut otherwise; None where nothing is.

        `theirs`: an artefact's tokens of the same texts, after its token `prefix`.
        """
        if prefix != self.prefix:
            return f"no KL: its text begins with token {prefix}, the original's with {self.prefix}"
        ours = self.tokens(language, segment_ids, texts)
        pairs = zip(segment_ids, ours, theirs, strict=True)
        other = [name for name, one, two in pairs if list(one) != list(two)]
        if not other:
            return None
        return f"no KL: {len(other)} of {len(texts)} segments in {language} have other tokens, the first is {other[0]}"
