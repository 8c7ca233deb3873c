"""docs/backends.md has room for what `tox run -e backends` writes, and that follows from the tests it ran."""

from pathlib import Path

import backends_page
import pytest

CODES = "compressed-tensors, GPTQ, AWQ, our export"
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
REPORTS = [
    ("tests/variants/llama_cpp/test_engine.py::test_a", "passed", ""),
    ("tests/variants/test_libraries.py::test_b[bnb:nf4-x]", "passed", ""),
    ("tests/variants/test_libraries.py::test_b[torchao:int8-x]", "failed", ""),
    ("tests/variants/test_checkpoint.py::test_c[gptq]", "skipped", "lifted by: pip"),
    ("tests/variants/quantization/test_grids.py::test_d", "passed", ""),
]


def test_each_backend_has_its_versions_and_what_its_tests_said(monkeypatch):
    monkeypatch.setattr(backends_page, "_version", lambda name: f"v of {name}")
    rows = [line for line in backends_page.table(REPORTS).splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| llama.cpp | v of llama.cpp | 1 | 0 |  |",
        "| bitsandbytes | v of bitsandbytes | 1 | 0 |  |",
        "| torchao | v of torchao | 0 | 1 |  |",
        f"| {CODES} | v of {CODES} | 0 | 0 | 1: lifted by: pip |",
    ]


def test_the_page_has_its_marks_and_all_else_stays():
    page = PAGE.read_text(encoding="utf-8")
    new = backends_page.written(page, "NEW")
    assert f"{backends_page.BEGIN}\nNEW\n{backends_page.END}" in new
    assert new.partition(backends_page.BEGIN)[0] == page.partition(backends_page.BEGIN)[0]
    assert new.partition(backends_page.END)[2] == page.partition(backends_page.END)[2]
    with pytest.raises(ValueError, match="lacks"):
        backends_page.written("no marks", "NEW")
