"""What identifies a cell in the store."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from evenbits.cells.cell import cells_of
from evenbits.models import device as module
from evenbits.records import Corpus
from evenbits.variants.variant import FULL_PRECISION, Variant

ENDPOINT = Variant(label="served:x", key={"served": "x"}, runs=lambda _original: nullcontext(object()))


@pytest.mark.parametrize("variant", [FULL_PRECISION, ENDPOINT], ids=["in memory", "elsewhere"])
@pytest.mark.parametrize("library", ["transformers", "tokenizers"])
def test_another_version_of_what_cuts_text_into_tokens_is_another_cell(variant, library, monkeypatch):
    corpus = Corpus(name="x", source="x", languages=("de",), segment_ids=("1",), texts={"de": ("eins",)})

    def key():
        return cells_of(variant, corpus, model="m", dtype="float32", context=8)[0].key()

    before, version = key(), module.version
    assert key() == before
    monkeypatch.setattr(module, "version", lambda name: "0.1" if name == library else version(name))
    assert key() != before
