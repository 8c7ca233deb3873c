"""Whether a llama.cpp is at hand; tests that need one say what lifts their skip."""

from __future__ import annotations

import pytest


def _missing():
    from evenbits.variants.llama_cpp.library import LibraryError, find_library

    try:
        find_library()
    except LibraryError:
        return True
    return False


needs_llama_cpp = pytest.mark.skipif(
    _missing(), reason="no llama.cpp here; runs in `tox run -e backends`, or where EVENBITS_LLAMA_CPP names a build"
)
