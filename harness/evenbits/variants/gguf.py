"""`gguf:` specs: a file run by llama.cpp, or llama.cpp's own rounding in torch.

Text form::

    gguf:PATH ["@kv:f32"]                          a file, key-value cache f16 as deployed or f32
    gguf:FILE_TYPE["@imatrix"["[de,fr]"]]...       rounding, see `gguf_rounding`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits.errors import CorpusError, EngineError, IntegrityError, ModelError, SpecError
from evenbits.models.fingerprint import file_sha256
from evenbits.variants.gguf_rounding import GgufRounding, parse_gguf_rounding
from evenbits.variants.llama_cpp.library import KV_TYPES
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.models.gguf_census import GgufCensus
    from evenbits.records import Losses
    from evenbits.scoring import HiddenStates
    from evenbits.variants.llama_cpp.engine import GgufEngine
    from evenbits.variants.llama_cpp.library import Engine
    from evenbits.variants.tokens import OriginalTokens

__all__ = ["GgufFile", "parse"]

SCHEMA = 2
"""Raised whenever the same file and engine would give other scores."""

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_SUFFIX = re.compile(r"(.*\.gguf)(?:@kv:([a-z0-9]+))?", re.IGNORECASE)


def parse(text: str) -> GgufFile | GgufRounding:
    """Return the spec that `text` (`gguf:...`) names; `SpecError` where it is neither a file nor a file type."""
    rounding = parse_gguf_rounding(text)
    if rounding is not None:
        return rounding
    found = _SUFFIX.fullmatch(text.removeprefix("gguf:"))
    if found is None:
        raise SpecError(
            f"spec {text!r}: after gguf: comes a path that ends in .gguf, or one of llama.cpp's file types "
            "(gguf:Q4_K_M, gguf:IQ4_XS@imatrix[de,fr])"
        )
    return GgufFile(path=Path(found[1]), kv=found[2] or "f16")


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufFile:
    """The GGUF file at `path` (of a split one, any part), run by llama.cpp with a key-value cache of type `kv`."""

    path: Path
    kv: str = "f16"

    def __post_init__(self) -> None:
        if self.kv not in KV_TYPES:
            raise SpecError(f"gguf:{self.path}@kv:{self.kv}: the cache is of type {' or '.join(KV_TYPES)}")

    def __str__(self) -> str:
        return f"gguf:{self.path}{'' if self.kv == 'f16' else f'@kv:{self.kv}'}"

    def parts(self) -> tuple[Path, ...]:
        """Return the files that hold the model, in order; `ModelError` or `IntegrityError` where one is missing."""
        found = _PART.fullmatch(self.path.name)
        if found is None:
            files: tuple[Path, ...] = (self.path,)
        else:
            stem, _, total = found.groups()
            files = tuple(self.path.with_name(f"{stem}-{n:05d}-of-{total}.gguf") for n in range(1, int(total) + 1))
        missing = [file for file in files if not file.is_file()]
        if missing and len(files) == 1:
            raise ModelError(f"{self}: there is no file {missing[0]}")
        if missing:
            raise IntegrityError(f"{self}: the file has {len(files)} parts, and {missing[0].name} is missing")
        return files

    def variant(self, original: Original) -> Variant:
        """Return the file in llama.cpp; its key holds the content, the engine with its build, and the cache type."""
        digests = [file_sha256(part, store=original.store) for part in self.parts()]
        key = {"gguf": digests, "kv": self.kv, "engine": asdict(_engine()), "schema": SCHEMA}

        @contextmanager
        def runs(opened: Original) -> Iterator[_FileScorer]:
            from evenbits.variants.llama_cpp.engine import GgufEngine
            from evenbits.variants.tokens import OriginalTokens

            ours = OriginalTokens.of(opened)
            with GgufEngine(self.parts()[0], context=ours.context, threads=_threads(), kv=self.kv) as engine:
                yield _FileScorer(engine, ours, _prefix(engine, ours))

        return Variant(label=str(self), key=key, runs=runs)

    def bits_per_weight(self, original: Original) -> float | None:
        """Return the true bits of a block's weight, from the types that the tensors have."""
        del original
        return self.census().bits_per_weight

    def census(self) -> GgufCensus:
        """Return the types of the file's tensors."""
        from evenbits.models.gguf_census import census_of_files

        return census_of_files(self.parts())

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return engine, version, build, device and cache type, and the census of the file."""
        del original
        engine, census = _engine(), self.census()
        return {
            "engine": engine.name,
            "version": engine.version,
            "build": engine.build,
            "device": engine.device,
            "kv_cache": self.kv,
            "tensor_types": dict(census.tensors),
            "file_bits_per_weight": census.file_bits_per_weight,
            "label": census.label,
        }


@cache
def _engine() -> Engine:
    from evenbits.variants.llama_cpp.engine import engine_here

    return engine_here()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _prefix(engine: GgufEngine, ours: OriginalTokens) -> int:
    """Return the token before a segment: the original's where the file writes it alike, whatever BOS the file names.

    Else the file's own: another vocabulary has another token there.
    """
    if engine.text_of(ours.prefix) == ours.tokenizer.convert_ids_to_tokens(ours.prefix):
        return ours.prefix
    if engine.prefix is None:
        raise EngineError(
            f"{engine.path}: the file has another vocabulary than the original and names neither a BOS nor an EOS "
            "token, so the first token of a segment has no context. Write tokenizer.ggml.bos_token_id or "
            "tokenizer.ggml.eos_token_id into it"
        )
    return engine.prefix


class _FileScorer:
    """Scores with the file's own tokenizer; where that is not the original's, without divergence, and says so."""

    def __init__(self, engine: GgufEngine, ours: OriginalTokens, prefix: int) -> None:
        self._engine, self._ours, self._prefix = engine, ours, prefix

    @property
    def arithmetic(self) -> str:
        """Engine, version, build and device."""
        here = _engine()
        return f"{here.name} {here.version} ({here.build}) on {here.device}"

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
        """Return the losses of the file. It keeps no hidden states, and reads one window at a time in any case."""
        from evenbits.scoring.logits import score_logits

        del keep_hidden, small_batches
        tokens = self._engine.tokens(texts)
        for segment_id, ids in zip(segment_ids, tokens, strict=True):
            if not ids:
                raise CorpusError(f"segment {segment_id} in {language} has no token under the file's tokenizer")
        reason = self._ours.difference(language, segment_ids, texts, tokens, prefix=self._prefix)
        if reason is None and reference is not None and reference.head.weight.shape[0] != self._engine.vocabulary:
            reason = (
                f"no KL: the file has {self._engine.vocabulary} tokens, the original {reference.head.weight.shape[0]}"
            )
        losses = score_logits(
            self._engine,
            language,
            segment_ids,
            texts,
            tokens,
            prefix=self._prefix,
            context=self._ours.context,
            reference=None if reason else reference,
        )
        return losses.without_divergence(reason) if reason else losses, None
