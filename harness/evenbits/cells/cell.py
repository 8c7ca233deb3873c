"""A cell: one variant of one model on the text of one language. All that is measured by scoring text is cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evenbits.models.device import CPU, Device, text_libraries
from evenbits.records import Corpus, Losses, text_digest
from evenbits.store import Entry, Store
from evenbits.variants.variant import Variant

__all__ = ["KIND", "SCHEMA", "Cell", "cells_of"]

KIND = "losses"
SCHEMA = 1
"""Raised whenever the same inputs would give other scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What is scored.

    `model`: fingerprint of the original. `dtype`: arithmetic, of a foreign engine its name and build. `device`: where
    that is computed; for a foreign engine, what cuts the text into tokens here. `small_batches`: scored in batches of
    another composition, for the noise floor.
    """

    model: str
    variant: Variant
    language: str
    segment_ids: tuple[str, ...]
    texts: tuple[str, ...]
    dtype: str
    context: int
    small_batches: bool = False
    device: str

    @property
    def text_digest(self) -> str:
        """SHA-256 over segment ids and texts."""
        return text_digest(self.texts, ids=self.segment_ids)

    def key(self) -> dict[str, Any]:
        """Return what identifies its losses in the store."""
        variant: Mapping[str, Any] = dict(self.variant.key)
        return {
            "schema": SCHEMA,
            "model": self.model,
            "variant": {**variant, "small_batches": True} if self.small_batches else variant,
            "dtype": self.dtype,
            "context": self.context,
            "divergence": self.variant.divergence,
            "texts": self.text_digest,
            "device": self.device,
        }

    def put(self, store: Store, losses: Losses | Callable[[], Losses], *, arithmetic: str) -> None:
        """Store its losses; a function is called unless another run was quicker. `arithmetic` says how, for people."""

        def parts() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            found = losses() if callable(losses) else losses
            why = {"no_divergence": found.no_divergence} if found.no_divergence else {}
            return dict(found.arrays()), {"arithmetic": arithmetic} | why

        store.compute(KIND, self.key(), parts)

    def losses(self, entry: Entry) -> Losses:
        """Return its losses from what the store has of it."""
        return Losses(
            language=self.language,
            segment_ids=self.segment_ids,
            no_divergence=entry.meta.get("no_divergence"),
            **entry.arrays,
        )


def cells_of(
    variant: Variant,
    corpus: Corpus,
    *,
    model: str,
    dtype: str,
    context: int,
    device: Device = CPU,
    small_batches: bool = False,
) -> tuple[Cell, ...]:
    """Return the cells of `variant` on every language of `corpus`, in its order; `dtype` and `device` are the run's.

    What runs elsewhere and has a divergence is held against full precision here, so that the device counts there, too.
    """
    here = variant.in_memory or variant.divergence
    return tuple(
        Cell(
            model=model,
            variant=variant,
            language=tag,
            segment_ids=corpus.segment_ids,
            texts=corpus.texts[tag],
            dtype=variant.dtype or dtype,
            context=context,
            small_batches=small_batches,
            device=device.key(variant.dtype or dtype) if here else text_libraries(),
        )
        for tag in corpus.languages
    )
