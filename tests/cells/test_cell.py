"""What identifies a cell in the store."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from evenbits.cells.cell import cells_of
from evenbits.models import device as module
from evenbits.records import Corpus
from evenbits.variants.variant import FULL_PRECISION, Variant

ENGINE = Variant(label="gguf:x", key={"gguf": "x"}, runs=lambda _original: nullcontext(object()))
ENDPOINT = Variant(
    label="served:x", key={"served": "x"}, runs=lambda _original: nullcontext(object()), divergence=False
)


def text():
    return Corpus(name="x", source="x", languages=("de",), segment_ids=("1",), texts={"de": ("eins",)})


@pytest.mark.parametrize("variant", [FULL_PRECISION, ENGINE, ENDPOINT], ids=["in memory", "an engine", "an endpoint"])
@pytest.mark.parametrize("library", ["transformers", "tokenizers"])
def test_another_version_of_what_cuts_text_into_tokens_is_another_cell(variant, library, monkeypatch):
    def key():
        return cells_of(variant, text(), model="m", dtype="float32", context=8)[0].key()

    before, version = key(), module.version
    assert key() == before
    monkeypatch.setattr(module, "version", lambda name: "0.1" if name == library else version(name))
    assert key() != before


@pytest.mark.parametrize(("variant", "counts"), [(ENGINE, True), (ENDPOINT, False)])
def test_where_full_precision_is_computed_is_part_of_what_an_engine_diverges_from_it(variant, counts):
    """KL and top-1 of a GGUF file are against full precision here; an endpoint has neither."""
    devices = (
        module.Device(name="cpu", products="float32"),
        module.Device(name="cpu", products="bfloat16"),
        module.Device(name="cuda:0", label="NVIDIA H200"),
    )
    keys = {
        str(cells_of(variant, text(), model="m", dtype="bfloat16", context=8, device=device)[0].key())
        for device in devices
    }
    assert len(keys) == (3 if counts else 1)
