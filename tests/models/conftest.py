"""Fixtures of the model tests: what is refused leaves nothing behind."""

from __future__ import annotations

import pytest
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve

KEPT = {"checksums", "fingerprints", "gguf", "wheels"}  # sums of files, and wheels, whose checksum is known before


@pytest.fixture
def refuse(store, tmp_path, monkeypatch):
    """`refuse(text, kind, match, **options)`: resolving raises, and neither store nor working folder gain a file."""
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)

    def check(text, kind, match, **options):
        with pytest.raises(kind, match=match) as caught:
            resolve(parse_model(str(text)), store=store, **options)
        assert caught.value.exit_code == 2
        assert list(working.iterdir()) == []
        left = [path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
        # What was found out of an input file is a finished measurement, not a part of the refused model.
        assert [path for path in left if path.relative_to(store.root).parts[0] not in KEPT] == []

    return check
