"""Frozen records passed between stages. Plain Python and numpy: no torch, no pytest.

Texts become a `Corpus`; a model scored on a corpus gives `Losses` per language; full-precision and quantized losses
give `DamageRow`s, collected in a `Damage`; a checkpoint's tensors give `TensorStatistics`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import CorpusError, NonFiniteError
from evenbits.numbers import counted
from evenbits.rows import Row

__all__ = ["Corpus", "LeftOut", "Losses", "SealedText", "digest_of", "text_digest"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def digest_of(value: Any) -> str:
    """Return the SHA-256 of `value` written as canonical JSON (sorted keys, UTF-8, no blanks); 64 hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class SealedText(str):
    """The SHA-256 of a segment in its place: enough to find what was measured on it, and not its words."""

    __slots__ = ()


def text_digest(texts: Sequence[str], *, ids: Sequence[str] = ()) -> str:
    """Return what identifies segments, and their ids where given: equal for texts and for their sealed forms."""
    return _digest_of_texts(tuple(texts), tuple(ids), sum(isinstance(text, SealedText) for text in texts))


@lru_cache(maxsize=4096)
def _digest_of_texts(texts: tuple[str, ...], ids: tuple[str, ...], _sealed_texts: int) -> str:
    """The same, kept: a run asks often, and for few texts. A sealed text equals one that reads as its digest."""
    return digest_of([list(ids), [_sealed(text) for text in texts]])


