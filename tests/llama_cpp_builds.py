"""Whether a llama.cpp is at hand; tests that need one say what lifts their skip.

`python tests/llama_cpp_builds.py FOLDER` unpacks a prebuilt one there: the libraries inside an npm package.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

PACKAGE = "@node-llama-cpp/linux-x64@3.21.1"  # llama.cpp v0.4.0, with kernels for every kind of x86-64
INSIDE = "package/bins/linux-x64/"


def unpack(folder: Path) -> None:
    """Put the libraries of `PACKAGE` into `folder`, unless they are there."""
    if list(folder.glob("libllama*")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        npm = shutil.which("npm") or "npm"
        subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=place, check=True)
        with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
            for member in archive.getmembers():
                if member.name.startswith(INSIDE) and member.isfile():
                    member.name = member.name.removeprefix(INSIDE)
                    archive.extract(member, folder, filter="data")


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

if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
