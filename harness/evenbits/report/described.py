"""What a report knows about each language: name, script, family, and its resource level as one model was trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evenbits.text.languages import describe

__all__ = ["described", "exposure_of"]


def described(document: Mapping[str, Any], model: str | None = None) -> dict[str, Mapping[str, Any]]:
    """Return the entries of the corpus' languages by tag.

    `tier` is the public proxy that stands in the document, unless the document says what `model` was trained on: then
    its training bytes decide, as they did when it was measured (`evenbits.text.languages.describe`).
    """
    entries = {entry["tag"]: entry for entry in document["inputs"]["corpus"].get("languages") or []}
    exposure = exposure_of([document], model)
    if exposure is None:
        return entries
    return {tag: {**entry, "tier": describe(tag, exposure=exposure).tier} for tag, entry in entries.items()}


def exposure_of(documents: Iterable[Mapping[str, Any]], model: str | None) -> Mapping[str, int] | None:
    """Return the training bytes by language that some of the reports know of `model`, None where none does."""
    entries = (one for document in documents for one in document["inputs"]["models"] if one["text"] == model)
    return next((found for one in entries if (found := one.get("exposure"))), None)