def _sealed(text: str) -> str:
    return text if isinstance(text, SealedText) else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut(Row):
    """Something that did not enter the measurement, counted: nothing is dropped in silence.

    `what`: segment, language, candidate; `language`: the tag it concerns or None; `reason`: a few words.
    """

    what: str
    language: str | None
    count: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Aligned text: `texts[language][i]` says what `segment_ids[i]` says, in that language.

    `languages` are normalised BCP-47 tags, sorted; `source` names where the text came from in a line;
    `part` is `all`, `probe` or `evaluation`; `left_out` counts what was not used and why. `documents`: the document
    that each segment comes from, empty where every segment stands alone: segments of one document are no independent
    ones.
    """

    name: str
    source: str
    part: str = "all"
    languages: tuple[str, ...]
    segment_ids: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...] = ()
    documents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.documents) not in {0, len(self.segment_ids)}:
            raise CorpusError(f"{self.name}: {len(self.documents)} documents for {len(self.segment_ids)} segments")
        if tuple(sorted(set(self.languages))) != self.languages:
            raise CorpusError(f"{self.name}: languages must be unique and sorted")
        if len(set(self.segment_ids)) != len(self.segment_ids):
            raise CorpusError(f"{self.name}: segment ids must be unique")
        if set(self.texts) != set(self.languages):
            raise CorpusError(f"{self.name}: texts and languages differ")
        for language in self.languages:
            texts = self.texts[language]
            if len(texts) != len(self.segment_ids):
                raise CorpusError(
                    f"{self.name}: {language} has {len(texts)} segments, the others {len(self.segment_ids)}"
                )
            for segment_id, text in zip(self.segment_ids, texts, strict=True):
                if not text.strip():
                    raise CorpusError(f"{self.name}: segment {segment_id} is empty in {language}")

    def __len__(self) -> int:
        return len(self.segment_ids)

    def __repr__(self) -> str:
        text = f"{counted(len(self.languages), 'language')}, {counted(len(self), 'segment')} each"
        return f"Corpus({self.name!r}, {text}, part={self.part!r})"

    @property
    def digest(self) -> str:
        """SHA-256 over the aligned texts, without names: equal text gives equal measurements."""
        return digest_of({tag: text_digest(self.texts[tag], ids=self.segment_ids) for tag in self.languages})

    def sealed(self) -> Corpus:
        """Return the corpus without its words: measured before, it is found in the store; scored it cannot be."""
        texts = {tag: tuple(SealedText(_sealed(text)) for text in self.texts[tag]) for tag in self.languages}
        return replace(self, texts=texts)

    def utf8_bytes(self, language: str) -> int:
        """UTF-8 bytes of all segments of `language`."""
        return sum(len(text.encode("utf-8")) for text in self.texts[language])

    def select(
        self,
        *,
        languages: tuple[str, ...] | None = None,
        indices: tuple[int, ...] | None = None,
        part: str | None = None,
        left_out: tuple[LeftOut, ...] = (),
    ) -> Corpus:
        """Return the corpus restricted to `languages` and to the segments at `indices`, in that order."""
        chosen = self.languages if languages is None else tuple(sorted(languages))
        missing = [tag for tag in chosen if tag not in self.texts]
        if missing:
            raise CorpusError(f"{self.name} has no text in {', '.join(missing)}; it has {', '.join(self.languages)}")
        places = tuple(range(len(self))) if indices is None else indices
        return Corpus(
            name=self.name,
            source=self.source,
            part=self.part if part is None else part,
            languages=chosen,
            segment_ids=tuple(self.segment_ids[i] for i in places),
            texts={tag: tuple(self.texts[tag][i] for i in places) for tag in chosen},
            left_out=self.left_out + left_out,
            documents=tuple(self.documents[i] for i in places) if self.documents else (),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Scores of one language's segments under one model. Arrays are aligned with `segment_ids`.

    `nll`: nats per whole segment (float64). `tokens`: scored tokens per segment. `utf8_bytes`: bytes per segment.
    Against full precision (None for the full-precision scores themselves):
    `kl`: sum over the segment's tokens of KL(full || this) in nats. `top1_changed`: tokens whose most likely next
    token differs. `token_kl`: KL of every token, nats, segments one after the other (float32).
    `delta_p`, `square_delta_p`: sums over tokens of p_this - p_full of the true token, and of its square.
    `no_divergence`: why these are missing where they were asked for.
    """

    language: str
    segment_ids: tuple[str, ...]
    nll: FloatArray
    tokens: IntArray
    utf8_bytes: IntArray
    kl: FloatArray | None = None
    top1_changed: IntArray | None = None
    delta_p: FloatArray | None = None
    square_delta_p: FloatArray | None = None
    token_kl: NDArray[np.float32] | None = None
    no_divergence: str | None = None

    ARRAYS = ("nll", "tokens", "utf8_bytes", "kl", "top1_changed", "delta_p", "square_delta_p", "token_kl")

    def __post_init__(self) -> None:
        n = len(self.segment_ids)
        for name in self.ARRAYS:
            array = getattr(self, name)
            if array is None:
                continue
            if name != "token_kl" and array.shape != (n,):
                raise ValueError(f"{self.language}: {name} has shape {array.shape}, expected ({n},)")
            if not np.isfinite(array).all():
                bad = int(np.flatnonzero(~np.isfinite(array))[0])
                where = self.segment_ids[bad] if name != "token_kl" else f"token {bad}"
                raise NonFiniteError(
                    f"{name} is {array[bad]} at segment {where} in {self.language}: the model gives no probability "
                    "there. Check the checkpoint for NaN or overflow, or run with --dtype float32."
                )
            array.setflags(write=False)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield (name, array) of the arrays that are present."""
        for name in self.ARRAYS:
            array = getattr(self, name)
            if array is not None:
                yield name, array

    @classmethod
    def join(cls, parts: Sequence[Losses]) -> Losses:
        """Return the scores of several parts of a language's text, one after the other; what one lacks, all lack."""
        arrays: dict[str, Any] = {}
        for name in cls.ARRAYS:
            found = [getattr(part, name) for part in parts]
            arrays[name] = None if any(one is None for one in found) else np.concatenate(found)
        return cls(
            language=parts[0].language,
            segment_ids=tuple(name for part in parts for name in part.segment_ids),
            no_divergence=next((part.no_divergence for part in parts if part.no_divergence), None),
            **arrays,
        )

    def without_divergence(self, reason: str) -> Losses:
        """Return the same losses, saying why there is no divergence from full precision."""
        return Losses(
            language=self.language,
            segment_ids=self.segment_ids,
            nll=self.nll,
            tokens=self.tokens,
            utf8_bytes=self.utf8_bytes,
            no_divergence=reason,
        )
